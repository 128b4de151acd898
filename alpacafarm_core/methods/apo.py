"""Anchored Preference Optimisation; D'Oosterlinck et al. 2024 (arXiv 2408.06266).

APO-zero is for chosen responses better than the policy's own, APO-down for worse ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import Objective, PairLogps, Referenced, log_ratios
from alpacafarm_core.settings import BUDGET, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class APO(Objective, Method):
    """Say of each response by itself where it should go, not only of their gap."""

    sources: ClassVar[Mapping[str, str]] = {
        "beta": "D'Oosterlinck et al. 2024, section 5.2, as TRL lists it",
        "anchor": "D'Oosterlinck et al. 2024, section 4",
        "training.epochs": "one pass, ours",
        "training": "D'Oosterlinck et al. 2024, as TRL lists it",
    }

    name: Literal["apo"] = "apo"
    beta: float = Field(default=0.1, gt=0, description="Strength of the reference")
    anchor: Literal["zero", "down"] = Field(
        default="zero", description="Chosen up and rejected down, or both down"
    )
    training: Training = Field(
        default=Training(learning_rate=2e-7, epochs=1, batch=64),
        description="The paper's optimiser",
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model."""
        return cls() if scale == "paper" else cls(training=BUDGET)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train on the pairs; the reference is the policy the stage starts from."""
        return farm.train(start.policy, start.preferences, self)

    def loss(self, batch: PairLogps) -> Tensor:
        """The anchored loss, [B]."""
        return (apo_zero_loss if self.anchor == "zero" else apo_down_loss)(batch, self.beta)


def apo_zero_loss(logps: Referenced, beta: float) -> Tensor:
    """Zero: the chosen one more likely than under the reference, the rejected one less; section 4.

    1 - sigmoid(beta d_w) + sigmoid(beta d_l), where d is a response's log-ratio to the reference.
    Summed log-probabilities, each [B]; one loss per pair, [B].
    """
    chosen, rejected = log_ratios(logps)
    return 1 - (beta * chosen).sigmoid() + (beta * rejected).sigmoid()


def apo_down_loss(logps: Referenced, beta: float) -> Tensor:
    """Down: the chosen one less likely than under the reference, the rejected one even less.

    sigmoid(beta d_w) + 1 - sigmoid(beta (d_w - d_l)); shapes as above, [B].
    """
    chosen, rejected = log_ratios(logps)
    return (beta * chosen).sigmoid() + 1 - (beta * (chosen - rejected)).sigmoid()
