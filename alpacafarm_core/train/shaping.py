"""The arithmetic of reward shaping: pure, nothing is changed in place (arXiv 2502.18770).

`scores` [B] are a reward model's of the step's answers, `refs` [B, M] its scores of answers that
the start gave to the same prompts. `Running` is what is known of all scores of earlier steps: it is
passed in and handed back, so that looking at rewards never changes how later ones are shaped.
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

STATISTICS = "scores_"
"""What the numbers of `Running` begin with in a checkpoint."""


class Running(NamedTuple):
    """How many, mean, squared distance from the mean, least and largest of the scores so far."""

    seen: float = 0.0
    mean: float = 0.0
    distance: float = 0.0
    least: float = math.inf
    largest: float = -math.inf

    def joined(self, scores: Tensor) -> Self:
        """With the scores of one more step, [B]; merged as Chan et al. 1983 merge two samples."""
        more = scores.double()
        count, mean = len(more), float(more.mean())
        whole, away = self.seen + count, mean - self.mean
        spread = float(((more - mean) ** 2).sum())
        return type(self)(
            whole,
            self.mean + away * count / whole,
            self.distance + spread + away**2 * self.seen * count / whole,
            min(self.least, float(more.min())),
            max(self.largest, float(more.max())),
        )

    @property
    def deviation(self) -> float:
        """Standard deviation of the population so far; 0 before there is one."""
        return math.sqrt(self.distance / self.seen) if self.seen else 0.0

    def numbers(self) -> dict[str, float]:
        """For a checkpoint; nothing before the first step."""
        return {f"{STATISTICS}{k}": v for k, v in self._asdict().items()} if self.seen else {}

    @classmethod
    def of(cls, numbers: Mapping[str, float]) -> Self:
        """What `numbers` said; the beginning where it said nothing."""
        known = {name: numbers.get(f"{STATISTICS}{name}") for name in cls._fields}
        return cls(**{name: held for name, held in known.items() if held is not None})


def margins(scores: Tensor, refs: Tensor) -> Tensor:
    """How far each score is above each of its references, r - R_m, [B, M]."""
    return scores[:, None] - refs


def standardised(scores: Tensor, running: Running) -> Tensor:
    """(r - mean) / deviation, [B]; a deviation of 0 divides by 1."""
    return (scores - running.mean) / (running.deviation or 1.0)


def clipped(scores: Tensor, running: Running) -> Tensor:
    """The score, at most a deviation from the mean, [B]."""
    return scores.clamp(running.mean - running.deviation, running.mean + running.deviation)


def ranged(scores: Tensor, running: Running) -> Tensor:
    """(r - least) / (largest - least), [B]; all 0 while all scores are equal."""
    return (scores - running.least) / ((running.largest - running.least) or 1.0)


def log_sigmoid(scores: Tensor, refs: Tensor, percentile: float) -> Tensor:
    """log sigma(r - q), [B], q the percentile of a normal distribution with the references' mean
    and standard deviation (over M - 1, plus 1e-5); LSC of Wang et al. 2024.
    """
    z = torch.special.ndtri(torch.tensor(percentile, dtype=torch.float64)).item()
    q = refs.mean(1) + z * (refs.std(1, correction=1) + 1e-5)
    return logsigmoid(scores - q)


def preference(scores: Tensor, refs: Tensor, k: float = 1.0) -> Tensor:
    """mean over m of sigma(k (r - R_m)), [B]: with k = 1 how probably, in the Bradley-Terry sense,
    the answer is preferred to a reference answer; PAR (Fu et al. 2025, arXiv 2502.18770).
    """
    return (k * margins(scores, refs)).sigmoid().mean(1)


def polynomial(margins: Tensor) -> Tensor:
    """The sigmoid's nearest polynomial of degree 5 within (-5, 5), 0 below and 1 above it."""
    curve = torch.zeros_like(margins)
    for coefficient in _nearest():
        curve = curve * margins + coefficient
    outside = (margins > 0).to(margins)
    return torch.where(margins.abs() < 5, curve, outside)


@cache
def _nearest() -> tuple[float, ...]:
    """Its coefficients, the highest first, by least squares on 100 points of [-5, 5]."""
    points = torch.linspace(-5, 5, 100, dtype=torch.float64)
    powers = torch.stack([points**power for power in range(5, -1, -1)], dim=1)
    found = torch.linalg.lstsq(powers, points.sigmoid()[:, None], driver="gelsd").solution
    return tuple(found[:, 0].tolist())
