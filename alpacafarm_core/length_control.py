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
    Start,
    by_pairs,
    cross_validated,
    fit,
    fits,
    lasso,
    rows_of,
    sigmoid,
    symmetric,
)

CALIBRATION_WEIGHT = 0.1  # lambda = 0.2, halved for the two ways in which lengths were forced
DRAWS = 1000
TAILS = (2.5, 97.5)  # percentiles: an interval of 95 %
FEW = 300  # instructions, below which every draw is fitted
FAR = 0.5  # the most that the third order of an expansion may move a logit
MANY = 0.05  # share of draws that are far, above which every draw is fitted
BESIDE = 8  # draws on either side of an end of the interval that are fitted
NEAR = 0.05  # move of a logit that ends the fit of a draw; the error left is about its square
TOGETHER = 100  # fits at once
Draws = NDArray[np.float32]
"""How often each instruction comes in each draw, [draws, prompts]."""


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
    low: float | None
    high: float | None
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
    low, high = interval(model)
    n = len(chance)
    spread = float(chance.std(ddof=1)) if n > 1 and np.ptp(chance) else 0.0
    error = spread / sqrt(n) if n > 1 else None
    return LengthControlled(float(chance.mean()), error, low, high, model.c)


def interval(model: Fitted) -> tuple[float | None, float | None]:
    """Ends of the rate's interval in percent, None where fewer than two instructions were judged.

    They are those of the drawn rates, which lie from 0 to 100.
    """
    judged = model.judged.prompt[np.isfinite(model.judged.share)]
    if judged[0] == judged[-1]:
        return None, None
    low, high = np.percentile(_rates_drawn(model), TAILS).clip(0.0, 100.0)
    return float(low), float(high)


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

    Few instructions are fitted anew in every draw. With many a thousand fits take long and hardly
    differ from expansions about the one fit: only draws that lead far from it are fitted, and those
    whose rates are next to the ends of the interval. Of a one-sided model many are far.
    """
    times = _drawn(int(model.judged.prompt[-1]) + 1)
    if times.shape[1] < FEW:
        return _refitted(model, times, model.theta[None].repeat(DRAWS, axis=0))
    rates, theta, is_far = _expanded(model, times)
    if is_far.mean() > MANY:
        return _refitted(model, times, theta)
    rates[is_far] = _refitted(model, times[is_far], theta[is_far])
    ends = np.array(TAILS)[:, None] * DRAWS / 100 + np.arange(-BESIDE, BESIDE)
    beside = np.argsort(rates)[ends.astype(int).ravel()]
    rates[beside] = _refitted(model, times[beside], theta[beside])
    return rates


def _refitted(model: Fitted, times: Draws, start: Array) -> Array:
    """The rates of whole fits from `start` [draws, p]; some at once, to stay in the cache."""
    is_judged, level = np.isfinite(model.judged.share), model.own[:, 1:]
    fixed = model.rows.weight[: len(model.rows.weight) - is_judged.sum()]
    rates = np.empty(len(times))
    for first in range(0, len(times), TOGETHER):
        part = slice(first, first + TOGETHER)
        often = times[part, model.judged.prompt].astype(np.float64)
        held = np.broadcast_to(fixed, (len(often), len(fixed)))
        weights = np.concatenate([held, often[:, is_judged]], axis=1)
        (theta,) = fits(model.rows, weights, [model.c], Start(start[part], NEAR))
        chance = sigmoid(theta[:, 1:] @ level.T)
        rates[part] = 100 * (often * chance).sum(axis=1) / often.sum(axis=1)
    return rates


def _expanded(model: Fitted, times: Draws) -> tuple[Array, Array, NDArray[np.bool_]]:
    """The rates [draws] by an expansion of what a fit minimises about `theta`.

    With them come where fits may begin, [draws, p], and which draws are far. The expansion is to
    third order, the third as without drawing: a draw then only changes the weights in a few sums,
    one product of matrices for all. Draws not far are within 0.1 points of a fit, or nearly.
    """
    level = model.own[:, 1:]  # the length does not enter the rate
    chance = sigmoid(level @ model.theta[1:])
    slope = chance * (1 - chance)
    values = [np.ones((len(level), 1)), chance[:, None], slope[:, None] * level]
    derivatives = _own_derivatives(model)
    sums = _drawn_sums(np.concatenate([*values, derivatives], axis=1), model, times)
    own = 2 + level.shape[1]
    moves, is_far = _moves(model, sums[:, own:] - derivatives.sum(axis=0))
    moved = moves[:, 1:]
    bend = (slope * (1 - 2 * chance)) @ by_pairs(level) / len(level)
    second = np.einsum("ij,ki,kj->k", symmetric(bend[None])[0], moved, moved) / 2
    first = sums[:, 1] + (sums[:, 2:own] * moved).sum(axis=1)
    start = np.where(is_far[:, None], model.theta, model.theta + moves)
    return np.asarray(100 * (first / sums[:, 0] + second)), start, is_far


def _moves(model: Fitted, more: Array) -> tuple[Array, NDArray[np.bool_]]:
    """How far the parameters move in every draw [draws, p], and whether that is too far.

    `more` is what the draw adds to the sums of derivatives over all rows.
    """
    rows, p = model.rows, model.own.shape[1]
    sums = more + _derivatives(rows, model.theta).sum(axis=0)
    bend = symmetric(sums[:, p:])
    pull = bend @ model.theta - sums[:, :p]
    signs = np.sign(model.theta)[None].repeat(len(pull), axis=0)
    first = lasso(bend, pull, 1 / model.c, signs)
    moved = first - model.theta
    chance = sigmoid(rows.terms @ model.theta)
    twist = rows.weight * chance * (1 - chance) * (1 - 2 * chance)
    cube = symmetric((rows.terms * twist[:, None]).T @ rows.products)
    turned = np.einsum("abc,kb,kc->ka", cube, moved, moved) / 2
    theta = lasso(bend, pull - turned, 1 / model.c, signs)
    return theta - model.theta, np.abs(theta - first) @ rows.widest > FAR


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


def _drawn_sums(values: Array, model: Fitted, times: Draws) -> Array:
    """Sums over the model's rows [n, k] in every draw, [draws, k]."""
    first = np.flatnonzero(np.diff(model.judged.prompt, prepend=-1))
    each = np.add.reduceat(values, first)
    return np.asarray(times @ each.astype(np.float32), dtype=np.float64)


@lru_cache(maxsize=2)
def _drawn(prompts: int) -> Draws:
    """How often each instruction comes in each draw: [draws, prompts], the same in every run.

    Single precision is enough for sums that only say where an interval ends.
    """
    even = np.full(prompts, 1 / prompts)
    return np.random.default_rng(0).multinomial(prompts, even, size=DRAWS).astype(np.float32)
