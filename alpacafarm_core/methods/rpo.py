"""DPO with a likelihood term (RPO); Pang et al. 2024 (arXiv 2404.19733).

Left out: the paper's rounds of sampling, and its mean over each response; as in TRL the likelihood
is averaged over all chosen tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.dpo import dpo_loss
from alpacafarm_core.objective import LengthLogps, Objective
from alpacafarm_core.settings import BUDGET, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class RPO(Objective, Method):
    """DPO that also imitates the chosen responses, so that they do not become less likely."""

    sources: ClassVar[Mapping[str, str]] = {
        "beta": "Pang et al. 2024, section 3",
        "alpha": "Pang et al. 2024, section 3",
        "training.epochs": "one pass; the paper counts steps",
        "training": "Pang et al. 2024, section 3",
    }

    name: Literal["rpo"] = "rpo"
    beta: float = Field(default=0.1, gt=0, description="Strength of the reference")
    alpha: float = Field(default=1.0, ge=0, description="Weight of imitating the chosen")
    training: Training = Field(
        default=Training(learning_rate=7e-7, epochs=1, batch=16),
        description="The paper's optimiser",
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model."""
        return cls() if scale == "paper" else cls(training=BUDGET)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train on the pairs; the reference is the policy the stage starts from."""
        return farm.train(start.policy, start.preferences, self)

    def loss(self, batch: LengthLogps) -> Tensor:
        """DPO's loss and the cross-entropy of the chosen tokens, [B]."""
        return rpo_loss(batch, self.beta, self.alpha)


def rpo_loss(logps: LengthLogps, beta: float, alpha: float) -> Tensor:
    """DPO's loss plus alpha times the chosen tokens' cross-entropy; eq. 1.

    -log sigmoid(beta h) - alpha l_w / n: h is the margin over the reference, l_w the chosen
    response's log-probability and n the batch's mean chosen length, so that the mean over the batch
    is one over its chosen tokens. All fields [B]; one loss per pair, [B].
    """
    return dpo_loss(logps, beta) - alpha * logps.chosen / logps.mean_chosen_length
