"""A board computed again from recorded answers: equal row for row, with nobody to ask."""

import json
import os
import re
import shutil
import socket
from pathlib import Path

import polars as pl
import pytest

import tasks
from alpacafarm_core.artifacts import Candidates, Leaderboard, Preferences
from alpacafarm_core.errors import BadInput, Missing
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.panel import load
from alpacafarm_core.recipe import Recipe, key_of
from alpacafarm_core.replay import bundle, judgings_of, replayed
from alpacafarm_core.settings import Truth
from alpacafarm_core.setup import Setup
from alpacafarm_core.store import Made
from flows.cli import main
from tasks.stage import ledger

SHARED = Path(os.environ.get("ALPACAFARM_SHARED") or Path(__file__).parents[2] / "shared")
SIZE = 12


@pytest.fixture
def offline(monkeypatch):
    """No network and no key."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was reached for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in [name for name in os.environ if name.endswith("_KEY")]:
        monkeypatch.delenv(name)


@pytest.fixture
def board(store) -> Leaderboard:
    """Two models against the reference: one gives its answers in a turned round order."""
    reference = tasks.published(Setup().source, SIZE)
    rows = store.read(reference)
    models = {"sft": rows["output"].reverse(), "dpo": rows["output"].str.to_uppercase()}
    return tasks.tally({name: evaluated(store, reference, models[name]) for name in models})


def laid(store, rows: pl.DataFrame) -> Candidates:
    """Answers put into the store by hand."""
    arguments = {"outputs": rows["output"].to_list()}
    answers = Candidates(key=key_of("hand", 1, arguments))
    store.write(answers, Made(rows), Recipe.of("hand", 1, arguments), 0.0)
    return answers


def evaluated(store, reference: Candidates, outputs: pl.Series) -> Evaluation:
    """Answers judged by the world's clean panel."""
    rows = store.read(reference).with_columns(output=outputs, generator=pl.lit("model"))
    answers = laid(store, rows)
    labels = tasks.annotate(answers, reference, load("world_clean", seed=3))
    return Evaluation(preferences=labels, truth=tasks.score(answers, Truth()))


@pytest.fixture
def bundled(store, board, tmp_path) -> Path:
    """Its bundle."""
    out = tmp_path / "bundle"
    out.mkdir()
    bundle(store, ledger(), board, out)
    return out


def edited(file: Path, before: str, after: str) -> None:
    """Put one text in place of another."""
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


def test_the_board_comes_out_equal_row_for_row(store, board, bundled, offline, monkeypatch):
    monkeypatch.delenv("ALPACAFARM_STORE")
    found = replayed(bundled)
    assert found.differences == []
    assert sorted(found.as_recorded) == sorted(each.artifact.folder for each in store.all("scores"))
    assert found.board.equals(store.read(board))
    assert found.judged == 2 * SIZE and found.calls > 0


def test_a_bundle_shows_every_request_with_its_answer(bundled):
    lines = [json.loads(line) for line in (bundled / "transcripts.jsonl").read_text().splitlines()]
    assert all(line["request"]["messages"] and line["answer"]["text"] for line in lines)
    assert sum(len(line["rows"]) for line in lines) == 2 * SIZE
    said = pl.read_parquet(bundled / "store/preferences/*/rows.parquet")["raw_completion"]
    assert {line["answer"]["text"] for line in lines} == set(said)


def test_a_request_that_showed_a_row_from_elsewhere_is_left_out(store, tmp_path, offline):
    reference = tasks.published(Setup().source, SIZE)
    rows = store.read(reference)
    evaluated(store, reference, rows["output"].reverse())
    few = evaluated(store, laid(store, rows.head(5)), rows["output"].reverse().head(5))
    few = few.model_copy(update={"truth": None})
    (tmp_path / "out").mkdir()
    bundle(store, ledger(), tasks.tally({"dpo": few}), tmp_path / "out")
    lines = map(json.loads, (tmp_path / "out" / "transcripts.jsonl").read_text().splitlines())
    parts = [line for line in lines if "" in line["rows"]]
    assert parts and all(line["request"] is None for line in parts)
    found = replayed(tmp_path / "out")
    assert found.differences == [] and found.judged == 5


