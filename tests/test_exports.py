"""Formats of other people's: what was read is written as the same text, misfits are refused."""

import json
import os
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core.artifacts import (
    Candidates,
    Demonstrations,
    Leaderboard,
    Preferences,
    Table,
)
from alpacafarm_core.errors import BadInput
from alpacafarm_core.exports import (
    annotations,
    chosen_and_rejected,
    conversed,
    farm_records,
    model_outputs,
    prompted,
    published_board,
    read_records,
    writer_of,
    written_records,
    written_table,
)
from alpacafarm_core.files import read
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.setup import Setup
from alpacafarm_core.store import KINDS, Made
from alpacafarm_core.synthesis import Synthetic
from alpacafarm_core.weights import Policy
from tasks import instructions
from tests.test_cli import typed

SHARED = Path(os.environ.get("ALPACAFARM_SHARED") or Path(__file__).parents[2] / "shared")
THEIRS = SHARED / "data" / "alpaca_eval_files"
FILES = {"model_outputs.json": "model_outputs", "annotations.json": "annotations"}
BOARD = ",win_rate,mode,n_total,lc_standard_error\ngpt4,95.27950310559007,minimal,805.0,\n"
WEIGHTS = (
    ",np.tanh(std_delta_len),instruction_difficulty,not_gamed_baseline.astype(float)\n"
    'a model,0.7812345678901234,1.0203040506070809,-0.0000000000000012\n"b, too",0.5,0.25,0.125\n'
)
STYLED = r"""[
  {
    "instruction":"1\/2 of caf\u00e9 \ud83d\ude42?\n\"\\",
    "id":7,
    "preference":1.0,
    "price":0.0000012345,
    "gone":null,
    "raw":{
      "logprobs":[
        {
          "m":-0.0
        },
        [

        ]
      ]
    }
  },
  {
    "extra":true
  }
]"""


def table(kind: type, *rows: dict) -> pl.DataFrame:
    """Rows with the columns of a kind, null where nothing is said."""
    texts = {name: "" for name, each in kind.columns.items() if each == pl.String}
    return pl.DataFrame([texts | row for row in rows], schema=kind.columns)


PAIRS = table(
    Preferences,
    {"instruction": "Add", "input": "1 2", "output_1": "3", "output_2": "4", "preference": 1.0,
     "raw_completion": "m", "price": 0.01, "seconds": 2.0, "annotator": "gpt4"},
    {"instruction": "Say hi", "output_1": "no", "output_2": "hi", "preference": 1.75},
    {"instruction": "Tie", "output_1": "x", "output_2": "x", "preference": 1.5, "price": 0.0},
    {"instruction": "Failed", "output_1": "x", "output_2": "y"},
)  # fmt: skip


def test_a_synthetic_conversation_goes_out_as_messages_of_user_and_assistant():
    first = {"instruction": "Hi", "asked": "Hi", "output": "Hello.", "history": "[]"}
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    second = {"instruction": "Hi ... Why?", "asked": "Why?", "input": "a b", "output": "So.",
              "history": json.dumps(talk)}  # fmt: skip
    sent = conversed(table(Synthetic, first, second))
    assert sent[0] == {"messages": talk}
    assert sent[1]["messages"] == [
        *talk, {"role": "user", "content": "Why?\n\na b"}, {"role": "assistant", "content": "So."},
    ]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_their_files_come_back_as_the_same_text(name):
    if not THEIRS.is_dir():
        pytest.skip("no shared/data beside the project and ALPACAFARM_SHARED not set")
    text = (THEIRS / name).read_text(encoding="utf-8")
    records = read_records(THEIRS / name)
    assert [list(each.items()) for each in records] == [list(r.items()) for r in json.loads(text)]
    assert written_records(records) == text


@pytest.mark.parametrize("name", FILES)
def test_their_files_go_through_the_store_unchanged(name, store, tmp_path, capsys):
    if not THEIRS.is_dir():
        pytest.skip("no shared/data beside the project and ALPACAFARM_SHARED not set")
    assert typed("import", THEIRS / name, "--as", FILES[name], "--json") == 0
    key = json.loads(capsys.readouterr().out)["key"]
    assert typed("export", key, "--as", "alpaca_eval", "--out", tmp_path / name) == 0
    assert (tmp_path / name).read_bytes() == (THEIRS / name).read_bytes()


def test_every_mark_of_their_style_is_kept(tmp_path):
    (tmp_path / "styled.json").write_text(STYLED)
    records = read_records(tmp_path / "styled.json")
    assert list(records[1]) == ["extra"]
    assert written_records(records) == STYLED


