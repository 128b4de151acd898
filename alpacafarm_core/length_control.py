"""Length-controlled win rate: the win rate had both outputs been equally long.

A logistic regression, one a model, predicts its preferences (Dubois et al. 2024, arXiv:2404.04475).
For row i of the model, without an intercept:

    logit P(model is better) = theta_length * tanh(D_i / s) + theta_difficulty * d_i + theta_model

D is the baseline's length less the model's in characters, s the standard deviation of D, d the
fixed difficulty of the instruction. Calibration rows, of a baseline told to be brief or verbose and
judged against itself, have no model term and weigh 0.1 each: they hold theta_length to what length
alone explains. The rate is the mean prediction with D = 0. Which terms there are follows from what
is given: `v1` has difficulties and calibration, `noreg` no calibration, `minimal` neither.

The spread of predictions says nothing of how sure the rate is, so there is an interval too: its
instructions are drawn again and the model is fitted to each draw.
"""

from functools import lru_cache
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alpacafarm_core.errors import BadInput
from alpacafarm_core.logistic import (
    FOLDS,
    Array,
    Rows,
    by_pairs,
    cross_validated,
    fit,
    lasso,
    rows_of,
    sigmoid,
    symmetric,
)

CALIBRATION_WEIGHT = 0.1  # lambda = 0.2, halved for the two ways in which lengths were forced
DRAWS = 1000
TAILS = (2.5, 97.5)  # percentiles: an interval of 95 %


class Judged(NamedTuple):
    """Rows of one model, [n] each, in an order of the instructions' own.

    `length` is in characters, `share` from 0 to 1 for the model, NaN where there is no judgement.
    Rows with the same `prompt` are of one instruction; it counts up from 0.
    """

    length: Array
    difficulty: Array | None
    share: Array
    prompt: NDArray[np.int64]


class Calibration(NamedTuple):
    """Rows of the baseline against itself, [g] each; `length` in standard deviations."""

    length: Array
    difficulty: Array
    share: Array


class LengthControlled(NamedTuple):
    """Percent: the rate, the spread of predictions as an error, the rate's interval; and C."""

    rate: float
    standard_error: float | None
    low: float
    high: float
    c: float | None


BASELINE = LengthControlled(50.0, 0.0, 50.0, 50.0, None)
"""A baseline against itself, by definition."""


class Fitted(NamedTuple):
    """A model's own terms and rows, all rows of the fit, and what came of it."""

    own: Array
    judged: Judged
    rows: Rows
    theta: Array
    c: float

    def chances(self) -> Array:
        """Percent, for every row of the model, that it is better at equal length [n]."""
        return 100 * sigmoid(self.own[:, 1:] @ self.theta[1:])


def length_controlled(
    judged: Judged, calibration: Calibration | None = None, c: float | None = None
) -> LengthControlled | None:
    """The rate of one model, with C cross-validated when it is not given.

    None when nothing was judged; raises BadInput when too little was to choose C.
    """
    if not np.isfinite(judged.share).any():
        return None
    model = fitted(judged, calibration, c)
    chance = model.chances()
    low, high = np.percentile(_rates_drawn(model), TAILS)
    n = len(chance)
    error = float(chance.std(ddof=1)) / sqrt(n) if n > 1 else None
    return LengthControlled(float(chance.mean()), error, float(low), float(high), model.c)


def fitted(
    judged: Judged, calibration: Calibration | None = None, c: float | None = None
) -> Fitted:
    """The same without the interval, and how it came about."""
    own = _terms(judged)
    rows = _rows(own, judged.share, calibration)
    if c is None and len(rows.share) < FOLDS:
        raise BadInput(
            f"{len(rows.share)} judged rows are too few to choose C; give --c, such as 1"
        )
    c, theta = cross_validated(rows) if c is None else (c, fit(rows, c))
    return Fitted(own, judged, rows, theta, c)


def is_extreme(win_rate: float, controlled: float) -> bool:
    """AlpacaEval's rule for a rate so far from the raw one that the fit may have failed; percent.

    Either way it must be off by 10 points, and by a quarter of the way to 0 or to 100.
    """
    lowest = min(win_rate - win_rate / 4, win_rate - 10)
    highest = max(win_rate + (100 - win_rate) / 4, win_rate + 10)
    return not lowest <= controlled <= highest


def _terms(judged: Judged) -> Array:
    """Length, difficulty if any, and the model itself: [n, 2 or 3]."""
    spread = judged.length.std(ddof=1) if len(judged.length) > 1 else 0.0
    length = np.tanh(judged.length / spread) if spread else np.zeros_like(judged.length)
    difficulty = [] if judged.difficulty is None else [judged.difficulty]
    return np.stack([length, *difficulty, np.ones_like(length)], axis=1)