def test_labels_that_no_panel_gave_are_taken_as_recorded(store, board, tmp_path, offline):
    (one, *_) = judgings_of(store, board)
    rows, people = store.read(one.labels), Preferences(key="0" * 16)
    store.write(people, Made(rows), Recipe.of("import", 1, {}), 0.0)
    by_people = tasks.tally({"dpo": Evaluation(preferences=people)})
    (tmp_path / "out").mkdir()
    bundle(store, ledger(), by_people, tmp_path / "out")
    found = replayed(tmp_path / "out")
    assert (found.as_recorded, found.judged) == ([people.folder], 0)
    assert found.board.equals(store.read(by_people))


def test_a_board_that_was_not_tallied_here_is_refused(store, board, tmp_path):
    taken_in = Leaderboard(key="0" * 16)
    store.write(taken_in, Made(store.read(board)), Recipe.of("import", 1, {}), 0.0)
    with pytest.raises(BadInput, match="came from 'import' and rests on no labels"):
        bundle(store, ledger(), taken_in, tmp_path)


def test_the_panel_in_a_bundle_is_the_one_that_judged(store, board, bundled):
    contents = json.loads((bundled / "bundle.json").read_text())
    for each in judgings_of(store, board):
        file, seed = (contents[field][each.labels.folder] for field in ("panels", "seeds"))
        assert load(bundled / file, seed=seed) == each.panel


def test_no_path_of_this_machine_stands_in_a_bundle(bundled, tmp_path):
    texts = [f.read_bytes() for f in bundled.rglob("*") if f.is_file() and f.suffix != ".parquet"]
    assert not any(str(tmp_path).encode() in text for text in texts)


def test_a_secret_of_the_environment_is_refused(store, board, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", board.folder)
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="the value of SOME_API_KEY stands in"):
        bundle(store, ledger(), board, tmp_path / "out")


