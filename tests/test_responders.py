"""Responders: who answers what under which principle, and everybody's answers as one table."""

from collections import Counter

import polars as pl
import pytest
from pydantic import ValidationError

from alpacafarm_core.artifacts import Candidates, Guided, Instructions, Pooled
from alpacafarm_core.errors import BadInput
from alpacafarm_core.principles import Principles
from alpacafarm_core.prompts import render
from alpacafarm_core.responders import Drawing, Seat, drawn, gathered
from tests.tiny import frame

POOL = ("ape", "bee", "cat", "dog", "eel", "fox")
DRAWING = Drawing(responders=POOL)


def prompts(number: int) -> pl.DataFrame:
    return frame(
        Instructions,
        [
            {"instruction": f"Question {row}.", "input": "", "dataset": "koala"}
            for row in range(number)
        ],
    )


def told(rows: pl.DataFrame, drawing: Drawing = DRAWING) -> dict[str, pl.DataFrame]:
    """What each responder is shown."""
    return {name: drawn(rows, drawing, Seat(name=name)) for name in drawing.responders}


def answers(name: str, asked: pl.DataFrame) -> pl.DataFrame:
    """Its answers: its name, and the number of the question."""
    return frame(
        Candidates,
        [
            {
                **{"instruction": instruction, "input": "", "dataset": "koala", "generator": "p"},
                **{"output": f"{name} on {instruction}", "sample_index": 0},
            }
            for instruction in asked["instruction"]
        ],
    )


def pooled(rows: pl.DataFrame, drawing: Drawing = DRAWING) -> pl.DataFrame:
    shown = told(rows, drawing)
    return gathered(rows, drawing, [answers(name, asked) for name, asked in shown.items()])


def test_four_different_responders_answer_each_prompt_evenly_over_the_pool():
    shown = told(prompts(600))
    by_prompt = Counter(text for asked in shown.values() for text in asked["instruction"])
    assert set(by_prompt.values()) == {4}
    assert {name: asked.height for name, asked in shown.items()} == pytest.approx(
        dict.fromkeys(POOL, 400), abs=50
    )


def test_a_prompt_keeps_its_responders_whatever_stands_beside_it():
    alone, among = told(prompts(60)[7:8]), told(prompts(60))
    for name in POOL:
        assert alone[name].equals(among[name].filter(instruction="Question 7."))


def test_a_new_responder_takes_only_the_places_it_wins():
    more = DRAWING.replace(responders=(*POOL, "gnu"))
    before, after = told(prompts(200)), told(prompts(200), more)
    lost = sum(before[name].height - after[name].height for name in POOL)
    assert lost == after["gnu"].height > 0
    for name in POOL:
        assert set(after[name]["prompt"]) <= set(before[name]["prompt"])


def test_another_seed_draws_others():
    assert (
        told(prompts(20))["ape"].height != told(prompts(20), DRAWING.replace(seed=3))["ape"].height
    )


def test_a_responder_sees_its_principle_before_the_prompt():
    shown = drawn(prompts(40), DRAWING, Seat(name="ape"))
    assert shown.columns == list(Guided.columns)
    for instruction, text in shown.select("instruction", "prompt").iter_rows():
        principle, _, prompt = text.partition("\n\n")
        assert principle and prompt == render(instruction, "")


def test_a_layout_says_where_principle_and_question_stand():
    seat = Seat(name="ape", layout="<s>{principle}</s>\nUSER: {question} ASSISTANT:")
    text = drawn(prompts(40), DRAWING, seat)["prompt"][0]
    assert text.startswith("<s>") and text.endswith("</s>\nUSER: Question 1. ASSISTANT:")


def test_a_layout_without_a_place_for_the_principle_is_told_nothing():
    seat = Seat(name="ape", layout="{question}\n\n### Response:")
    assert drawn(prompts(40), DRAWING, seat)["prompt"][0] == "Question 1.\n\n### Response:"


def test_without_principles_the_prompt_is_the_plain_one():
    plain = DRAWING.replace(principles=Principles(table="none"))
    assert drawn(prompts(40), plain, Seat(name="ape"))["prompt"][0] == render("Question 1.", "")


def test_braces_in_a_question_stay_as_they_are():
    rows = prompts(1).with_columns(instruction=pl.lit("What is {principle}?"))
    drawing = DRAWING.replace(responders=("ape",), each=1)
    text = drawn(rows, drawing, Seat(name="ape", layout="{question}"))["prompt"][0]
    assert text == "What is {principle}?"


def test_all_answers_become_one_table_prompt_by_prompt():
    rows = pooled(prompts(9))
    assert rows.schema == Pooled.columns
    assert rows["instruction"].to_list() == [f"Question {n}." for n in range(9) for _ in range(4)]
    assert rows["sample_index"].to_list() == [0, 1, 2, 3] * 9
    for instruction, output, name in rows.select("instruction", "output", "responder").iter_rows():
        assert output == f"{name} on {instruction}"


def test_the_first_answer_is_not_always_of_the_same_responder():
    firsts = pooled(prompts(40)).filter(sample_index=0)["responder"]
    assert firsts.n_unique() == len(POOL)


def test_each_answer_comes_with_the_principle_it_was_given_under():
    rows, shown = pooled(prompts(9)), told(prompts(9))
    for name, instruction, principle in rows.select("responder", "instruction", "principle").rows():
        (text,) = shown[name].filter(instruction=instruction)["prompt"]
        assert text.startswith(f"{principle}\n\n") and principle


def test_one_more_instruction_is_four_more_answers():
    fewer, more = pooled(prompts(9)), pooled(prompts(10))
    assert more[: fewer.height].equals(fewer) and more.height == fewer.height + 4


def test_a_prompt_twice_is_answered_once():
    assert pooled(pl.concat([prompts(3), prompts(3)])).equals(pooled(prompts(3)))


def test_answers_to_other_prompts_are_refused_with_the_responder():
    given = [answers(name, asked) for name, asked in told(prompts(9)).items()]
    with pytest.raises(BadInput, match=r"responder 'cat': .* answers, of which .* generate one"):
        gathered(prompts(9), DRAWING, [*given[:2], given[3], *given[3:]])


def test_fewer_tables_than_responders_are_refused():
    with pytest.raises(BadInput, match="1 tables of answers for a pool of 6"):
        gathered(prompts(1), DRAWING, [answers("ape", prompts(1))])


def test_a_responder_outside_the_pool_is_refused():
    with pytest.raises(BadInput, match="responder 'owl' is not in the pool of ape, bee"):
        drawn(prompts(1), DRAWING, Seat(name="owl"))


def test_a_name_twice_is_refused():
    with pytest.raises(ValidationError, match="responder 'ape' is in the pool twice"):
        Drawing(responders=("ape", "bee", "ape"), each=1)


def test_more_answers_than_responders_are_refused():
    with pytest.raises(ValidationError, match="the pool has 2; name more, or lower each to 2"):
        Drawing(responders=("ape", "bee"))


def test_a_layout_that_asks_nothing_is_refused():
    with pytest.raises(ValidationError, match=r"neither \{prompt\} nor \{question\}"):
        Seat(name="ape", layout="{principle}")
