"""`alpacafarm annotate`: a file of pairs in, the same file with labels out."""

import json
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core import endpoints, formats
from alpacafarm_core.llm import nobody
from alpacafarm_core.world.instructions import instructions
from alpacafarm_core.world.writers import write
from tests.test_cli import complaint, typed

COUNT = 60


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Sixty prompts of the world with two answers each, and a column of the user's own."""
    prompts = pl.DataFrame(instructions("preference", COUNT, 0)).select("instruction", "input")
    answers = [
        [write(asked, given, 0.6, 2 * n + side) for n, (asked, given) in enumerate(prompts.rows())]
        for side in (0, 1)
    ]
    rows = prompts.with_columns(
        output_1=pl.Series(answers[0]), output_2=pl.Series(answers[1]), mine=pl.int_range(COUNT)
    )
    rows.write_ndjson(tmp_path / "pairs.jsonl")
    return tmp_path / "pairs.jsonl"


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_the_files_own_columns_come_back_with_labels_beside_them(store, pairs, tmp_path, capsys):
    out = tmp_path / "labels.parquet"
    assert typed("annotate", pairs, "--panel", "world", "--out", out, "--json") == 0
    first, rows = said(capsys), pl.read_parquet(out)
    assert rows.columns[:5] == ["instruction", "input", "output_1", "output_2", "mine"]
    assert rows["mine"].to_list() == list(range(COUNT)) and rows["preference"].null_count() == 0
    assert (first["rows"], first["coverage"], first["from_ledger"]) == (COUNT, 1.0, 0)
    assert first["cost_usd"] == pytest.approx(rows["price"].sum())
    typed("annotate", pairs, "--panel", "world", "--out", tmp_path / "again.csv", "--json")
    again = said(capsys)
    assert (again["calls"], again["cost_usd"], again["from_ledger"]) == (0, 0, first["bought"])


def test_the_plan_asks_nobody_writes_nothing_and_holds(store, pairs, tmp_path, capsys):
    words = [pairs, "--panel", "world", "--store", tmp_path / "there"]
    assert typed("plan", "annotate", *words, "--json") == 0
    plan = said(capsys)
    assert not (tmp_path / "there").exists()
    typed("annotate", *words, "--out", tmp_path / "labels.jsonl", "--json")
    spent = said(capsys)
    assert plan["usd_low"] <= spent["cost_usd"] <= plan["usd_high"]
    assert plan["calls"] == spent["calls"]
    typed("plan", "annotate", *words, "--json")
    assert said(capsys)["usd_high"] == 0


def test_a_budget_stops_before_it_is_passed_and_a_rerun_buys_the_rest(
    store, pairs, tmp_path, capsys
):
    out, words = tmp_path / "labels.json", ["annotate", pairs, "--panel", "world"]
    typed(*words, "--out", tmp_path / "whole.json", "--store", tmp_path / "other", "--json")
    whole = said(capsys)
    words += ["--store", store.root]
    assert typed(*words, "--out", out, "--budget", 0.2, "--json") == 3
    assert "budget of $0.20" in complaint(capsys) and not out.exists()
    assert typed(*words, "--out", out, "--budget", 10, "--json") == 0
    rest = said(capsys)
    assert 0 < rest["from_ledger"] < whole["bought"]
    assert rest["bought"] + rest["from_ledger"] == whole["bought"]
    assert out.read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_both_orders_are_a_row_each_and_agree_for_a_judge_without_a_side(store, pairs, tmp_path):
    out = tmp_path / "labels.parquet"
    typed("annotate", pairs, "--panel", "world_clean", "--both-orders", "--out", out)
    rows = pl.read_parquet(out)
    assert rows.height == 2 * COUNT and rows["is_switched"].sum() > 40
    given, turned = rows[:COUNT], rows[COUNT:]
    decided = given["status"] == "ok"
    assert (given["preference"] == turned["preference"]).filter(decided).mean() > 0.9


def test_offline_takes_from_the_ledger_alone(store, pairs, tmp_path, capsys):
    words = ["annotate", pairs, "--panel", "world", "--json"]
    typed(*words, "--out", tmp_path / "bought.parquet", "--flip", 0.25)
    bought = said(capsys)
    typed(*words, "--out", tmp_path / "clean.parquet", "--offline")
    offline, rows = said(capsys), pl.read_parquet(tmp_path / "clean.parquet")
    assert offline["calls"] == 0 and offline["from_ledger"] == bought["bought"]
    assert 0.2 < offline["coverage"] < 0.8
    assert set(rows.filter(pl.col("preference").is_null())["status"]) == {"failed"}


