"""Binarisation: seven ways from rated answers to pairs, their counts, ties and gaps."""

from itertools import combinations

import polars as pl
import pytest
from pydantic import ValidationError

from alpacafarm_core.artifacts import Ranked
from alpacafarm_core.binarise import Binarisation, binarised, unpaired
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ratings import Ratings
from tests.tiny import frame

WAYS = ("h4", "argilla", "argilla-multi", "all-pairs", "triple", "curriculum", "best-worst")


def rated(*prompts: list[float | None], overall: list[int | None] | None = None) -> pl.DataFrame:
    """Answers A, B, C, D with their mean marks, prompt by prompt; prompts are called a, b, ..."""
    rows = [
        {
            **{"instruction": name, "input": "", "dataset": "flan" if name == "a" else "qa"},
            **{"output": letter, "output_ids": [ord(letter)], "tokenizer": "t", "generator": "g"},
            **{"sample_index": number, "fine": mark},
            "overall": (overall or [None] * 4)[number],
        }
        for name, marks in zip("abcdefghijklmnop", prompts, strict=False)
        for number, (letter, mark) in enumerate(zip("ABCD", marks, strict=True))
    ]
    return frame(Ratings, rows)


def pairs(rows: pl.DataFrame, name: str, **settings) -> list[tuple[str, str]]:
    made = binarised(rows, Binarisation(name=name, **settings))
    assert made.schema == Ranked.columns
    return made.select("output_1", "output_2").rows()


APART = rated([4.0, 2.0, 5.0, 3.0])  # best to worst: C, A, D, B
TIED = rated([3.0, 3.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("best-worst", [("C", "B")]),
        ("curriculum", [("C", "B"), ("C", "D"), ("C", "A")]),
        ("argilla-multi", [("C", "A"), ("C", "D"), ("C", "B")]),
        ("triple", [("A", "B")]),
    ],
)
def test_four_answers_apart(name, expected):
    assert pairs(APART, name) == expected


def test_all_pairs_of_distinct_marks_are_six_and_with_one_tie_five():
    assert len(pairs(APART, "all-pairs")) == 6
    assert len(pairs(TIED, "all-pairs")) == 5


@pytest.mark.parametrize(
    "marks", [[1.0, 1.0, 1.0, 2.0], [1.0, 1.0, 2.0, 2.0], [4.0, 3.0, 2.0, 1.0]]
)
def test_all_pairs_are_every_two_answers_of_different_marks(marks):
    apart = sum(a != b for a, b in combinations(marks, 2))
    assert len(pairs(rated(marks), "all-pairs")) == apart


def test_a_triple_has_the_best_as_gold():
    made = binarised(APART, Binarisation(name="triple"))
    assert made.select("gold", "gold_ids").rows() == [("C", [ord("C")])]


@pytest.mark.parametrize(("stage", "expected"), [(1, ("C", "B")), (2, ("C", "D")), (3, ("C", "A"))])
def test_a_curriculum_by_its_stages_goes_from_easy_to_hard(stage, expected):
    assert pairs(APART, "curriculum", stage=stage) == [expected]


@pytest.mark.parametrize("name", ["argilla", "h4"])
def test_the_best_is_over_one_of_the_others_each_as_often(name):
    rows = rated(*[[4.0, 2.0, 5.0, 3.0]] * 16)
    drawn = [
        rejected
        for seed in range(60)
        for chosen, rejected in pairs(rows, name, seed=seed, by="fine")
        if chosen == "C"
    ]
    assert len(drawn) == 960
    for letter in "ABD":
        assert drawn.count(letter) == pytest.approx(320, abs=60)


def test_a_prompt_keeps_its_rejected_answer_whatever_stands_beside_it():
    rows = rated(*[[4.0, 2.0, 5.0, 3.0]] * 8)
    made = binarised(rows, Binarisation())
    for name in "abcdefgh":
        alone = binarised(rows.filter(instruction=name), Binarisation())
        assert made.filter(instruction=name).equals(alone)


