"""Contrastive Preference Optimisation; Xu et al. 2024 (arXiv 2401.08417).

The likelihood term is averaged over all chosen tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import ContrastLogps, Objective, logsigmoid
from alpacafarm_core.settings import BUDGET, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class CPO(Objective, Method):
    """DPO with a uniform reference, and imitation of the chosen responses."""

    sources: ClassVar[Mapping[str, str]] = {
        "beta": "Xu et al. 2024; the authors' script",
        "alpha": "Xu et al. 2024",
        "training.epochs": "Xu et al. 2024; the authors' script",
        "training": "AlpacaFarm's DPO recipe; the paper trains translators' adapters",
    }

    name: Literal["cpo"] = "cpo"
    beta: float = Field(default=0.1, gt=0, description="Scale of the log-probabilities")
    alpha: float = Field(default=1.0, ge=0, description="Weight of imitating the chosen")
    training: Training = Field(
        default=Training(learning_rate=1e-6, epochs=1, batch=64),
        description="AlpacaFarm's DPO recipe, one pass",
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model."""
        return cls() if scale == "paper" else cls(training=BUDGET)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train the SFT policy on the pairs; there is no reference."""
        return farm.train(start.policy, start.preferences, self)

    def loss(self, batch: ContrastLogps) -> Tensor:
        """Logistic loss on the gap, and the cross-entropy of the chosen tokens, [B]."""
        return cpo_loss(batch, self.beta, self.alpha)


def cpo_loss(logps: ContrastLogps, beta: float, alpha: float) -> Tensor:
    """Logistic loss on the gap of the log-probabilities, plus the chosen tokens' cross-entropy.

    -log sigmoid(beta (l_w - l_l)) - alpha l_w / n: l_w and l_l are summed log-probabilities, n the
    batch's mean chosen length, so that the mean over the batch is one over its chosen tokens. All
    fields [B]; one loss per pair, [B].
    """
    contrast = -logsigmoid(beta * (logps.chosen - logps.rejected))
    return contrast - alpha * logps.chosen / logps.mean_chosen_length
