"""The logbook of a training run, its feed, and who reads that while it is written."""

import json
import logging

from alpacafarm_core.train.logbook import TIMED, Logbook, Reader, terse


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def untimed(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in one.items() if k not in TIMED} for one in history]


def test_every_step_is_kept_with_its_number_its_seconds_and_its_speed():
    clock = Clock()
    book = Logbook(clock=clock)
    for step, tokens in enumerate((300, 100)):
        clock.now += 2
        book.note(step, 2, {"loss": 0.5, "tokens": tokens})
    assert book.history == [
        {"step": 0, "loss": 0.5, "tokens": 300, "seconds": 2.0, "tokens_per_second": 150.0},
        {"step": 1, "loss": 0.5, "tokens": 100, "seconds": 2.0, "tokens_per_second": 50.0},
    ]


def test_what_is_not_timed_is_the_same_in_a_slower_run():
    histories = []
    for pace in (1, 7):
        clock = Clock()
        book = Logbook(clock=clock)
        for step in range(3):
            clock.now += pace
            book.note(step, 3, {"loss": 1 / (step + 1), "tokens": 10})
        histories.append(book.history)
    assert histories[0] != histories[1]
    assert untimed(histories[0]) == untimed(histories[1])


def test_figures_without_tokens_have_no_speed():
    book = Logbook()
    book.note(0, 1, {"reward": 1.0})
    assert book.history[0].keys() == {"step", "reward", "seconds"}


def test_a_feed_has_one_line_a_step_and_is_read_as_it_grows(tmp_path):
    feed = tmp_path / "new" / "progress.jsonl"
    reader = Reader(feed)
    assert reader.new() == []
    book = Logbook(feed)
    book.note(0, 3, {"loss": 0.7})
    assert [(e["step"], e["steps"], e["loss"]) for e in reader.new()] == [(0, 3, 0.7)]
    assert reader.new() == []
    book.note(1, 3, {"loss": 0.6})
    book.note(2, 3, {"loss": 0.5})
    assert [entry["loss"] for entry in reader.new()] == [0.6, 0.5]


def test_half_a_line_is_read_once_it_is_whole(tmp_path):
    feed, line = tmp_path / "feed", json.dumps({"step": 0, "loss": 0.7}) + "\n"
    reader = Reader(feed)
    feed.write_text(line + line[:9])
    assert len(reader.new()) == 1
    assert reader.new() == []
    feed.write_text(line + line)
    assert reader.new() == [{"step": 0, "loss": 0.7}]


def test_going_on_from_a_checkpoint_drops_the_steps_after_it(tmp_path):
    feed = tmp_path / "feed"
    killed = Logbook(feed)
    for step in range(5):
        killed.note(step, 6, {"loss": float(step)})
    reader = Reader(feed)
    assert len(reader.new()) == 5
    resumed = Logbook(feed, killed.history[:2])
    resumed.note(2, 6, {"loss": 2.0})
    assert [entry["step"] for entry in reader.new()] == [0, 1, 2]
    assert [entry["step"] for entry in resumed.history] == [0, 1, 2]
    assert len(killed.history) == 5


def test_the_log_has_the_first_and_last_step_and_one_every_two_seconds(caplog):
    clock = Clock()
    with caplog.at_level(logging.INFO, logger="alpacafarm.training"):
        book = Logbook(clock=clock)
        for step in range(10):
            clock.now += 0.75
            book.note(step, 10, {"loss": 0.5})
    said = [record.getMessage().split(" · ")[0] for record in caplog.records]
    assert said == [f"step {n} of 10" for n in (1, 4, 7, 10)]


def test_a_terse_line_has_what_a_person_watches():
    entry = {"step": 1, "reward": 0.25, "kl": 3.0, "clip_fraction": 0.1, "length": 41.6}
    assert terse(entry, 40) == "step 2 of 40 · reward 0.250 · KL 3.00 · 42 tokens long"
    pairs = {"step": 0, "loss": 0.6931, "accuracy": 0.5, "tokens_per_second": 1234.5}
    assert terse(pairs, 2) == "step 1 of 2 · loss 0.6931 · accuracy 50.0% · 1234 tokens/s"


def test_a_feed_is_not_wanted_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Logbook().note(0, 1, {"loss": 1.0})
    assert not list(tmp_path.iterdir())
