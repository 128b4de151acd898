"""Provably robust DPO (rDPO); Chowdhury et al. 2024 (arXiv 2403.00409)."""

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


class RobustDPO(Objective, Method):
    """DPO with the effect of a known share of wrong labels taken out of its loss."""

    sources: ClassVar[Mapping[str, str]] = {
        "beta": "AlpacaFarm's DPO recipe; the paper's GPT-2 takes 0.01",
        "epsilon": "Chowdhury et al. 2024, section 6, as TRL lists it",
        "training": "AlpacaFarm's DPO recipe; the paper trains GPT-2",
    }

    name: Literal["robust_dpo"] = "robust_dpo"
    beta: float = Field(default=0.1, gt=0, description="Strength of the reference")
    epsilon: float = Field(default=0.1, ge=0, lt=0.5, description="Share of wrong labels")
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
        """An estimate of DPO's loss on the right labels, [B]."""
        return robust_dpo_loss(batch, self.beta, self.epsilon)


def robust_dpo_loss(logps: Referenced, beta: float, epsilon: float) -> Tensor:
    """DPO's loss as it would be on the right labels, in expectation over the wrong ones; section 3.

    (-(1 - epsilon) log sigmoid(beta h) + epsilon log sigmoid(-beta h)) / (1 - 2 epsilon), where h
    is the margin over the reference. Summed log-probabilities, each [B]; one loss per pair, [B].
    """
    margin = beta * margin_of(logps)
    kept = (1 - epsilon) * logsigmoid(margin) - epsilon * logsigmoid(-margin)
    return -kept / (1 - 2 * epsilon)
