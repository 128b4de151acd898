"""The command as a person types it, and one line with exit code 2 when it cannot."""

import json
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core.setup import Setup
from flows.cli import main
from tasks import instructions


def typed(*words: object) -> int:
    """Run the command; its exit code."""
    try:
        main([str(word) for word in words])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """What it said on stderr: exactly one line."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("alpacafarm: ")


@pytest.fixture
def made(store):
    """One artifact in the store."""
    return instructions(Setup().source, "eval", 20)


def test_ls_show_why_lineage_and_verify_agree_on_an_artifact(store, made, capsys):
    assert typed("ls", "--json") == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["kind"], line["key"], line["rows"]) == ("instructions", made.key, 20)
    assert typed("show", made.key[:6], "--rows", 2, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["rows"]) == 2 and shown["manifest"]["recipe"]["stage"] == "instructions"
    assert typed("why", made.key, "--json") == 0
    assert json.loads(capsys.readouterr().out)["ran"] is True
    assert typed("lineage", made.key, "--json") == 0
    assert [each["key"] for each in json.loads(capsys.readouterr().out)] == [made.key]
    assert typed("verify", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "checked": 1, "damaged": []}


def test_why_names_what_differs_from_the_nearest(store, made, capsys, monkeypatch):
    more = instructions(Setup().source, "eval", 21)
    monkeypatch.setattr("tasks.stage.RUN", "another process")
    instructions(Setup().source, "eval", 20)
    typed("why", more.key, "--json")
    assert "settings.size: 20 -> 21" in json.loads(capsys.readouterr().out)["because"]
    typed("why", made.key, "--json")
    assert json.loads(capsys.readouterr().out)["ran"] is False


def test_forget_removes_and_says_so(store, made, capsys):
    assert typed("forget", made.key) == 0
    assert not store.has(made)
    assert typed("forget", made.key) == 2


def test_a_corrupted_parquet_is_named_with_the_mend(store, made, capsys):
    (store.path(made) / "rows.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert typed("show", made.key) == 2
    said = complaint(capsys)
    assert "rows.parquet is damaged" in said and f"alpacafarm forget {made.key}" in said
    assert typed("verify") == 2


def test_import_takes_a_file_in_by_its_content(store, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"instruction": "Name a fruit.", "output": "Apple."}\n')
    assert typed("import", file, "--as", "demonstrations", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["kind"], first["rows"]) == ("demonstrations", 1)
    moved = file.rename(tmp_path / "moved.jsonl")
    typed("import", moved, "--as", "demonstrations", "--json")
    assert json.loads(capsys.readouterr().out)["key"] == first["key"]


BAD_FILES = {
    "wrong column": ("rows.jsonl", '{"instrution": "a", "output": "b"}\n', "instruction"),
    "empty file": ("rows.json", "", "empty"),
    "broken JSON": ("rows.jsonl", '{"instruction": "a", "output": "b"}\n{"instr\n', "2"),
    "not a Parquet": ("rows.parquet", "PAR1 no", "Parquet|parquet"),
}


@pytest.mark.parametrize("what", sorted(BAD_FILES))
def test_a_bad_file_is_refused_in_one_line_and_nothing_is_written(what, store, tmp_path, capsys):
    import re

    name, content, named = BAD_FILES[what]
    file = tmp_path / name
    file.write_text(content)
    assert typed("import", file, "--as", "demonstrations") == 2
    said = complaint(capsys)
    assert str(file) in said and re.search(named, said), said
    assert store.receipts() == [] and not list((store.root / ".drafts").iterdir())


def test_a_prompt_that_comes_twice_is_refused_with_its_row(store, tmp_path, capsys):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"instruction": "a"}\n{"instruction": "b"}\n{"instruction": "a"}\n')
    assert typed("import", file, "--as", "instructions") == 2
    assert "3" in complaint(capsys)


def test_a_preference_that_is_no_number_is_refused_with_its_row(store, tmp_path, capsys):
    file = tmp_path / "pairs.parquet"
    rows = {"instruction": ["a", "b"], "output_1": ["x"] * 2, "output_2": ["y"] * 2}
    pl.DataFrame({**rows, "preference": [1.0, float("nan")]}).write_parquet(file)
    assert typed("import", file, "--as", "preferences") == 2
    said = complaint(capsys)
    assert "preference" in said and "row 2" in said and "not a finite number" in said


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("run", "nope"), "unknown method 'nope'; methods are"),
        (("run", "dpo", "--method.bta", "1"), "unknown field method.bta; did you mean beta?"),
        (("run", "dpo", "--setup.scale", "huge"), "setup.scale"),
        (("run", "dpo", "--setup.panel", "nobody"), "no panel nobody"),
        (("run", "dpo", "--setup.base", "./nowhere"), "no model folder './nowhere'"),
        (("ls", "sheep"), "unknown kind 'sheep'"),
        (("show", "abcdef"), "no artifact with key 'abcdef'"),
        (("tally", "missing.parquet"), "missing.parquet"),
        (("frobnicate",), "No such command"),
        (("demo", "--seed", "x"), "--seed"),
    ],
)
def test_wrong_words_are_refused_in_one_line(words, named, store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert typed(*words) == 2
    assert named in complaint(capsys)
    assert not Path("data").exists()


def test_a_panel_that_asks_for_a_model_nobody_plays_is_refused_at_the_door(store, tmp_path, capsys):
    own = tmp_path / "own.yaml"
    fields = (
        "model: world/judge-gpt5, prompt: short_1.txt, prompt_with_input: short_1_with_input.txt"
    )
    own.write_text(f"annotators:\n  - {{name: mine, {fields}}}\n")
    assert typed("run", "dpo", "--setup.panel", own) == 2
    assert "mine asks for 'world/judge-gpt5', which the built-in world lacks" in complaint(capsys)
    assert store.receipts() == []


def test_a_store_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "rows.jsonl").write_text('{"instruction": "Name a fruit."}')
    words = ["import", tmp_path / "rows.jsonl", "--as", "instructions"]
    assert typed(*words, "--store", tmp_path / "file" / "store") == 2
    assert "is not writable" in complaint(capsys)


def test_help_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys\nsys.argv[1:] = ['--help']\nfrom flows.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch','transformers','vllm','prefect','polars') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
