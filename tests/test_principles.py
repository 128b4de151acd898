"""Principles: shares by source as the README and the code have them, and texts by a hash."""

from collections import Counter

import pytest
from pydantic import ValidationError

from alpacafarm_core.principles import CODE, README, TEXTS, Principles, principle_for

SOURCES = ("evol_instruct", "false_qa", "truthful_qa", "flan", "sharegpt", "ultrachat")


def share(source: str, responder: str = "m", rows: int = 4000, **settings) -> dict[str, float]:
    """Percent of each principle over many prompts."""
    principles = Principles(**settings)
    prompts = ((f"Question {row}.", "") for row in range(rows))
    kinds = [principle_for(principles, source, each, responder).name for each in prompts]
    return {name: 100 * times / rows for name, times in Counter(kinds).items()}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("table", "known"), [("readme", README), ("code", CODE)])
def test_principles_come_in_the_shares_of_the_table(source, table, known):
    assert share(source, table=table) == pytest.approx(dict(known[source]), abs=2.5)


@pytest.mark.parametrize("table", [README, CODE])
def test_shares_are_percent(table):
    assert {sum(shares.values()) for shares in table.values()} == {100}
    assert set(table) == set(SOURCES)


def test_other_sources_have_shares_of_their_own():
    assert share("koala") == pytest.approx(dict(README["sharegpt"]), abs=2.5)
    assert share("koala", others={"honesty": 3.0}) == {"honesty": 100}


def test_every_text_of_a_principle_is_used():
    prompts = ((f"Question {row}.", "") for row in range(400))
    texts = {principle_for(Principles(), "evol_instruct", each, "m").text for each in prompts}
    assert texts == set(TEXTS["helpfulness"]) and len(texts) == 11


def test_two_responders_to_one_prompt_are_told_different_things():
    prompt = ("Name a fruit.", "")
    told = {principle_for(Principles(), "flan", prompt, name) for name in "abcdefgh"}
    assert len(told) > 1


def test_the_same_prompt_and_responder_are_told_the_same():
    once, again = (principle_for(Principles(), "flan", ("x", ""), "m") for _ in range(2))
    assert once == again


def test_without_a_table_nothing_is_told():
    assert principle_for(Principles(table="none"), "flan", ("x", ""), "m") == ("", "")


def test_an_unknown_principle_is_refused_with_those_there_are():
    with pytest.raises(ValidationError, match="no principle 'wit'; use helpfulness, honesty"):
        Principles(others={"wit": 1.0})


@pytest.mark.parametrize("shares", [{"honesty": -1.0, "helpfulness": 2.0}, {"honesty": 0.0}])
def test_shares_that_leave_nothing_to_draw_are_refused(shares):
    with pytest.raises(ValidationError, match="at least 0, and one of them is more"):
        Principles(others=shares)
