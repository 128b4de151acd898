"""Mixtures: counts by source, and words in a row that are known from the evaluation."""

import polars as pl
import pytest
from pydantic import ValidationError

from alpacafarm_core.artifacts import Instructions
from alpacafarm_core.errors import BadInput
from alpacafarm_core.mixture import PAPERS, Mixture, grams, mixed
from tests.tiny import frame

THIRTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen"


def prompts(**by_source: list[str]) -> pl.DataFrame:
    return frame(
        Instructions,
        [
            {"instruction": text, "input": "", "dataset": source}
            for source, texts in by_source.items()
            for text in texts
        ],
    )


MANY = prompts(a=[f"Question {n} of a." for n in range(20)], b=["Only one here."])
NOBODYS = prompts()


def asked(rows: pl.DataFrame, evaluated: pl.DataFrame = NOBODYS, **settings) -> list[str]:
    return mixed(rows, evaluated, Mixture(**settings)).rows["instruction"].to_list()


def test_each_source_gives_as_many_rows_as_its_count():
    found = mixed(MANY, NOBODYS, Mixture(counts={"a": 5, "b": 1})).rows
    assert sorted(found["dataset"].to_list()) == ["a"] * 5 + ["b"]
    assert found.columns == list(Instructions.columns)


def test_a_source_that_is_not_asked_for_is_left_out():
    assert asked(MANY, counts={"b": 1}) == ["Only one here."]


def test_a_larger_count_keeps_every_row_of_a_smaller_one():
    smaller, larger = (set(asked(MANY, counts={"a": count})) for count in (5, 6))
    assert smaller < larger and len(larger) == 6


def test_a_row_is_drawn_or_not_whatever_stands_beside_it():
    without = MANY.filter(pl.col("instruction") != asked(MANY, counts={"a": 5})[0])
    kept = set(asked(MANY, counts={"a": 5})) & set(without["instruction"])
    assert kept <= set(asked(without, counts={"a": 5}))


def test_another_seed_draws_others():
    assert asked(MANY, counts={"a": 5}) != asked(MANY, counts={"a": 5}, seed=1)


def test_a_source_with_too_few_rows_gives_all_and_that_is_noted():
    found = mixed(MANY, NOBODYS, Mixture(counts={"a": 5, "b": 3}))
    assert found.short == {"b": 1} and found.rows.height == 6


def test_rows_that_share_thirteen_words_in_a_row_are_removed_and_noted():
    rows = prompts(a=[f"So: {THIRTEEN}!", f"{THIRTEEN.removeprefix('one ')} and more.", "Else."])
    known = prompts(e=[f"{THIRTEEN.upper()}, fourteen."])
    found = mixed(rows, known, Mixture(counts={"a": 3}))
    assert found.shared == [0]
    assert found.rows["instruction"].to_list() == rows["instruction"].to_list()[1:]


def test_a_prompt_shorter_than_that_is_known_as_a_whole_only():
    rows = prompts(a=["Name a fruit!", "Name a fruit that is red."])
    assert asked(rows, prompts(e=["name a fruit"]), counts={"a": 2}) == [
        "Name a fruit that is red."
    ]


def test_runs_go_over_from_the_instruction_into_the_input():
    rows = prompts(a=["Sum up."]).with_columns(input=pl.lit(THIRTEEN))
    with pytest.raises(BadInput, match="no instruction of the source 'a' may be used"):
        asked(rows, prompts(e=[f"Sum up.\n\n{THIRTEEN}"]), counts={"a": 1})


def test_a_text_without_words_gives_nothing_away():
    assert list(grams("?!", 13)) == []


def test_copies_count_once():
    assert asked(prompts(a=["x", "x", "y"]), counts={"a": 3}) == ["x", "y"]


def test_a_source_without_rows_is_refused_with_those_there_are():
    with pytest.raises(BadInput, match="source 'c' may be used; the datasets with rows are a, b"):
        asked(MANY, counts={"c": 1})


def test_a_count_below_one_is_refused():
    with pytest.raises(ValidationError, match="'a' is asked for no row; leave it out"):
        Mixture(counts={"a": 0})


def test_the_papers_mixture_has_63967_rows():
    assert sum(PAPERS.values()) == 63_967
    assert Mixture().counts == PAPERS
