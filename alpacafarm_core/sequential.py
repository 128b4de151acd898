"""Sequential tests: look at the labels as they are bought, and stop when they have decided.

A test made for a fixed number of rows is wrong more often than it says when it is looked at again
and again. Here a gambler starts with 1 and bets against "the mean is m" on each value as it comes.
If m is right, no way of betting makes money on average, so the chance that the gambler ever owns
1 / alpha is at most alpha (Ville's inequality), however often one looks. The gambler splits the
money over fixed fractions of the largest bet that cannot ruin, the "diversified Kelly" betting of
Waudby-Smith and Ramdas ("Estimating means of bounded random variables by betting", J. R. Stat.
Soc. B 2024; section 5 for draws without replacement). No distribution is assumed: ties, halves
and grades are welcome.

Values are paired differences in [-1, 1], in an order that was drawn at random.
"""

from math import log

import numpy as np
from numpy.typing import NDArray

from alpacafarm_core.comparison import Interval, Numbers

FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Of the largest bet; small ones find small differences late, large ones large ones at once."""
HALVINGS = 50
LEAST = 1e-12  # instead of 0, where the rest must all be -1


def log_capital(values: Numbers, mean: Numbers | float) -> Numbers:
    """Log of what the gambler owns after each value, betting that values are above `mean`.

    Shapes [..., n]; `mean` above -1, for each value what is expected of it.
    """
    returns = (values + 1) / np.maximum(np.asarray(mean) + 1, LEAST)
    purses = [np.cumsum(np.log1p(f * (returns - 1)), axis=-1) for f in FRACTIONS]
    return np.asarray(np.logaddexp.reduce(purses) - log(len(FRACTIONS)))


def decision_points(values: Numbers, alpha: float) -> NDArray[np.int64]:
    """After how many values each row of [..., n] is decided, 0 for never.

    Negative where the mean was found to be below zero.
    """
    needed = log(2 / alpha)  # half of alpha for either side
    above, below = log_capital(values, 0.0) >= needed, log_capital(-values, 0.0) >= needed
    either = above | below
    count = either.argmax(axis=-1)
    sign = np.where(np.take_along_axis(above, count[..., None], -1)[..., 0], 1, -1)
    return np.where(either.any(axis=-1), sign * (count + 1), 0)


def decided(values: Numbers, alpha: float = 0.05) -> int:
    """1 when the mean is above zero, -1 when below, 0 while that is open.

    Wrong with probability at most `alpha` if asked after every value, or ever again.
    """
    return int(np.sign(decision_points(values, alpha))) if len(values) else 0


def confidence(values: Numbers, alpha: float = 0.05, total: int | None = None) -> Interval:
    """Bounds of the mean that hold at all times together with probability 1 - `alpha`.

    Without `total` the mean is that of the population the values are drawn from. With it, the mean
    of all `total` values of which these were drawn without replacement: likely bounds of what
    judging every row would have given.
    """
    low, high = _lowest(values, alpha / 2, total), -_lowest(-values, alpha / 2, total)
    bounds = worst_case(values, total) if total else Interval(-1.0, 1.0)
    low, high = (min(max(end, bounds.low), bounds.high) for end in (low, high))
    return Interval(min(low, high), max(low, high))


def worst_case(values: Numbers, total: int) -> Interval:
    """Bounds of the mean of all `total` values that hold for certain: the rest all lost, or won."""
    left, so_far = total - len(values), float(values.sum())
    return Interval((so_far - left) / total, (so_far + left) / total)


def _lowest(values: Numbers, alpha: float, total: int | None) -> float:
    """The smallest mean that the gambler betting on more has not refuted; it shrinks with m."""
    low, high = (worst_case(values, total).low if total else -1.0), 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        owned = log_capital(values, _expected(values, middle, total))
        refuted = bool((owned >= log(1 / alpha)).any())
        low, high = (middle, high) if refuted else (low, middle)
    return low


def _expected(values: Numbers, mean: float, total: int | None) -> Numbers | float:
    """The mean that is left for each value when the mean of all is `mean`."""
    if total is None:
        return mean
    before = np.concatenate([[0.0], np.cumsum(values)[:-1]])
    return np.asarray((total * mean - before) / (total - np.arange(len(values))))
