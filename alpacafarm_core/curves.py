"""Over-optimisation: reward, win rates and true utility against the distance from the policy.

AlpacaFarm (arXiv 2305.14387, section 4.2) and Gao et al. (arXiv 2210.10760): as a policy is
optimised against a reward model its proxy rises throughout, what people would say rises and then
falls. Best-of-n for every n comes from one pool of samples by the exact order statistic. Pure.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from alpacafarm_core.artifacts import Curves, Preferences, Scores
from alpacafarm_core.search import best_of_n_kl, expected_best_of_n
from alpacafarm_core.values import Value

PROMPT = ["instruction", "input"]
MEASURES = ("proxy", "win_rate", "human", "utility")
DRAWS = 1_000
Column = np.ndarray[Any, Any]


class Pool(Value):
    """Many samples a prompt, scored and judged: the makings of best-of-n for every n.

    `judged` and `human` have a table for each sample index, in order.
    """

    series: str
    proxy: Scores
    truth: Scores
    judged: tuple[Preferences, ...]
    human: tuple[Preferences, ...]


class Run(Value):
    """One policy at `x`: its answers scored and judged, and their log-ratio to the start."""

    series: str
    x: float
    proxy: Scores
    truth: Scores
    judged: Preferences
    human: Preferences
    drift: Scores


class Point(NamedTuple):
    """One point of a curve; each measure has a value a prompt, NaN where it was not judged."""

    series: str
    x: float
    kl: float
    measures: dict[str, Column]


class Peak(NamedTuple):
    """Where true utility is highest, and between which points it is in 95% of resamples."""

    x: float
    low: float
    high: float


def best_of_points(series: str, samples: pl.DataFrame, sizes: Sequence[int]) -> list[Point]:
    """Best-of-n for each n in `sizes`, from rows with the prompt and the four MEASURES."""
    pools = [
        {name: group[name].to_list() for name in MEASURES}
        for _, group in samples.group_by(PROMPT, maintain_order=True)
    ]
    return [
        Point(
            series,
            float(n),
            best_of_n_kl(n),
            {
                name: np.array([expected_best_of_n(p["proxy"], p[name], n) for p in pools])
                for name in MEASURES
            },
        )
        for n in sizes
    ]


def table(points: Sequence[Point]) -> pl.DataFrame:
    """Means and standard errors over prompts, columns of Curves."""
    rows = []
    for point in points:
        row: dict[str, object] = {"series": point.series, "x": point.x, "kl": point.kl}
        for name, values in point.measures.items():
            known = values[~np.isnan(values)]
            error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else None
            mean = float(known.mean()) if len(known) else None
            scale = 100.0 if name in ("win_rate", "human") else 1.0
            short = "win" if name == "win_rate" else name
            row[name] = None if mean is None else scale * mean
            row[f"{short}_error"] = None if error is None else scale * error
        rows.append(row)
    return pl.DataFrame(rows, schema=pl.Schema(Curves.columns))


def peak(points: Sequence[Point], seed: int = 0) -> Peak:
    """Where one series has its highest true utility; the interval is a bootstrap over prompts."""
    ordered = sorted(points, key=lambda point: point.kl)
    utility = np.array([point.measures["utility"] for point in ordered])
    xs = np.array([point.x for point in ordered])
    rng = np.random.default_rng(seed)
    picks = rng.integers(utility.shape[1], size=(DRAWS, utility.shape[1]))
    tops = np.array([xs[int(np.argmax(utility[:, pick].mean(1)))] for pick in picks])
    low, high = np.quantile(tops, [0.025, 0.975], method="nearest")
    return Peak(float(xs[int(np.argmax(utility.mean(1)))]), float(low), float(high))
