"""Length control by hand and against its definition."""

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpacafarm_core.errors import BadInput
from alpacafarm_core.length_control import (
    Calibration,
    Judged,
    _drawn,
    fitted,
    interval,
    is_extreme,
    length_controlled,
)
from alpacafarm_core.logistic import Start, cross_validated, fit, fits, lasso, objective, rows_of


def one_term(*shares: float):
    """Rows with a single term, 1, so that a fit has an answer by hand."""
    return rows_of(np.ones((len(shares), 1)), np.array(shares), np.ones(len(shares)))


def some_rows(seed: int, n: int = 60):
    """Rows with three terms and graded shares."""
    rng = np.random.default_rng(seed)
    terms = np.stack([np.tanh(rng.normal(size=n)), rng.normal(size=n), np.ones(n)], axis=1)
    return rows_of(terms, rng.uniform(size=n), rng.uniform(0.1, 1, size=n))


def judged(n: int = 100, seed: int = 0) -> Judged:
    """A model that wins when it is longer."""
    rng = np.random.default_rng(seed)
    length = rng.normal(-100, 200, size=n)
    share = (rng.uniform(size=n) < 1 / (1 + np.exp(length / 150))).astype(float)
    return Judged(length, rng.normal(size=n), share, np.arange(n))


def test_one_parameter_by_hand():
    # 4 rows of mean 3/4: 4 sigmoid(theta) - 3 + 1/c = 0
    assert fit(one_term(1, 1, 1, 0), c=1e12)[0] == pytest.approx(log(3))
    assert fit(one_term(1, 1, 1, 0), c=2.0)[0] == pytest.approx(log(5 / 3))
    assert fit(one_term(0, 0, 0, 1), c=2.0)[0] == pytest.approx(-log(5 / 3))


def test_a_strong_penalty_leaves_exactly_nothing():
    assert fit(one_term(1, 1, 1, 0), c=1.0)[0] == 0
    assert fit(one_term(1, 1, 1, 0), c=1.01)[0] > 0


def test_a_model_that_always_wins_is_fitted_all_the_same():
    # 4 (1 - sigmoid(theta)) = 1/c
    assert fit(one_term(1, 1, 1, 1), c=1e4)[0] == pytest.approx(log(4e4 - 1))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.3, 1.0, 30.0, 1e4]))
def test_nothing_near_a_fit_is_lower(seed, c):
    rows = some_rows(seed)
    theta = fit(rows, c)
    least = objective(rows, theta, c)
    for step in np.random.default_rng(seed).normal(size=(20, 3)) * 1e-3:
        assert objective(rows, theta + step, c) >= least
    for place in np.eye(3) * 1e-4:
        assert min(objective(rows, theta + side * place, c) for side in (-1, 1)) >= least


def test_every_term_is_at_rest_or_held_at_zero():
    rows, c = some_rows(3), 2.0
    theta = fit(rows, c)
    chance = 1 / (1 + np.exp(-rows.terms @ theta))
    slope = (rows.weight * (chance - rows.share)) @ rows.terms
    held = theta == 0
    assert held.any() and not held.all()
    assert np.abs(slope[held]).max() < 1 / c
    assert slope[~held] == pytest.approx(-np.sign(theta[~held]) / c, abs=1e-9)


def test_the_lasso_finds_signs_that_were_guessed_wrong():
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(50, 3, 3))
    bend, pull = roots @ roots.transpose(0, 2, 1) + 0.01 * np.eye(3), rng.normal(size=(50, 3))
    with_guess = lasso(bend, pull, 0.3, np.sign(rng.normal(size=(50, 3))))
    without = lasso(bend, pull, 0.3, np.zeros((50, 3)), guesses=0)
    assert with_guess == pytest.approx(without, abs=1e-8)


def test_one_strength_after_the_other_is_as_from_the_start():
    rows = some_rows(5)
    path = fits(rows, rows.weight[None], [100.0, 1.0, 0.1], Start(np.zeros((1, 3)), 1e-7))
    for theta, c in zip(path, [100.0, 1.0, 0.1], strict=True):
        assert theta[0] == pytest.approx(fit(rows, c), abs=1e-9)


def test_what_cannot_be_told_in_advance_gets_the_strongest_penalty():
    rows = one_term(*[0.0] * 50, *[1.0] * 50)
    assert cross_validated(rows)[0] == pytest.approx(1e-4)


def test_a_clear_winner_gets_a_weak_penalty():
    rows = one_term(*[0.0] * 20, *[1.0] * 80)
    c, theta = cross_validated(rows)
    assert c > 1
    assert theta == pytest.approx(fit(rows, c))


def test_a_win_by_length_alone_is_none_at_equal_length():
    raw = 100 * judged(2000).share.mean()
    found = length_controlled(judged(2000)._replace(difficulty=None), c=1e4)
    assert raw > 60
    assert found.rate == pytest.approx(50, abs=3)
    assert found.standard_error == 0  # without difficulties all rows predict the same
    assert found.low < 50 < found.high


