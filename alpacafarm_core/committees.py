"""Committees of reward models: how many are fitted, how they differ, how their scores become one.

Several models fitted alike agree where there were labels and differ where there were none, so a
committee is harder to fool than its members. Coste et al. 2024 (arXiv 2310.02743) take the mean,
the lowest, or the mean less a factor times the variance; here the last takes the spread, which has
the unit of a score. WARM (Rame et al. 2024, arXiv 2401.12187) makes one model of them instead.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from alpacafarm_core.errors import BadInput
from alpacafarm_core.values import Value

MOST = 32


class Verdict(Value):
    """How the scores of several reward models become one."""

    combine: Literal["mean", "lowest", "cautious"] = Field(
        default="mean", description="Cautious: mean less caution times spread"
    )
    caution: float = Field(default=1.0, ge=0, description="What a unit of spread costs")

    def of(self, scores: Sequence[float]) -> "Agreed":
        """One number of several, and their spread."""
        return agreed(scores, self)


class Agreed(NamedTuple):
    """What a committee says of one answer; the spread is 0 where it has one member."""

    score: float
    spread: float


def agreed(scores: Sequence[float], verdict: Verdict) -> Agreed:
    """The members' scores as one, with their sample standard deviation (divided by k - 1).

    mean(r), min(r), or mean(r) - caution * sd(r). Raises BadInput without any score.
    """
    if not scores:
        raise BadInput("a committee without members cannot judge; give it at least one")
    mean = math.fsum(scores) / len(scores)
    squares = math.fsum((score - mean) ** 2 for score in scores)
    spread = math.sqrt(squares / (len(scores) - 1)) if len(scores) > 1 else 0.0
    found = {"mean": mean, "lowest": min(scores), "cautious": mean - verdict.caution * spread}
    return Agreed(found[verdict.combine], spread)


class Seats(Value):
    """The folders of a committee's members, and how their scores become one."""

    folders: tuple[Path, ...]
    verdict: Verdict


Judges = Path | Seats
"""Where one reward model lies, or several."""


def folders_of(judges: Judges) -> tuple[Path, ...]:
    """Every folder; the first stands for all where only one can be used."""
    return judges.folders if isinstance(judges, Seats) else (judges,)


class Ensemble(Value):
    """Several reward models in place of one; they differ in their seeds, and in what is listed.

    Lists are gone through in turn, the first model first. `weights` averages the models themselves
    (WARM): then all begin with the same new head, since heads that begin apart stay apart.
    """

    members: int = Field(default=5, ge=2, le=MOST, description="Reward models fitted")
    combine: Literal["mean", "lowest", "cautious", "weights"] = Field(
        default="mean", description="Of scores, or of weights (WARM)"
    )
    caution: float = Field(default=1.0, ge=0, description="What a unit of spread costs")
    rates: tuple[float, ...] = Field(
        default=(), description="Learning rates in turn; none: all alike"
    )
    shares: tuple[float, ...] = Field(
        default=(), description="Shares of the pairs in turn; none: all"
    )

    @property
    def verdict(self) -> Verdict:
        """How scores become one; of averaged weights there is nothing to combine."""
        combine = "mean" if self.combine == "weights" else self.combine
        return Verdict(combine=combine, caution=self.caution)

    @model_validator(mode="after")
    def _in_bounds(self) -> Self:
        if any(rate <= 0 for rate in self.rates):
            raise ValueError(f"rates {self.rates}: a learning rate is more than 0")
        if any(not 0 < share <= 1 for share in self.shares):
            raise ValueError(f"shares {self.shares}: a share is more than 0 and at most 1")
        return self
