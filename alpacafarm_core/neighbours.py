"""Nearest neighbours by exact search, and which rows repeat an earlier one.

Magpie (Xu et al. 2024, arXiv 2406.08464, section 2.2 and released code). Distances are squared L2;
for unit vectors d = 2 - 2 cos, so 0.05 stands for a cosine of 0.975. N rows, D dimensions, arrays
in, arrays out; at most HELD distances are in memory at a time. The time grows with the square of N.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alpacafarm_core.errors import BadInput

HELD = 1 << 24
PAIRS = 10_000
"""Near pairs whose distance is computed at once."""

SLACK = 1e-3
"""Rounding of distances from a matrix product; nearer ones are computed again, exactly."""


class Near(NamedTuple):
    """What `nearest` finds, each [N]: squared distance to the nearest other row (NaN for a single
    row), other rows within the threshold, and the lowest of those, or -1.
    """

    distance: NDArray[np.float64]
    repeats: NDArray[np.int64]
    lowest: NDArray[np.int64]


def nearest(vectors: NDArray[Any], threshold: float) -> Near:
    """Nearest other rows of unit vectors [N, D], a row told from its copies by its number alone."""
    rows = unit(vectors)
    count = len(rows)
    found = Near(np.full(count, np.nan), np.zeros(count, np.int64), np.full(count, -1))
    size = max(1, HELD // max(1, count))
    for start in range(0, count if count > 1 else 0, size):
        here = rows[start : start + size]
        apart = np.maximum(2.0 - 2.0 * (here @ rows.T), 0.0)
        numbers = np.arange(len(here))
        apart[numbers, numbers + start] = np.inf
        _sharpen(apart, here, rows, threshold)
        near = apart <= threshold
        found.distance[start : start + size] = apart.min(1)
        found.repeats[start : start + size] = near.sum(1)
        found.lowest[start : start + size] = np.where(near.any(1), near.argmax(1), -1)
    return found


def first_similar(near: Near) -> list[int | None]:
    """Of each row the lowest-numbered near one if that is below its own, else its own number.

    None where there is no near one. A row is kept where this is None or its own: of a chain in
    which each repeats the one before, only the first.
    """
    pairs = enumerate(near.lowest.tolist())
    return [None if lowest < 0 else min(lowest, own) for own, lowest in pairs]


def unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Rows scaled to length 1, [N, D]; raises BadInput for a row without any length."""
    rows = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    empty = np.flatnonzero(~(lengths[:, 0] > 0))
    if len(empty):
        raise BadInput(
            f"row {empty[0]}: its text has a vector of no length and no neighbours; leave out "
            "empty instructions, or embed by another model"
        )
    scaled: NDArray[np.float64] = rows / lengths
    return scaled


def _sharpen(
    apart: NDArray[np.float64],
    here: NDArray[np.float64],
    rows: NDArray[np.float64],
    threshold: float,
) -> None:
    """Compute small distances, and those beside the threshold, once more without cancellation."""
    doubtful = (apart < SLACK) | (np.abs(apart - threshold) < SLACK)
    ones, others = np.nonzero(doubtful)
    for start in range(0, len(ones), PAIRS):
        one, other = ones[start : start + PAIRS], others[start : start + PAIRS]
        apart[one, other] = ((here[one] - rows[other]) ** 2).sum(1)
