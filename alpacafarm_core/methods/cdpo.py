"""Conservative DPO; Mitchell 2023 ("A note on DPO with noisy preferences", no arXiv number)."""

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


class CDPO(Objective, Method):
    """DPO for labels of which a known share is wrong: never be more certain than that."""

    sources: ClassVar[Mapping[str, str]] = {
        "beta": "AlpacaFarm's DPO recipe",
        "epsilon": "usual value; the note leaves it open",
        "training": "AlpacaFarm's DPO recipe; the note has no runs",
    }

    name: Literal["cdpo"] = "cdpo"
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
        """Cross-entropy with a smoothed label, [B]."""
        return cdpo_loss(batch, self.beta, self.epsilon)


def cdpo_loss(logps: Referenced, beta: float, epsilon: float | Tensor) -> Tensor:
    """DPO's loss of the label and of its opposite, by how probable each is.

    -(1 - epsilon) log sigmoid(beta h) - epsilon log sigmoid(-beta h), where h is the margin over
    the reference. Summed log-probabilities, each [B]; epsilon a number or [B]; one loss per pair,
    [B].
    """
    margin = beta * margin_of(logps)
    return -(1 - epsilon) * logsigmoid(margin) - epsilon * logsigmoid(-margin)
