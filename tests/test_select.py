"""Selection by rule, and pairs of known order."""

import polars as pl
import pytest

from alpacafarm_core.artifacts import Candidates, Demonstrations, Preferences
from alpacafarm_core.errors import BadInput
from alpacafarm_core.select import prefer, select
from alpacafarm_core.settings import Rule


def table(kind, **columns):
    """Rows of a kind with everything not given left empty."""
    height = max(len(held) for held in columns.values())
    rows = {n: columns.get(n, [None] * height) for n in kind.columns}
    return pl.DataFrame(rows, schema=kind.columns, strict=False)


PAIRS = table(
    Preferences,
    instruction=["a", "b", "c", "d"],
    input=[""] * 4,
    output_1=["a1", "b1", "c1", "d1"],
    output_2=["a2", "b2", "c2", "d2"],
    output_1_ids=[[1]] * 4,
    output_2_ids=[[2]] * 4,
    preference=[1.0, 2.0, 1.5, None],
)


def test_chosen_keeps_the_preferred_answer_with_its_tokens_and_drops_ties():
    kept = select(PAIRS, Rule(keep="chosen"))
    assert kept["output"].to_list() == ["a1", "b2"]
    assert kept["output_ids"].to_list() == [[1], [2]]
    assert kept.columns == list(Demonstrations.columns)


def test_best_keeps_the_top_score_and_the_earlier_of_equals():
    scored = table(
        Candidates,
        instruction=["a", "a", "b", "b"],
        input=[""] * 4,
        output=["x", "y", "z", "w"],
    ).with_columns(score=pl.Series([0.1, 0.9, 0.5, 0.5]))
    kept = select(scored, Rule(keep="best")).sort("instruction")
    assert kept["output"].to_list() == ["y", "z"]


def test_nothing_left_is_refused():
    with pytest.raises(BadInput, match="keeps none of 1 rows"):
        select(PAIRS.slice(2, 1), Rule(keep="chosen"))


def test_prefer_puts_the_demonstration_first_and_keeps_tokens_of_one_tokenizer():
    gold = table(
        Demonstrations,
        instruction=["a", "z"],
        input=["", ""],
        output=["gold", "none"],
        output_ids=[[7], []],
        tokenizer=["t", ""],
    )
    own = table(
        Candidates,
        instruction=["a", "a"],
        input=["", ""],
        output=["x", "y"],
        output_ids=[[1], [2]],
        tokenizer=["t", "other"],
    )
    pairs = prefer(gold, own)
    assert pairs.select("output_1", "output_2").rows() == [("gold", "x"), ("gold", "y")]
    assert pairs["output_1_ids"].to_list() == [[7], []]
    assert pairs["output_2_ids"].to_list() == [[1], []]
    with pytest.raises(BadInput, match="no prompt is in both"):
        prefer(gold.slice(1, 1), own)