def test_another_answer_makes_another_board(bundled):
    lines = (bundled / "transcripts.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    answers[0]["answer"]["text"] = "nothing that can be read"
    text = "\n".join(map(json.dumps, answers))
    (bundled / "transcripts.jsonl").write_text(text + "\n")
    differences = replayed(bundled).differences
    assert any(line.startswith("preferences/") for line in differences)


def test_another_request_is_named_with_its_line(bundled):
    edited(bundled / "transcripts.jsonl", '"role":"user","content":"', '"role":"user","content":"X')
    with pytest.raises(BadInput, match=r"line 1: its request is not the one that was answered"):
        replayed(bundled)
    (bundled / "transcripts.jsonl").write_text('{"rows": 3}\n')
    with pytest.raises(BadInput, match="line 1: not a transcript"):
        replayed(bundled)


def test_a_missing_answer_is_named(bundled):
    lines = (bundled / "transcripts.jsonl").read_text().splitlines(keepends=True)
    (bundled / "transcripts.jsonl").write_text("".join(lines[1:]))
    assert refusal(bundled).endswith(
        f"answers are not in {bundled}/transcripts.jsonl; copy the bundle again"
    )


def refusal(bundled: Path) -> str:
    """What replaying it says in one line, which names no folder that is gone by then."""
    with pytest.raises(BadInput) as refused:
        replayed(bundled)
    (line,) = str(refused.value).splitlines()
    assert str(bundled) in line and line.endswith("; copy the bundle again")
    assert "/tmp" not in line.replace(str(bundled), "") and "forget" not in line
    return line


def test_a_damaged_table_is_named(bundled):
    (table,) = (bundled / "store/leaderboard").glob("*/rows.parquet")
    table.write_bytes(b"PAR1 nothing PAR1")
    assert refusal(bundled).startswith(f"{table} is damaged")


def test_what_a_store_lacks_is_named(bundled):
    shutil.rmtree(bundled / "store/candidates")
    assert re.match(rf"no candidates/\w+ in {bundled}/store;", refusal(bundled))
    shutil.rmtree(bundled / "store")
    assert refusal(bundled).startswith(f"{bundled}/store: not as a farm has it")


def test_a_manifest_that_no_stage_wrote_is_refused(bundled):
    for file in (bundled / "store/preferences").glob("*/manifest.json"):
        edited(file, '"rivals"', '"others"')
    assert refusal(bundled).startswith(f"{bundled}/store: ")


def test_what_a_bundle_says_of_itself_is_checked(bundled):
    contents = json.loads((bundled / "bundle.json").read_text())
    labels = next(iter(contents["seeds"]))
    seeds = contents["seeds"] | {labels: 99}
    for wrong in ({"calls": 99999}, {"seeds": seeds}, {"panels": {}}):
        (bundled / "bundle.json").write_text(json.dumps(contents | wrong))
        (difference,) = replayed(bundled).differences
        assert difference.startswith("bundle.json: ")


def test_a_panel_that_did_not_judge_is_found_out(bundled):
    (panel,) = (bundled / "panels").glob("*/panel.yaml")
    edited(panel, "temperature: ", "temperature: 1")
    assert "panel.yaml: not the panel that gave preferences/" in replayed(bundled).differences[0]
    panel.write_text("name: evil\n")
    assert refusal(bundled).startswith(f"{panel}: no list of annotators")
    panel.unlink()
    refusal(bundled)


def test_true_scores_are_said_to_be_as_recorded(store, bundled, capsys):
    main(["replay", str(bundled)])
    said = capsys.readouterr().out
    assert all(each.artifact.folder in said for each in store.all("scores"))
    assert "taken as recorded, not computed again: scores/" in said


def test_what_is_no_bundle_is_refused(bundled, tmp_path):
    with pytest.raises(Missing, match="no bundle in"):
        replayed(tmp_path)
    (bundled / "bundle.json").write_text("{}")
    with pytest.raises(BadInput, match="not what a bundle says"):
        replayed(bundled)


def test_answers_that_the_ledger_lost_are_counted(store, board, tmp_path):
    from alpacafarm_core.ledger import Ledger

    empty = Ledger(tmp_path / "empty.sqlite")
    with pytest.raises(BadInput, match=r"\d+ of \d+ answers are not in .*empty\.sqlite"):
        bundle(store, empty, board, tmp_path)
    empty.close()


def test_the_commands_export_and_replay(store, board, tmp_path, capsys, offline):
    out = tmp_path / "out"
    main(["export", board.key, "--as", "bundle", "--out", str(out)])
    capsys.readouterr()
    main(["replay", str(out), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["equal"] and document["key"] == board.key and document["cost_usd"] == 0
    assert document["leaderboard"] == store.read(board).to_dicts()
    edited(out / "transcripts.jsonl", '"price":', '"price":1')
    with pytest.raises(SystemExit) as left:
        main(["replay", str(out)])
    assert left.value.code == 2 and "rows differ, first changed" in capsys.readouterr().err


def test_a_published_annotation_file_is_a_judge_already(offline, capsys, tmp_path):
    theirs = SHARED / "data" / "alpaca_eval_files" / "annotations.json"
    if not theirs.is_file():
        pytest.skip("no shared/data beside the project and ALPACAFARM_SHARED not set")
    main(["tally", str(theirs), "--json"])
    (row,) = json.loads(capsys.readouterr().out)["leaderboard"]
    published = pl.read_csv(SHARED / "data" / "published_leaderboard.csv")
    (expected,) = published.filter(pl.col("model") == row["model"]).to_dicts()
    for name in ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total"):
        assert row[name] == pytest.approx(expected[name], abs=1e-9)