def test_numbers_have_ten_decimals_and_no_exponent():
    record = {"a": 0.1 + 0.2, "b": 1e17, "c": 1e-11, "d": float("nan"), "e": "\x7f"}
    lines = written_records([record]).splitlines()[2:-2]
    assert [line.split(":")[1].rstrip(",") for line in lines] == [
        "0.3", "100000000000000000.0", "0.0", "null", '"\x7f"',
    ]  # fmt: skip


@pytest.mark.parametrize("text", [BOARD, WEIGHTS], ids=["leaderboard", "weights"])
def test_their_tables_come_back_as_the_same_text(text, tmp_path):
    (tmp_path / "table.csv").write_text(text)
    assert written_table(read_records(tmp_path / "table.csv")) == text


def test_records_are_read_from_lines_and_parquet_too(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"b": 2}\n')
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a.parquet")
    assert read_records(tmp_path / "a.jsonl") == [{"a": 1}, {"b": 2}]
    assert read_records(tmp_path / "a.parquet") == [{"a": 1}]


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "a.json").write_text('[{"a": 1},\n{"a" 2}]')
    with pytest.raises(BadInput, match=r"a\.json: broken JSON at line 2"):
        read_records(tmp_path / "a.json")


def test_candidates_are_model_outputs_with_the_input_merged():
    rows = table(
        Candidates,
        {"instruction": "Add", "input": "1 2", "output": "3", "generator": "g", "dataset": "d"},
    )
    (record,) = model_outputs(rows)
    assert record == {"instruction": "Add\n\n1 2", "dataset": "d", "output": "3", "generator": "g"}


def test_two_answers_of_one_generator_are_no_model_outputs():
    row = {"instruction": "Add", "output": "3", "generator": "g"}
    assert len(model_outputs(table(Candidates, row, row | {"generator": "h"}))) == 2
    with pytest.raises(BadInput, match="1 of 2 answers are further ones"):
        model_outputs(table(Candidates, row, row | {"output": "4"}))


def test_preferences_are_annotations_and_read_back(tmp_path):
    first, *_, failed = annotations(PAIRS)
    assert first["instruction"] == "Add\n\n1 2"
    assert (first["preference_price_per_example"], first["preference_raw_completion"]) == (
        0.01,
        "m",
    )
    assert failed["preference"] is failed["preference_price_per_example"] is None
    (tmp_path / "annotations.json").write_text(written_records(annotations(PAIRS)))
    again = read(tmp_path / "annotations.json", "preferences")
    assert again["preference"].to_list() == [1, 1.75, 1.5, None]
    assert again["price"].to_list() == [0.01, None, None, None]


def test_a_leaderboard_is_theirs_without_a_name_for_the_first_column(tmp_path):
    rows = table(Leaderboard, {"model": "dpo", "win_rate": 100 / 3, "n_wins": 1, "n_total": 3})
    (tmp_path / "board.csv").write_text(text := written_table(published_board(rows)))
    assert text.startswith(",win_rate,standard_error,") and "\ndpo,33.333333333333336,,1," in text
    assert read(tmp_path / "board.csv", "leaderboard")["win_rate"].to_list() == [100 / 3]


def test_the_better_output_is_chosen_and_ties_are_left_out():
    first, second = chosen_and_rejected(PAIRS)
    assert first == {
        "prompt": [{"role": "user", "content": "Add\n\n1 2"}],
        "chosen": [{"role": "assistant", "content": "3"}],
        "rejected": [{"role": "assistant", "content": "4"}],
    }
    assert second["chosen"][0]["content"] == "hi"


def test_chosen_and_rejected_read_back_as_the_same_pairs(tmp_path):
    (tmp_path / "a.jsonl").write_text(writer_of("preferences", "trl")(PAIRS))
    again = read(tmp_path / "a.jsonl", "preferences")
    held = again.select("instruction", "output_1", "output_2", "preference").rows()
    assert held == [("Add\n\n1 2", "3", "4", 1), ("Say hi", "hi", "no", 1)]


def test_a_demonstration_is_a_prompt_with_its_completion():
    rows = table(Demonstrations, {"instruction": "Say hi", "output": "hi"})
    assert prompted(rows) == [
        {
            "prompt": [{"role": "user", "content": "Say hi"}],
            "completion": [{"role": "assistant", "content": "hi"}],
        }
    ]


