"""The table of reward models: what it says of one prompt, and of the difference of two rows."""

import polars as pl
import pytest

from benchmarks.reward_effects import ACCURACY, BEST, LENGTH, MOVED, of_prompt, table


def pool(*rows):
    """Answers as score, true utility and characters."""
    return pl.DataFrame(rows, schema=["score", "gold", "chars"], orient="row")


def test_neighbours_of_which_one_is_better_are_ordered_or_not():
    answers = pool((2.0, 0.9, 1), (1.0, 0.1, 2), (0.0, 0.5, 3), (3.0, 0.2, 4), (5.0, 0.4, 5),
                   (4.0, 0.4, 6))  # fmt: skip
    found = of_prompt(answers)
    assert found[ACCURACY] == 50.0
    assert found[BEST] == 0.4
    assert found[LENGTH] == pytest.approx(12.5 / 17.5)


def test_a_tie_counts_half_and_equal_answers_tell_nothing():
    assert of_prompt(pool((1.0, 0.9, 1), (1.0, 0.1, 2)))[ACCURACY] == 50.0
    nothing = of_prompt(pool((1.0, 0.5, 3), (2.0, 0.5, 3)))
    assert nothing[ACCURACY] is None and nothing[LENGTH] is None


def figures(*accuracies):
    return {
        (f"q{at}", ""): {ACCURACY: each, MOVED: None, LENGTH: None, BEST: 0.5}
        for at, each in enumerate(accuracies)
    }


def test_a_row_is_held_against_another_on_the_same_prompts():
    found = {"order alone": [figures(50, 60, None)], "ODIN": [figures(54, 60, 99)]}
    plain, odin = table(found)
    assert plain[ACCURACY] == "55.000 ± 5.000"
    assert odin[ACCURACY] == "71.000 (+2.000 ± 2.000)"
    assert odin[MOVED] == "" and odin[BEST] == "0.500 (+0.000 ± 0.000)"
