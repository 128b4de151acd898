"""Comparisons: is one model better than another, by how much, and how sure can one be.

Everything is paired: two models are compared on the prompts (instruction, input) that both were
judged on, so what makes a prompt hard cancels. Differences, errors and intervals are in points
(percent), `alpha` is the error rate of a statement, 0.05 unless said otherwise. Nothing here asks
a judge or reads a file. `benchmarks/error_rates.py` checks that the error rates hold.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, reduce
from math import cos, inf, pi, sin, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from alpacafarm_core.errors import BadInput
from alpacafarm_core.tally import PROMPT, points

Numbers = NDArray[np.float64]

FLIPS = 9_999
RESAMPLES = 2_000
ROUNDING = 1e-9  # sums of the same numbers in another order are the same sum


class Interval(NamedTuple):
    """From `low` to `high`, both included."""

    low: float
    high: float

    def scaled(self, by: float) -> "Interval":
        """The same in another unit; `by` is positive."""
        return Interval(self.low * by, self.high * by)


class Comparison(NamedTuple):
    """The first model minus the second, in points, over the `n` prompts that both have.

    `interval` is Student's, `bootstrap` resamples prompts; `p_value` is that of `sign_flip`.
    `detectable` is the difference that as many prompts would have found 4 times out of 5.
    """

    difference: float
    standard_error: float
    interval: Interval
    p_value: float
    bootstrap: Interval
    n: int
    detectable: float


class Across(NamedTuple):
    """A mean over `seeds` runs and `n` prompts, in the unit of the values."""

    mean: float
    standard_error: float
    interval: Interval
    seeds: int
    n: int


class Ranks(NamedTuple):
    """The best and the worst place that a model may have."""

    best: int
    worst: int

    def __str__(self) -> str:
        return str(self.best) if self.best == self.worst else f"{self.best}-{self.worst}"


def paired(
    first: pl.DataFrame, second: pl.DataFrame, alpha: float = 0.05, seed: int = 0
) -> Comparison:
    """Compare two models judged against one reference; frames of instruction, input, preference.

    Several rows of a prompt count as one. Raises BadInput with fewer than two prompts in both.
    """
    values = differences(first, second)["points"].to_numpy()
    if len(values) < 2:
        raise BadInput(
            f"{len(values)} prompts (instruction, input) have a label in both tables; "
            "a comparison needs at least two"
        )
    difference, error = float(values.mean()), standard_error(values)
    return Comparison(
        difference,
        error,
        _around(difference, student(len(values) - 1, alpha) * error),
        sign_flip(values, seed),
        bootstrap(values, alpha, seed),
        len(values),
        detectable(len(values), error * sqrt(len(values)), alpha),
    )


def differences(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """Instruction, input and `points`, first minus second, -100 to 100, a row for each prompt."""
    return leads(points(first), points(second), "points")


def leads(first: pl.DataFrame, second: pl.DataFrame, value: str) -> pl.DataFrame:
    """`value` of the first minus that of the second on each prompt that both have."""
    sides = [_per_prompt(each.select(*PROMPT, value).drop_nulls()) for each in (first, second)]
    joined = sides[0].join(sides[1], on=PROMPT, suffix="_second", maintain_order="left")
    return joined.select(*PROMPT, pl.col(value) - pl.col(f"{value}_second"))


def standard_error(values: Numbers) -> float:
    """Of the mean of at least two independent values."""
    return float(values.std(ddof=1) / sqrt(len(values)))


def sign_flip(values: Numbers, seed: int = 0) -> float:
    """Two-sided p-value of a mean of zero: how often coins for signs give as large a sum.

    Exact when each difference is as likely as its opposite, whatever the ties and grades: the coins
    are drawn, and the draw at hand counts as one of them (Phipson and Smyth 2010, "Permutation
    p-values should never be zero"). Values of one size are flipped together, as a binomial.
    """
    sizes, counts = np.unique(np.abs(values), return_counts=True)
    heads = np.random.default_rng(seed).binomial(counts, 0.5, (FLIPS, len(sizes)))
    sums = np.abs((2 * heads - counts) @ sizes)
    as_large = np.count_nonzero(sums >= abs(values.sum()) - ROUNDING)
    return float((1 + as_large) / (1 + FLIPS))


def bootstrap(values: Numbers, alpha: float = 0.05, seed: int = 0) -> Interval:
    """Percentile interval of the mean over `RESAMPLES` draws of as many prompts, with replacement.

    Drawing prompts is drawing how often each distinct value comes.
    """
    distinct, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(
        len(values), counts / len(values), size=RESAMPLES
    )
    low, high = np.quantile(drawn @ distinct / len(values), [alpha / 2, 1 - alpha / 2])
    return Interval(float(low), float(high))


def across(runs: Sequence[pl.DataFrame], value: str, alpha: float = 0.05) -> Across:
    """Mean of `value` over runs that differ in their seed and share their prompts.

    One frame of instruction, input and `value` for each seed; only prompts in all count. Raises
    BadInput with fewer than two of either.
    """
    table = _runs_by_prompts(runs, value)
    if min(table.shape) < 2:
        raise BadInput(
            f"{table.shape[0]} seeds with {table.shape[1]} prompts in common; "
            "at least two of both are needed"
        )
    return two_level(table, alpha)


def two_level(table: Numbers, alpha: float = 0.05) -> Across:
    """The mean of a table [seeds, prompts] when both are draws from more of their kind.

    The squared error is that between seeds, plus that between prompts which is not already in it
    (two-way random effects). In the interval each part has the quantile of its own degrees of
    freedom (Graybill and Wang 1980, J. Am. Stat. Assoc. 75), so that three seeds count as three
    however many prompts they share.
    """
    seeds, n = table.shape
    of_seed, of_prompt = table.mean(axis=1), table.mean(axis=0)
    rest = table - of_seed[:, None] - of_prompt + table.mean()
    between_seeds, between_prompts = of_seed.var(ddof=1) / seeds, of_prompt.var(ddof=1) / n
    between_rows = (rest**2).sum() / ((seeds - 1) * (n - 1)) / (seeds * n)
    shared = max(between_prompts - between_rows, 0.0)
    few, many = student(seeds - 1, alpha) ** 2, student(n - 1, alpha) ** 2
    width = sqrt(max(few * between_seeds + many * shared, many * between_prompts))
    error = sqrt(max(between_seeds + shared, between_prompts))
    mean = float(table.mean())
    return Across(mean, error, _around(mean, width), seeds, n)


def ranks(intervals: Mapping[str, Interval]) -> dict[str, Ranks]:
    """The places each model may have: a model is only above another when its whole interval is."""
    return {
        name: Ranks(
            1 + sum(other.low > own.high for other in intervals.values()),
            len(intervals) - sum(other.high < own.low for other in intervals.values()),
        )
        for name, own in intervals.items()
    }


def detectable(n: int, sd: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The least true difference that a test on `n` prompts finds with probability `power`.

    In the unit of `sd`, the standard deviation of one prompt's difference: before any judging, 50
    points for a win rate against one half, and at most 70.7 between two models of like strength.
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * sd / sqrt(n)


def points_per_dollar(difference: float, dollars: float) -> float | None:
    """Points gained for each dollar spent on it; None where nothing was spent."""
    return difference / dollars if dollars > 0 else None


@lru_cache
def student(freedom: int, alpha: float) -> float:
    """What |t| exceeds with probability `alpha`, for whole degrees of freedom."""
    low, high = 0.0, pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 1 - alpha else (low, middle)
    return sqrt(freedom) * sin(low) / cos(low) if low < pi / 2 else inf


def _within(angle: float, freedom: int) -> float:
    """Probability of |t| below sqrt(freedom) tan(angle); Abramowitz and Stegun 26.7.3, 26.7.4."""
    odd = freedom % 2
    term, total = (cos(angle) if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= k / (k + 1) * cos(angle) ** 2
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def _around(mean: float, width: float) -> Interval:
    return Interval(mean - width, mean + width)


def _per_prompt(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.group_by(PROMPT, maintain_order=True).agg(pl.exclude(PROMPT).mean())


def _runs_by_prompts(runs: Iterable[pl.DataFrame], value: str) -> Numbers:
    """A row a run, a column a prompt that all runs have."""
    each = (
        _per_prompt(run.select(*PROMPT, pl.col(value).alias(str(number))).drop_nulls())
        for number, run in enumerate(runs)
    )
    together = reduce(lambda left, right: left.join(right, on=PROMPT), each)
    return np.asarray(together.drop(PROMPT).to_numpy().T, dtype=np.float64)
