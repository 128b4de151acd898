"""Kahneman-Tversky Optimisation; Ethayarajh et al. 2024 (arXiv 2402.01306).

A pair is two responses, one good and one bad, each with a loss of its own. The reference point is
estimated from chosen responses moved to other prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import Objective, UnpairedLogps, log_ratios
from alpacafarm_core.settings import BUDGET, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class KTO(Objective, Method):
    """Make good responses better and bad ones worse than the policy is on average."""

    sources: ClassVar[Mapping[str, str]] = {
        "beta": "Ethayarajh et al. 2024; the authors' script",
        "desirable": "Ethayarajh et al. 2024; the authors' script",
        "undesirable": "Ethayarajh et al. 2024; the authors' script",
        "training.batch": "the authors' 32 responses a step",
        "training": "the authors' script",
    }

    name: Literal["kto"] = "kto"
    beta: float = Field(default=0.1, gt=0, description="Strength of the reference")
    desirable: float = Field(default=1.0, ge=0, description="Weight of good responses")
    undesirable: float = Field(default=1.0, ge=0, description="Weight of bad responses")
    training: Training = Field(
        default=Training(learning_rate=5e-6, epochs=1, batch=16),
        description="The authors' optimiser",
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model."""
        return cls() if scale == "paper" else cls(training=BUDGET)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train on the pairs; the reference is the policy the stage starts from."""
        return farm.train(start.policy, start.preferences, self)

    def loss(self, batch: UnpairedLogps) -> Tensor:
        """Mean of the weighted losses of both sides, [B]."""
        return kto_loss(batch, self.beta, self.desirable, self.undesirable)


def kto_loss(
    logps: UnpairedLogps, beta: float, desirable: float = 1.0, undesirable: float = 1.0
) -> Tensor:
    """What each response lacks of its greatest value, the mean of both; eq. 8.

    Good: desirable * (1 - sigmoid(beta (d_w - z))); bad: undesirable * (1 - sigmoid(beta (z -
    d_l))). d is a response's log-ratio to the reference, z = max(0, `mismatch_kl`) the policy's
    mean log-ratio on responses to other prompts, without gradient. All fields [B]; one loss per
    pair, [B].
    """
    good, bad = kto_sides(logps, beta)
    return (desirable * good + undesirable * bad) / 2


def kto_sides(logps: UnpairedLogps, beta: float) -> tuple[Tensor, Tensor]:
    """The losses of the good and of the bad response without their weights, each [B]."""
    chosen, rejected = log_ratios(logps)
    point = logps.mismatch_kl.detach().clamp(min=0)
    return 1 - (beta * (chosen - point)).sigmoid(), 1 - (beta * (point - rejected)).sigmoid()