def test_rows_that_failed_are_written_as_such_and_the_command_says_so(
    store, pairs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(endpoints, "ask_for", lambda *_: nobody)
    out = tmp_path / "labels.parquet"
    assert typed("annotate", pairs, "--panel", "world", "--out", out) == 1
    assert "rows failed (not in the ledger" in complaint(capsys)
    rows = pl.read_parquet(out)
    assert rows.filter(pl.col("status") == "failed")["preference"].null_count() > 50
    assert set(rows["status"]) <= {"failed", "tie"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--panel", "nobody", "--out", "x.json"], "no panel nobody"),
        (["--panel", "p_eval", "--out", "x.json"], "set OPENAI_API_KEY"),
        (["--panel", "world", "--out", "x.txt"], "unknown ending"),
        (["--panel", "world", "--out", "/nowhere/x.json"], "cannot write into /nowhere"),
        (["--panel", "world", "--out", "."], "unknown ending"),
        (["--panel", "world", "--out", "folder.csv"], "folder.csv is a folder"),
        (["--panel", "world", "--out", "x.json", "--base-url", "ftp://a"], "endpoint"),
        (["--panel", "world", "--out", "x.json", "--flip", "2"], "flip"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_bought(
    words, named, store, pairs, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    assert typed("annotate", pairs, *words) == 2
    assert named in complaint(capsys)
    assert [path.name for path in tmp_path.glob("*.json")] == []


def test_a_sub_pool_labels_the_rows_that_are_its_own(store, pairs, tmp_path, capsys):
    (tmp_path / "few.yaml").write_text("based_on: world\nonly: [gpt4_1, gpt4_4]\n")
    whole, part = tmp_path / "whole.parquet", tmp_path / "part.parquet"
    typed("annotate", pairs, "--panel", "world", "--out", whole)
    capsys.readouterr()
    words = ["annotate", pairs, "--panel", tmp_path / "few.yaml", "--out", part, "--json"]
    assert typed(*words) == 0 and said(capsys)["calls"] == 0
    own = pl.read_parquet(whole).filter(pl.col("annotator").is_in(["gpt4_1", "gpt4_4"]))
    assert pl.read_parquet(part).equals(own) and 0 < own.height < COUNT


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "parquet"])
def test_columns_of_lists_and_objects_come_back_as_json_text(ending, store, tmp_path):
    rows = [
        {"instruction": 'Say "a",\nplease', "output_1": "a", "output_2": "b"}
        | {"tags": ["x", "y"], "meta": {"from": [n]}}
        for n in range(2)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    out = tmp_path / f"labels.{ending}"
    assert typed("annotate", tmp_path / "pairs.json", "--panel", "world", "--out", out) == 0
    back = formats.load(out)
    assert back["meta"].to_list() == ['{"from": [0]}', '{"from": [1]}']
    tags = back["tags"].to_list()[0]
    assert tags == '["x", "y"]' if ending == "csv" else list(tags) == ["x", "y"]


def test_labels_do_not_take_the_place_of_those_the_file_came_with(store, tmp_path, capsys):
    mine = {"instruction": "Say a", "output_1": "a", "output_2": "b", "preference": 1.0}
    (tmp_path / "gold.json").write_text(json.dumps([mine]))
    words = ["annotate", tmp_path / "gold.json", "--panel", "world", "--out"]
    assert typed(*words, tmp_path / "gold.json") == 2
    assert "would take the place of its own 'preference'" in complaint(capsys)
    assert json.loads((tmp_path / "gold.json").read_text()) == [mine]
    assert typed(*words, tmp_path / "labels.json") == 0


def test_the_plan_knows_which_rows_a_coin_decides(store, pairs, tmp_path, capsys):
    words = [pairs, "--panel", "world", "--flip", 0.25, "--json"]
    assert typed("plan", "annotate", *words) == 0
    plan = said(capsys)
    typed("annotate", *words, "--out", tmp_path / "labels.jsonl")
    assert said(capsys)["calls"] == plan["calls"]


def test_buying_stops_when_it_is_known_which_side_is_better(store, tmp_path, capsys):
    prompts = pl.DataFrame(instructions("preference", 400, 0)).select("instruction", "input")
    prompts = prompts.unique(maintain_order=True)
    poor, good = (
        [write(asked, given, skill, n) for n, (asked, given) in enumerate(prompts.rows())]
        for skill in (0.2, 0.95)
    )
    rows = prompts.with_columns(
        output_1=pl.Series(poor), output_2=pl.Series(good), mine=pl.int_range(prompts.height)
    )
    rows.write_parquet(tmp_path / "pairs.parquet")
    words = ["annotate", tmp_path / "pairs.parquet", "--panel", "world", "--flip", "0"]
    words += ["--until-decided", "0.05", "--out", tmp_path / "labels.parquet"]
    assert typed(*words, "--json") == 0
    found, labels = said(capsys), pl.read_parquet(tmp_path / "labels.parquet")
    assert found["verdict"] == "better" and found["interval"][0] > 0
    assert labels.height == found["asked"] < found["total"] == rows.height
    assert labels["mine"].is_sorted() and labels.drop(labels.columns[5:]).equals(
        rows[labels["mine"]]
    )
    assert typed(*words) == 0
    printed = capsys.readouterr().out
    assert "0 bought in 0 calls" in printed and "output_2 is better than output_1" in printed
    assert typed(*words, "--both-orders") == 2
    assert "leave out --both-orders" in complaint(capsys)


def test_a_column_that_is_wanted_itself_is_not_the_one_to_rename(store, tmp_path, capsys):
    rows = pl.DataFrame({"instruction": ["a"], "output_1": ["b"], "out_2": ["c"]})
    rows.write_csv(tmp_path / "pairs.csv")
    words = ["annotate", tmp_path / "pairs.csv", "--panel", "world", "--out", tmp_path / "l.csv"]
    assert typed(*words) == 2
    assert "no column 'output_2'" in (said := complaint(capsys)) and "rename 'out_2'" in said
