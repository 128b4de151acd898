"""Pairs out of plain rows, and labels for them in one call."""

import logging
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core.annotating import annotate_head2head, annotate_pairs, annotate_samples
from alpacafarm_core.artifacts import Candidates, Preferences
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.pairing import PAIR, head_to_head, pairs_of_rows, pairs_of_samples, samples_of
from tests.test_annotate import Fake, panel_of

TEXTS = ["instruction", "output_1", "output_2"]
SAMPLES = [
    {"instruction": "b", "output": ["1", "2", "3", "2"]},
    {"instruction": "a", "input": "x", "output": ["4", "5"]},
]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def answers(*texts: str, **more: object) -> list[dict]:
    """One answer to each of the prompts a, b, c, ..."""
    return [
        {"instruction": chr(ord("a") + n), "output": text, **more} for n, text in enumerate(texts)
    ]


def test_plain_rows_get_the_columns_of_pairs():
    pairs = pairs_of_rows([{"instruction": "i", "output_1": "x", "output_2": "y", "own": 7}])
    assert pairs.schema == pl.Schema(PAIR)
    assert pairs.row(0, named=True)["input"] == ""
    assert pairs["output_1_ids"].to_list() == [[]]


def test_what_plain_rows_lack_is_named():
    with pytest.raises(BadInput, match="need a value of 'output_2' each; they have instruction"):
        pairs_of_rows([{"instruction": "i", "output_1": "x"}])
    with pytest.raises(BadInput, match="'output'"):
        samples_of([{"instruction": "i", "output": None}])


def test_samples_are_one_text_a_row_or_a_list_of_texts():
    listed = samples_of(SAMPLES)
    assert listed.schema == pl.Schema(Candidates.columns)
    assert listed.select("instruction", "output").rows() == [
        ("b", "1"), ("b", "2"), ("b", "3"), ("b", "2"), ("a", "4"), ("a", "5"),
    ]  # fmt: skip
    flat = [{"instruction": "b", "output": "1"}, {"instruction": "b", "output": "2"}]
    assert samples_of(flat)["output"].to_list() == ["1", "2"]


def test_no_sample_is_paired_with_itself_and_each_is_second_once():
    pairs = pairs_of_samples(SAMPLES, seed=0, unique=False)
    assert pairs.filter(pl.col("output_1") == pl.col("output_2")).is_empty()
    assert pairs["output_1"].to_list() == ["1", "2", "3", "4", "5"]
    assert sorted(pairs["output_2"]) == ["1", "2", "3", "4", "5"]
    assert pairs["input"].to_list() == ["", "", "", "x", "x"]


def test_one_pair_a_prompt_is_the_first():
    every, one = (pairs_of_samples(SAMPLES, 3, unique) for unique in (False, True))
    assert one.rows() == [every.row(0), every.row(3)]


def test_a_prompt_keeps_its_pairs_whatever_stands_beside_it():
    alone = pairs_of_samples(SAMPLES[:1], seed=1, unique=False)
    both = pairs_of_samples(SAMPLES[::-1], seed=1, unique=False)
    assert both.filter(pl.col("instruction") == "b").equals(alone)


def test_all_derangements_of_three_come_about_equally_often():
    row = [{"instruction": "i", "output": ["1", "2", "3"]}]
    drawn = Counter(
        tuple(pairs_of_samples(row, seed, unique=False)["output_2"]) for seed in range(400)
    )
    assert set(drawn) == {("2", "3", "1"), ("3", "1", "2")}
    assert abs(drawn["2", "3", "1"] - 200) < 50  # five standard deviations


def test_a_lone_answer_meets_itself():
    pairs = pairs_of_samples([{"instruction": "i", "output": ["x", "x"]}], seed=0)
    assert pairs.select(TEXTS).rows() == [("i", "x", "x")]


def test_head_to_head_joins_on_instruction_and_input():
    first = [*answers("1", "2", "3"), {"instruction": "a", "input": "x", "output": "4"}]
    second = pl.DataFrame(answers("9", "8", generator="gpt")[::-1] + answers("7"))
    pairs = head_to_head(first, second)
    assert pairs.schema == pl.Schema(PAIR)
    assert pairs.select(TEXTS).rows() == [("a", "1", "9"), ("b", "2", "8")]
    assert pairs["generator_2"].to_list() == ["gpt", "gpt"]


def test_ids_of_another_tokenizer_are_left_out():
    first = answers("1", output_ids=[1], tokenizer="t")
    alike, other = (answers("2", output_ids=[2], tokenizer=name) for name in "tu")
    assert head_to_head(first, alike)["output_2_ids"].to_list() == [[2]]
    assert head_to_head(first, other)["output_2_ids"].to_list() == [[]]


def test_models_without_a_common_prompt_are_refused():
    with pytest.raises(BadInput, match="no prompt"):
        head_to_head(answers("1"), answers("1", input="x"))


def test_pairs_are_labelled_in_their_order(ledger):
    rows = [
        {"instruction": "i", "output_1": "x", "output_2": "xx"},
        {"instruction": "j", "output_1": "xx", "output_2": "x"},
    ]
    judged = annotate_pairs(rows, panel_of(), Fake(), ledger)
    assert judged.preferences.schema == pl.Schema(Preferences.columns)
    assert judged.preferences["preference"].to_list() == [2, 1]
    assert judged.spending.calls == 2


def test_samples_are_labelled_with_the_seed_of_the_panel(ledger):
    row = [{"instruction": "i", "output": ["x", "xx", "xxx", "xxxx"]}]
    judged = annotate_samples(row, panel_of(seed=5), Fake(), ledger, unique=False).preferences
    assert judged["output_2"].equals(pairs_of_samples(row, 5, unique=False)["output_2"])
    right = [2 if len(b) > len(a) else 1 for a, b in judged.select(TEXTS[1:]).rows()]
    assert judged["preference"].to_list() == right
    assert annotate_samples(row, panel_of(), Fake(), ledger).preferences.height == 1


def test_two_models_are_labelled_and_what_is_left_out_is_said(ledger, caplog, monkeypatch):
    log = logging.getLogger("alpacafarm")
    monkeypatch.setattr(log, "handlers", [caplog.handler])
    monkeypatch.setattr(log, "propagate", False)
    judged = annotate_head2head(answers("x", "xx"), answers("xx"), panel_of(), Fake(), ledger)
    assert judged.preferences["preference"].to_list() == [2]
    assert caplog.messages == ["1 answers of the first table are in no pair"]


@pytest.mark.parametrize(
    "odd", [{"output_1": 3}, {"output_1": {"text": "a"}}, {"output_1_ids": "seven"}]
)
def test_rows_of_another_kind_are_refused_by_column(odd: dict[str, object]) -> None:
    row = {"instruction": "p", "output_1": "a", "output_2": "b"} | odd
    with pytest.raises(BadInput, match=r"rows need text in 'output_1'|do not fit"):
        pairs_of_rows([row])
