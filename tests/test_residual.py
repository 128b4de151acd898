"""Scores without what length explains."""

import polars as pl
import pytest

import tasks
from alpacafarm_core.artifacts import Scores
from alpacafarm_core.errors import BadInput
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.residual import line, residual
from alpacafarm_core.store import Made
from tests.paper_farm import numbered
from tests.tiny import frame


def scores(*rows, judge="rm"):
    """Answers of a length with a score each."""
    return frame(
        Scores,
        [
            {"instruction": f"q{at}", "input": "", "output": "x" * length, "score": score}
            | {"judge": judge}
            for at, (length, score) in enumerate(rows)
        ],
    )


def test_the_line_is_that_of_least_squares():
    slope, usual = line(scores((1, 1.0), (2, 3.0), (3, 2.0)))
    assert (slope, usual) == pytest.approx((0.5, 2.0))


def test_a_longer_answer_loses_what_its_length_is_worth():
    seen = scores((1, 2.0), (3, 6.0))
    found = residual(scores((2, 5.0), (6, 5.0), (0, 5.0)), seen)
    assert found["score"].to_list() == pytest.approx([5.0, -3.0, 9.0])
    assert set(found["judge"]) == {"rm less length"}


def test_what_is_left_of_the_line_s_own_scores_has_their_mean_and_no_slope():
    seen = scores((1, 0.5), (4, 2.0), (7, 1.0), (9, 4.0))
    left = residual(seen, seen)
    assert left["score"].mean() == pytest.approx(seen["score"].mean())
    assert line(left)[0] == pytest.approx(0.0, abs=1e-12)


def test_scores_of_two_judges_are_not_mixed():
    with pytest.raises(BadInput, match="another judge: rm and truth; score both tables by one"):
        residual(scores((1, 2.0), judge="truth"), scores((1, 2.0), (3, 6.0)))


@pytest.mark.parametrize("rows", [[(2, 1.0), (2, 3.0)], [(2, 1.0)]])
def test_answers_of_one_length_have_no_line(rows):
    with pytest.raises(BadInput, match="equally long; draw more"):
        line(scores(*rows))


def test_nothing_else_of_the_rows_changes():
    seen = scores((1, 2.0), (3, 6.0))
    found = residual(seen, seen)
    assert found.drop("score", "judge").equals(seen.drop("score", "judge"))
    assert found.schema == pl.Schema(Scores.columns)


def test_the_stage_names_both_tables_it_is_made_of(store):
    recipe = Recipe.of("score", 1, {"candidates": "typed"})
    one, other = (Scores(key=numbered(at)) for at in (1, 2))
    for table, rows in ((one, [(2, 5.0)]), (other, [(1, 2.0), (3, 6.0)])):
        store.write(table, Made(scores(*rows)), recipe, 0.0)
    made = tasks.residual(one, other)
    assert store.read(made)["score"].to_list() == [5.0]
    assert store.manifest(made).recipe.inputs == {"scores": [one.folder], "seen": [other.folder]}