def test_the_order_of_the_rows_changes_no_pair():
    rows = rated(*[[4.0, 2.0, 4.0, 3.0]] * 8)
    for name in WAYS:
        made = binarised(rows, Binarisation(name=name, by="fine"))
        turned = binarised(rows.reverse(), Binarisation(name=name, by="fine"))
        assert set(made.select("instruction", "output_1", "output_2").rows()) == set(
            turned.select("instruction", "output_1", "output_2").rows()
        )


def test_argilla_drops_ties_and_h4_keeps_them():
    even = rated([3.0, 3.0, 3.0, 3.0], [4.0, 3.0, 3.0, 3.0])
    assert len(pairs(even, "argilla")) == 1
    made = binarised(even, Binarisation(name="h4", by="fine"))
    assert sorted(made["gap"].to_list()) == [0.0, 1.0]


def test_the_gap_is_the_difference_of_the_numbers_that_counted():
    rows = rated([4.5, 2.25, 5.0, 3.0], overall=[7, 9, 3, 1])
    assert binarised(rows, Binarisation(name="best-worst"))["gap"].to_list() == [2.75]
    by_overall = binarised(rows, Binarisation(name="best-worst", by="overall"))
    assert by_overall.select("output_1", "output_2", "gap").rows() == [("B", "D", 8.0)]


def test_h4_goes_by_the_overall_score_unless_told_otherwise():
    rows = rated([4.5, 2.25, 5.0, 3.0], overall=[7, 9, 3, 1])
    assert pairs(rows, "h4")[0][0] == "B"
    assert pairs(rows, "h4", by="fine")[0][0] == "C"


@pytest.mark.parametrize("name", WAYS)
def test_chosen_answers_never_have_less_than_rejected_ones(name):
    marks = [[(7 * p + 3 * a * a) % 5 + 1.0 for a in range(4)] for p in range(16)]
    made = binarised(rated(*marks), Binarisation(name=name, by="fine"))
    assert (made["gap"] >= 0).all() and (name == "h4" or (made["gap"] > 0).all())
    assert made["preference"].to_list() == [1.0] * made.height
    most = {"all-pairs": 6, "argilla-multi": 3, "curriculum": 3}.get(name, 1)
    assert made.group_by("instruction").len()["len"].max() <= most


def test_answers_without_a_mark_are_left_out():
    assert pairs(rated([None, 2.0, 5.0, None]), "all-pairs") == [("C", "B")]


def test_answers_that_are_one_text_count_as_one():
    rows = rated([4.0, 2.0, 5.0, 3.0]).with_columns(
        output=pl.when(pl.col("output") == "C").then(pl.lit("A")).otherwise("output")
    )
    assert len(pairs(rows, "all-pairs")) == 3


def test_a_source_can_be_left_out():
    rows = rated([4.0, 2.0, 5.0, 3.0], [4.0, 2.0, 5.0, 3.0])
    made = binarised(rows, Binarisation(without=("flan",)))
    assert made["instruction"].to_list() == ["b"]
    assert unpaired(rows, made) == 1


def test_answers_that_nobody_criticised_cannot_be_paired_by_overall_score():
    with pytest.raises(BadInput, match=r"none of 4 answers has a number 'overall'; .*by=fine"):
        binarised(APART, Binarisation(name="h4"))


@pytest.mark.parametrize("name", [name for name in WAYS if name != "h4"])
def test_even_marks_alone_are_refused(name):
    with pytest.raises(BadInput, match=r"none of 1 prompts|no prompt of 1"):
        binarised(rated([3.0] * 4), Binarisation(name=name))


def test_scores_are_no_ratings():
    with pytest.raises(BadInput, match="need ratings with a column 'fine'"):
        binarised(APART.drop("fine"), Binarisation())


def test_only_a_curriculum_has_stages():
    with pytest.raises(ValidationError, match="'argilla' has no stage 2"):
        Binarisation(stage=2)
