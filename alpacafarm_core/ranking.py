"""Do two ways of judging rank methods alike? Spearman, R², swaps, and how sure of it one can be.

AlpacaFarm's claim (arXiv 2305.14387, section 4.1): methods trained and judged in simulation rank as
they do when people label and judge. Intervals come from redrawing every win rate within its own
standard error, so they tell the uncertainty of few prompts, not that of few methods; as those rates
carry noise already, the intervals are of the attenuated agreement and understate one near 1.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from alpacafarm_core.errors import BadInput

Rates = np.ndarray[Any, Any]
DRAWS = 2_000
LEVEL = 0.95


class Agreement(NamedTuple):
    """How alike two columns rank; intervals are None without standard errors.

    `swaps` are pairs of methods that the two columns order differently.
    """

    spearman: float
    spearman_interval: tuple[float, float] | None
    r2: float
    r2_interval: tuple[float, float] | None
    swaps: list[tuple[str, str]]


def agreement(
    models: Sequence[str],
    simulated: Sequence[tuple[float, float | None]],
    human: Sequence[tuple[float, float | None]],
    seed: int = 0,
) -> Agreement:
    """Compare win rates, each with its standard error or None, of the same models.

    Raises BadInput for fewer than three models, which cannot be correlated.
    """
    if len(models) < 3:
        raise BadInput(f"{len(models)} models cannot be ranked against each other; give three")
    first, second = (np.array([rate for rate, _ in side]) for side in (simulated, human))
    errors = [[error for _, error in side] for side in (simulated, human)]
    spread = None
    if all(error is not None for side in errors for error in side):
        spread = _redrawn((first, second), np.array(errors, dtype=float), seed)
    return Agreement(
        spearman(first, second),
        None if spread is None else spread[0],
        r_squared(first, second),
        None if spread is None else spread[1],
        swaps(models, first, second),
    )


def spearman(first: Rates, second: Rates) -> float:
    """Rank correlation; equal values share the mean of their ranks."""
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def r_squared(first: Rates, second: Rates) -> float:
    """Square of the linear correlation."""
    return float(np.corrcoef(first, second)[0, 1] ** 2)


def swaps(models: Sequence[str], first: Rates, second: Rates) -> list[tuple[str, str]]:
    """Pairs of models that the columns order differently; the better in the first column first."""
    order = [int(place) for place in np.argsort(-first, kind="stable")]
    return [
        (models[high], models[low])
        for high, low in combinations(order, 2)
        if first[high] > first[low] and second[high] < second[low]
    ]


def _ranks(values: Rates) -> Rates:
    return np.array([(np.sum(values < one) + np.sum(values <= one) + 1) / 2 for one in values])


def _redrawn(
    columns: tuple[Rates, Rates], errors: Rates, seed: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intervals of Spearman and R² when rates are drawn anew within their errors.

    The rates carry the noise of few prompts already and each draw adds as much again, so these are
    intervals of an attenuated agreement: one near 1 is understated, and may lie above its interval.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.normal(np.array(columns), errors, size=(DRAWS, 2, len(columns[0])))
    found = np.array([(spearman(*each), r_squared(*each)) for each in drawn])
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))
