"""Sequence likelihood calibration (SLiC-HF); Zhao et al. 2023 (arXiv 2305.10425).

The hinge is on the margin over the reference, as in the comparison of RSO (arXiv 2309.06657), whose
normalised hinge is the same with another beta. Left out: the paper's cross-entropy on SFT targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import Objective, PairLogps, Referenced, margin_of
from alpacafarm_core.settings import BUDGET, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class SLiC(Objective, Method):
    """Learn from the pairs whose margin is still too small, and from no others."""

    sources: ClassVar[Mapping[str, str]] = {
        "beta": "TRL's default for its hinge",
        "training": "AlpacaFarm's DPO recipe; the paper trains T5",
    }

    name: Literal["slic"] = "slic"
    beta: float = Field(default=0.1, gt=0, description="One over the margin aimed at")
    training: Training = Field(
        default=Training(learning_rate=1e-6, epochs=2, batch=64),
        description="AlpacaFarm's DPO recipe",
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """AlpacaFarm's optimiser, or those of the built-in world's tiny model."""
        return cls() if scale == "paper" else cls(training=BUDGET)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train on the pairs; the reference is the policy the stage starts from."""
        return farm.train(start.policy, start.preferences, self)

    def loss(self, batch: PairLogps) -> Tensor:
        """Hinge on the implicit reward margin, [B]."""
        return hinge_loss(batch, self.beta)


def hinge_loss(logps: Referenced, beta: float) -> Tensor:
    """What the margin lacks of one: max(0, 1 - beta h); section 2.

    h is the margin over the reference. Summed log-probabilities, each [B]; one loss per pair, [B].
    """
    return (1 - beta * margin_of(logps)).clamp(min=0)
