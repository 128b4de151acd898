"""Direct Preference Optimisation; Rafailov et al. 2023 (arXiv 2305.18290)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import Objective, PairLogps, Referenced, logsigmoid, margin_of
from alpacafarm_core.settings import BUDGET, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class DPO(Objective, Method):
    """Fit the policy to preferences directly, against the policy it starts from."""

    sources: ClassVar[Mapping[str, str]] = {
        "beta": "Rafailov et al. 2023; AlpacaFarm",
        "training": "AlpacaFarm's DPO recipe",
    }

    name: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0, description="Strength of the reference")
    training: Training = Field(
        default=Training(learning_rate=1e-6, epochs=2, batch=64),
        description="AlpacaFarm's DPO recipe",
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """AlpacaFarm's settings, or those of the built-in world's tiny model."""
        if scale == "paper":
            return cls()
        return cls(training=BUDGET)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train on the pairs; the reference is the policy the stage starts from."""
        return farm.train(start.policy, start.preferences, self)

    def loss(self, batch: PairLogps) -> Tensor:
        """Logistic loss on the implicit reward margin, [B]."""
        return dpo_loss(batch, self.beta)


def dpo_loss(logps: Referenced, beta: float) -> Tensor:
    """Logistic loss on the margin by which the policy out-prefers the reference; eq. 7.

    Takes summed log-probabilities, each [B]; returns one loss per pair, [B].
    """
    return -logsigmoid(beta * margin_of(logps))