def _rows(own: Array, share: Array, calibration: Calibration | None) -> Rows:
    """What the fit sees: calibration first, then the model's judged rows."""
    is_judged = np.isfinite(share)
    terms, share = own[is_judged], share[is_judged]
    weight = np.ones(len(share))
    if calibration is None:
        return rows_of(terms, share, weight)
    nobody = np.zeros_like(calibration.length)
    extra = np.stack([np.tanh(calibration.length), calibration.difficulty, nobody], axis=1)
    return rows_of(
        np.concatenate([extra, terms]),
        np.concatenate([calibration.share, share]),
        np.concatenate([np.full(len(extra), CALIBRATION_WEIGHT), weight]),
    )


def _rates_drawn(model: Fitted) -> Array:
    """The rate, in percent, for every draw of the instructions; C, s and calibration stay.

    A thousand fits would take a thousand times as long. What a fit minimises is expanded about
    `theta` instead, to third order, the third as without drawing: a draw then only changes the
    weights in a few sums, one product of matrices for all. The ends agree with those of whole fits
    to about 0.1 points.
    """
    level = model.own[:, 1:]  # the length does not enter the rate
    chance = sigmoid(level @ model.theta[1:])
    slope = chance * (1 - chance)
    values = [np.ones((len(level), 1)), chance[:, None], slope[:, None] * level]
    sums = _drawn_sums(np.concatenate([*values, _own_derivatives(model)], axis=1), model)
    own = 2 + level.shape[1]
    moved = _moves(model, sums[:, own:])[:, 1:]
    bend = (slope * (1 - 2 * chance)) @ by_pairs(level) / len(level)
    second = np.einsum("ij,ki,kj->k", symmetric(bend[None])[0], moved, moved) / 2
    first = sums[:, 1] + (sums[:, 2:own] * moved).sum(axis=1)
    return np.asarray(100 * (first / sums[:, 0] + second))


def _moves(model: Fitted, own: Array) -> Array:
    """How far the parameters move in every draw [draws, p], by the sums over the model's rows."""
    rows, p = model.rows, model.own.shape[1]
    derivatives = _derivatives(rows, model.theta).sum(axis=0)
    sums = own + derivatives - _own_derivatives(model).sum(axis=0)
    bend = symmetric(sums[:, p:])
    pull, signs = bend @ model.theta - sums[:, :p], np.sign(model.theta)[None].repeat(DRAWS, axis=0)
    moved = lasso(bend, pull, 1 / model.c, signs) - model.theta
    chance = sigmoid(rows.terms @ model.theta)
    twist = rows.weight * chance * (1 - chance) * (1 - 2 * chance)
    cube = symmetric((rows.terms * twist[:, None]).T @ rows.products)
    turned = np.einsum("abc,kb,kc->ka", cube, moved, moved) / 2
    return lasso(bend, pull - turned, 1 / model.c, signs) - model.theta


def _own_derivatives(model: Fitted) -> Array:
    """Those of the model's own rows, 0 where there is no judgement."""
    is_judged = np.isfinite(model.judged.share)
    share = np.where(is_judged, model.judged.share, 0.0)
    return _derivatives(rows_of(model.own, share, is_judged.astype(float)), model.theta)


def _derivatives(rows: Rows, theta: Array) -> Array:
    """Of each row's loss by every parameter and every two of them, [n, p + pairs]."""
    chance = sigmoid(rows.terms @ theta)
    slope, bend = rows.weight * (chance - rows.share), rows.weight * chance * (1 - chance)
    return np.concatenate([slope[:, None] * rows.terms, bend[:, None] * rows.products], axis=1)


def _drawn_sums(values: Array, model: Fitted) -> Array:
    """Sums over the model's rows [n, k] in every draw, [draws, k]."""
    first = np.flatnonzero(np.diff(model.judged.prompt, prepend=-1))
    each = np.add.reduceat(values, first)
    return np.asarray(_drawn(len(each)) @ each.astype(np.float32), dtype=np.float64)


@lru_cache(maxsize=2)
def _drawn(prompts: int) -> NDArray[np.float32]:
    """How often each instruction comes in each draw: [draws, prompts], the same in every run.

    Single precision is enough for sums that only say where an interval ends.
    """
    even = np.full(prompts, 1 / prompts)
    return np.random.default_rng(0).multinomial(prompts, even, size=DRAWS).astype(np.float32)
