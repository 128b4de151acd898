"""Binary Classifier Optimisation, for pairs; Jung et al. 2024 (arXiv 2404.04656).

The shift of the rewards is their mean over the steps before, not with the step's own batch. Left
out: the paper's density ratio, which is for good and bad responses to different prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import CarriedLogps, Objective, Past, log_ratios, logsigmoid
from alpacafarm_core.settings import BUDGET, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class BCO(Objective, Method):
    """Classify responses into good and bad by their implicit rewards."""

    sources: ClassVar[Mapping[str, str]] = {
        "beta": "Jung et al. 2024, appendix C, as TRL lists it",
        "training.epochs": "one pass, ours",
        "training": "Jung et al. 2024, appendix C, as TRL lists it",
    }

    name: Literal["bco"] = "bco"
    beta: float = Field(default=0.01, gt=0, description="Strength of the reference")
    training: Training = Field(
        default=Training(learning_rate=5e-7, epochs=1, batch=128),
        description="The paper's optimiser",
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model."""
        return cls() if scale == "paper" else cls(training=BUDGET)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train on the pairs; the reference is the policy the stage starts from."""
        return farm.train(start.policy, start.preferences, self)

    def loss(self, batch: CarriedLogps) -> Tensor:
        """Binary cross-entropy of the shifted rewards, [B]."""
        return bco_loss(batch, self.beta)

    def carry(self, past: Past) -> float:
        """Mean reward of all responses of the steps before; 0 before the first."""
        rows = sum(step["rows"] for step in past.figures)
        ratios = sum(
            step["rows"] * (step["chosen"] + step["rejected"]) / 2 for step in past.figures
        )
        return self.beta * ratios / rows if rows else 0.0


def bco_loss(logps: CarriedLogps, beta: float) -> Tensor:
    """Binary cross-entropy of chosen against rejected, from rewards less their mean; section 4.

    -log sigmoid(beta d_w - delta) - log sigmoid(-(beta d_l - delta)), where d is a response's
    log-ratio to the reference and delta, `carried`, the mean reward so far. All fields [B]; one
    loss per pair, [B].
    """
    chosen, rejected = (beta * ratio - logps.carried for ratio in log_ratios(logps))
    return -logsigmoid(chosen) - logsigmoid(-rejected)
