"""Following a run: who listens gets every step, and nobody who listens can end a run."""

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import polars as pl
import pytest

from alpacafarm_core import following, sinks
from alpacafarm_core.errors import BadInput
from alpacafarm_core.following import CLEAR, Line, Lines, Watch, followed
from alpacafarm_core.progress import WATCHER, Progress
from alpacafarm_core.train.logbook import Figures, Logbook
from tasks import progress

ENTRY = {"step": 9, "steps": 40, "loss": 0.5, "seconds": 2.0, "tokens_per_second": 50.0}
SAID = "train: step 10 of 40 · loss 0.5000 · 50 tokens/s · 60 s left"


class Notes:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.is_closed = False

    def note(self, entries: Sequence[Figures]) -> None:
        self.steps += [entry["step"] for entry in entries]

    def close(self) -> None:
        self.is_closed = True


class Deaf(Notes):
    """A listener whose server is gone."""

    def note(self, entries: Sequence[Figures]) -> None:
        raise ConnectionError("no server")


def run(feed: Path, steps: int = 5) -> None:
    book = Logbook(feed)
    for step in range(steps):
        book.note(step, steps, {"loss": 1.0, "tokens": 10})


def test_a_listener_gets_every_step_and_is_told_the_end(tmp_path):
    notes = Notes()
    with followed(tmp_path / "feed", [notes], look=0.001):
        run(tmp_path / "feed")
    assert notes.steps == [0, 1, 2, 3, 4] and notes.is_closed


def test_the_steps_of_a_stopped_run_are_not_told_again(tmp_path):
    (tmp_path / "feed").write_text('{"step": 7}\n')
    notes = Notes()
    with followed(tmp_path / "feed", [notes]):
        run(tmp_path / "feed", 2)
    assert notes.steps == [0, 1]


def test_a_run_that_fails_is_followed_to_its_last_step(tmp_path):
    notes = Notes()
    with pytest.raises(RuntimeError), followed(tmp_path / "feed", [notes]):
        run(tmp_path / "feed", 3)
        raise RuntimeError
    assert notes.steps == [0, 1, 2] and notes.is_closed


def test_a_listener_that_fails_is_left_out_and_the_others_go_on(tmp_path, caplog):
    deaf, notes = Deaf(), Notes()
    with caplog.at_level(logging.WARNING), followed(tmp_path / "feed", [deaf, notes]):
        run(tmp_path / "feed")
    assert notes.steps == [0, 1, 2, 3, 4] and not deaf.is_closed
    assert "Deaf no longer follows: no server" in caplog.text


def test_a_line_has_the_time_left_at_the_pace_of_the_last_steps():
    assert Watch("train").line([ENTRY]) == SAID
    slow = [{"step": step, "steps": 400, "seconds": 30.0} for step in range(10)]
    assert Watch("train").line(slow) == "train: step 10 of 400 · 3.2 h left"
    restored = [{"step": 3, "loss": 0.5, "seconds": 2.0}]
    assert Watch("train").line(restored) == "train: going on after step 4"