def test_alpaca_farms_json_keeps_the_input_apart_and_writes_a_tie_as_0(tmp_path):
    records = farm_records(PAIRS)
    assert records[0]["input"] == "1 2" and "output" not in records[0]
    assert [repr(each["preference"]) for each in records] == ["1", "1.75", "0", "None"]
    (tmp_path / "pairs.json").write_text(writer_of("preferences", "alpaca_farm")(PAIRS))
    again = read(tmp_path / "pairs.json", "preferences")
    assert again["preference"].to_list() == PAIRS["preference"].to_list()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_shown_and_every_table_can_be_lines(kind, store, tmp_path, capsys):
    artifact = KINDS[kind](key="ab" * 8)
    is_table = isinstance(artifact, Table)
    (folder := tmp_path / "draft").mkdir()
    rows = table(artifact, {}) if is_table else pl.DataFrame()
    store.write(artifact, Made(rows if is_table else folder), Recipe.of("made", 1, {}), 0.0)
    code = typed("export", "abab", "--as", "jsonl", "--out", tmp_path / "rows.jsonl")
    assert code == (0 if is_table else 2)
    if is_table:
        (line,) = (tmp_path / "rows.jsonl").read_text().splitlines()
        assert json.loads(line) == rows.to_dicts()[0]
    for command in ("show", "lineage"):
        capsys.readouterr()
        assert typed(command, "abab") == typed(command, "abab", "--json") == 0
        assert kind in capsys.readouterr().out


def exported(store, tmp_path, form: str, name: str) -> Path:
    """Twenty prompts of the built-in world, exported."""
    made = instructions(Setup().source, "eval", 20)
    assert typed("export", made.key, "--as", form, "--out", tmp_path / name) == 0
    return tmp_path / name


def test_lines_hold_the_rows_as_they_are(store, tmp_path):
    out = exported(store, tmp_path, "jsonl", "rows.jsonl")
    rows = store.read(instructions(Setup().source, "eval", 20))
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows.to_dicts()


def test_a_dataset_folder_has_shards_and_a_card(store, tmp_path, monkeypatch):
    monkeypatch.setattr("alpacafarm_core.exports.SHARD", 8)
    out = exported(store, tmp_path, "hf", "hub")
    names = sorted(file.name for file in (out / "data").iterdir())
    assert names == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    card = (out / "README.md").read_text()
    assert card.startswith("---\nconfigs:\n") and "| `instruction` | String |" in card
    assert pl.read_parquet(out / "data").height == 20


def test_what_does_not_fit_is_refused_and_nothing_is_written(store, tmp_path, capsys):
    key = instructions(Setup().source, "eval", 20).key
    (tmp_path / "there").mkdir()
    for form, name, said in (
        ("trl", "a", "instructions cannot be written as trl, which takes preferences"),
        ("bundle", "a", "is no leaderboard"),
        ("xml", "a", "unknown format 'xml'; use alpaca_eval"),
        ("hf", "there", "is there already"),
        ("jsonl", "there", "is a folder"),
        ("jsonl", "nowhere/a", "choose another --out"),
    ):
        assert typed("export", key, "--as", form, "--out", tmp_path / name) == 2
        assert said in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["store", "there"]


def test_a_file_that_cannot_be_written_whole_stays_what_it_was(
    store, tmp_path, monkeypatch, capsys
):
    out = exported(store, tmp_path, "jsonl", "rows.jsonl")
    before = out.read_bytes()

    def half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    key = instructions(Setup().source, "eval", 20).key
    assert typed("export", key, "--as", "jsonl", "--out", out) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["rows.jsonl", "store"]


def test_a_foreign_shape_that_was_taken_in_is_converted(store, tmp_path, capsys):
    row = {"prompt": "Say hi", "chosen": "hi", "rejected": "no"}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    typed("import", tmp_path / "a.json", "--as", "preferences", "--json")
    key = json.loads(capsys.readouterr().out)["key"]
    assert typed("export", key, "--as", "alpaca_eval", "--out", tmp_path / "out.json") == 0
    (record,) = read_records(tmp_path / "out.json")
    assert (record["output_1"], record["preference"]) == ("hi", 1.0)


def test_weights_are_no_table(store, tmp_path, capsys):
    (tmp_path / "draft").mkdir()
    policy = Policy(key="0" * 16)
    store.write(policy, Made(tmp_path / "draft"), Recipe.of("train", 1, {}), 0.0)
    for form, said in (("jsonl", "policy cannot be written as jsonl"), ("hf", "is not a table")):
        assert typed("export", "0000", "--as", form, "--out", tmp_path / "a") == 2
        assert said in capsys.readouterr().err