def test_the_error_is_the_spread_of_predictions():
    model = fitted(judged(), c=1.0)
    chance = 1 / (1 + np.exp(-(model.own[:, 1] * model.theta[1] + model.theta[2])))
    found = length_controlled(judged(), c=1.0)
    assert found.rate == pytest.approx(100 * chance.mean())
    assert found.standard_error == pytest.approx(100 * chance.std(ddof=1) / sqrt(100))


def test_rows_without_a_judgement_are_predicted_but_not_fitted():
    rows = judged()
    share = rows.share.copy()
    share[:10] = np.nan
    model = fitted(rows._replace(share=share), c=1.0)
    assert (len(model.rows.share), len(model.chances())) == (90, 100)


def test_nothing_judged_has_no_rate_and_too_little_no_strength():
    nothing = judged()._replace(share=np.full(100, np.nan))
    assert length_controlled(nothing) is None
    with pytest.raises(BadInput, match="4 judged rows are too few to choose C; give --c"):
        length_controlled(judged(4))
    assert length_controlled(judged(4), c=1.0) is not None


def test_calibration_holds_the_length_and_not_the_rate():
    # Calibrated by rows in which length decides nothing, the length term shrinks.
    even = Calibration(np.linspace(-2, 2, 5000), np.zeros(5000), np.full(5000, 0.5))
    free, held = fitted(judged(), None, 10.0), fitted(judged(), even, 10.0)
    assert abs(held.theta[0]) < abs(free.theta[0]) / 2
    assert held.rows.weight[:5000] == pytest.approx(0.1)


def test_lengths_that_never_differ_say_nothing():
    same = judged()._replace(length=np.full(100, 7.0), difficulty=None)
    found = length_controlled(same, c=1e6)
    assert found.rate == pytest.approx(100 * same.share.mean(), abs=0.01)


def whole_fits(model):
    """The interval when every draw is fitted from nothing until it rests."""
    own, p = model.own, model.own.shape[1]
    times = _drawn(len(own)).astype(float)
    held = np.repeat(model.rows.weight[None, : -len(own)], len(times), axis=0)
    weights = np.concatenate([held, times], axis=1)
    (theta,) = fits(model.rows, weights, [model.c], Start(np.zeros((len(times), p)), 1e-7))
    chance = 1 / (1 + np.exp(-theta[:, 1:] @ own[:, 1:].T))
    return np.percentile(100 * (times * chance).sum(axis=1) / times.sum(axis=1), (2.5, 97.5))


def one_sided(n: int, losses: int) -> Judged:
    """A longer model that wins but for a few rows, the losses the hardest of all."""
    rows = judged(n, seed=4)
    order = np.argsort(rows.difficulty)
    share = np.ones(n)
    share[order[-losses:]] = 0.0
    return rows._replace(length=-np.abs(rows.length), share=share)


@pytest.mark.parametrize("c", [1.0, 100.0])
@pytest.mark.parametrize("losses", [1, 4])
@pytest.mark.parametrize("calibrated", [False, True])
def test_few_rows_of_a_one_sided_model_have_the_interval_of_whole_fits(c, losses, calibrated):
    even = Calibration(np.linspace(-2, 2, 90), np.tile([0.0, 1, -1], 30), np.full(90, 0.5))
    model = fitted(one_sided(60, losses), even if calibrated else None, c)
    low, high = interval(model)
    assert (low, high) == pytest.approx(whole_fits(model), abs=0.05)
    assert 0 <= low <= high <= 100


@pytest.mark.parametrize(
    "rows", [judged(300, seed=2), judged(805), one_sided(400, 3)], ids=["300", "805", "one-sided"]
)
@pytest.mark.parametrize("c", [0.3, 2.0, 1e4])
def test_the_interval_of_many_rows_is_that_of_whole_fits(rows, c):
    model = fitted(rows, c=c)
    assert interval(model) == pytest.approx(whole_fits(model), abs=0.1)


def test_one_instruction_has_no_interval_and_one_prediction_no_spread():
    one = length_controlled(Judged(np.ones(2), None, np.ones(2), np.zeros(2, dtype=int)), c=1.0)
    assert (one.low, one.high) == (None, None)
    assert length_controlled(judged(7)._replace(difficulty=None), c=2.0).standard_error == 0


def test_rows_of_one_instruction_are_drawn_together():
    once = judged(100)
    twice = Judged(*(None if each is None else each.repeat(2) for each in once))
    wide, narrow = (length_controlled(rows, c=1e4) for rows in (once, twice))
    assert narrow.high - narrow.low == pytest.approx(wide.high - wide.low, rel=0.02)


@pytest.mark.parametrize(
    ("raw", "held", "extreme"),
    [(20, 9.9, True), (20, 10.1, False), (50, 37.4, True), (50, 37.6, False), (50, 62.6, True)],
)
def test_a_rate_is_extreme_by_ten_points_and_a_quarter_of_the_way(raw, held, extreme):
    assert is_extreme(raw, held) is extreme