def test_a_live_line_is_written_over_itself_and_wiped(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    terminal = io.StringIO()
    line = Line("train", terminal)
    line.note([ENTRY])
    line.close()
    assert terminal.getvalue() == CLEAR + SAID[:29] + CLEAR


def test_a_log_gets_a_line_now_and_then(monkeypatch, caplog):
    with caplog.at_level(logging.INFO, logger="alpacafarm.progress"):
        lines = Lines("train")
        lines.note([ENTRY])
        monkeypatch.setattr(following, "SAY", 0.0)
        lines.note([ENTRY])
    assert [record.getMessage() for record in caplog.records] == [SAID]


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_sink_that_is_not_installed_is_refused_with_the_extra_to_install(
    monkeypatch, tmp_path, package
):
    monkeypatch.setattr(sinks, "find_spec", lambda name: None)
    monkeypatch.setenv(f"ALPACAFARM_{package.upper()}", "anything")
    with pytest.raises(BadInput, match=rf"pip install 'alpacafarm\[{package}\]'"):
        sinks.check()
    with pytest.raises(BadInput), progress.following(tmp_path / "feed", "train", "7f3a"):
        raise AssertionError("the job must not begin")


def test_figures_go_to_the_sinks_that_the_environment_names(monkeypatch, tmp_path):
    said = tmp_path / "said"
    packages(tmp_path / "packages", said)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setenv("ALPACAFARM_TENSORBOARD", str(tmp_path / "board"))
    monkeypatch.setenv("ALPACAFARM_WANDB", "farm")
    with progress.following(tmp_path / "feed", "train", "7f3a"):
        Logbook(tmp_path / "feed").note(0, 1, {"loss": 0.5})
    lines = said.read_text().splitlines()
    assert f"writer {tmp_path}/board/train-7f3a" in lines and "scalar loss 0.5 0" in lines
    assert "init farm train train-7f3a" in lines and "log 0.5 0" in lines
    assert {"flush", "close", "finish"} <= set(lines)
    assert not (tmp_path / "feed").exists()


def test_a_board_that_cannot_be_written_is_refused_before_anything_runs(monkeypatch, tmp_path):
    (tmp_path / "board").write_text("a file where a folder should be")
    monkeypatch.setattr(sinks, "find_spec", lambda name: True)
    monkeypatch.setenv("ALPACAFARM_TENSORBOARD", str(tmp_path / "board"))
    with pytest.raises(BadInput, match=r"ALPACAFARM_TENSORBOARD=.*: File exists; name a folder"):
        sinks.check()


def test_no_sink_is_open_unless_asked_for(monkeypatch):
    for variable in sinks.ASKED:
        monkeypatch.delenv(variable, raising=False)
    assert sinks.opened("train", "7f3a") == []


def test_a_flow_run_has_a_progress_artifact_that_ends_at_100_percent(prefect, tmp_path):
    from prefect import flow
    from prefect.client.orchestration import get_client

    @flow
    def training() -> None:
        with progress.following(tmp_path / "feed", "rehearse", "7f3a"):
            Logbook(tmp_path / "feed").note(1, 2, {"loss": 0.5})

    training()
    with get_client(sync_client=True) as client:
        pages = {page.description: page for page in client.read_artifacts()}
    (said,) = (said for said in pages if said and said.startswith("rehearse"))
    assert said.startswith("rehearse: step 2 of 2 · loss 0.5000")
    assert pages[said].type == "progress" and pages[said].data == 100.0


def test_a_purchase_that_takes_long_has_a_progress_artifact_too(prefect, monkeypatch):
    from prefect import flow
    from prefect.client.orchestration import get_client

    monkeypatch.setattr("alpacafarm_core.progress.PERIOD", 0.0)

    @flow
    def buying() -> None:
        with progress.counting("label"):
            calls = Progress(4)
            calls.add(1, 0.5)
            calls.add(2, 0.5)

    buying()
    with get_client(sync_client=True) as client:
        (page,) = (
            each for each in client.read_artifacts() if (each.description or "").startswith("label")
        )
    assert (page.type, page.data, page.description) == (
        "progress",
        100.0,
        "label: all calls are back",
    )


def test_who_watches_a_purchase_is_told_the_share_and_the_money(monkeypatch):
    monkeypatch.setattr("alpacafarm_core.progress.PERIOD", 0.0)
    said = []
    token = WATCHER.set(lambda percent, line: said.append((percent, line)))
    Progress(4).add(1, 0.5)
    WATCHER.reset(token)
    ((percent, line),) = said
    assert percent == 25.0 and line.startswith("1 of 4 calls, $0.50 so far, ")


def test_a_page_has_charts_of_the_first_figures_with_few_points():
    history = pl.DataFrame({"step": range(120), "loss": [0.5, 0.25] * 60, "kl": [1.0] * 120})
    loss, kl = progress.charts(history)
    assert loss.splitlines()[:3] == ["```mermaid", "xychart-beta", '  title "loss"']
    assert loss.splitlines()[3] == f"  line [{', '.join(['0.5'] * 60)}]"
    assert '"KL from the reference, nats a response"' in kl
    assert progress.charts(pl.DataFrame()) == []


def packages(folder: Path, said: Path) -> None:
    """Two packages that write down what is asked of them, in place of the real ones."""
    say = f"def say(*words):\n    with open({str(said)!r}, 'a') as file: print(*words, file=file)\n"
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "tensorboard" / "__init__.py").write_text("")
    board = """
        class Writer:
            def __init__(self, folder): say("writer", folder)
            def add_scalar(self, name, figure, step): say("scalar", name, figure, step)
            def flush(self): say("flush")
            def close(self): say("close")
    """
    (folder / "tensorboard" / "summary.py").write_text(say + dedent(board))
    wandb = """
        class Run:
            def log(self, figures, step): say("log", figures["loss"], step)
            def finish(self): say("finish")

        def init(project, group, name, reinit):
            say("init", project, group, name)
            return Run()
    """
    (folder / "wandb.py").write_text(say + dedent(wandb))
