"""Simple Preference Optimisation; Meng et al. 2024 (arXiv 2405.14734)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import MeanLogps, Objective, TripleLogps, logsigmoid, mean_logps
from alpacafarm_core.settings import BUDGET, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class SimPO(Objective, Method):
    """Separate the mean log-probabilities of the two responses by a margin, with no reference."""

    sources: ClassVar[Mapping[str, str]] = {
        "beta": "Meng et al. 2024, Llama-3-Base; the authors' script",
        "gamma": "Meng et al. 2024, Llama-3-Base; the authors' script",
        "training": "Meng et al. 2024, Llama-3-Base; the authors' script",
    }

    name: Literal["simpo"] = "simpo"
    beta: float = Field(default=2.0, gt=0, description="Scale of the mean log-probabilities")
    gamma: float = Field(default=1.0, ge=0, description="Margin aimed at, not divided by beta")
    training: Training = Field(
        default=Training(learning_rate=6e-7, epochs=1, batch=128, warmup=0.1),
        description="The paper's optimiser",
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model."""
        return cls() if scale == "paper" else cls(training=BUDGET)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train the SFT policy on the pairs; there is no reference."""
        return farm.train(start.policy, start.preferences, self)

    def loss(self, batch: MeanLogps) -> Tensor:
        """Logistic loss on the gap of the means, [B]."""
        return simpo_loss(batch, self.beta, self.gamma)


def simpo_loss(logps: MeanLogps | TripleLogps, beta: float, gamma: float) -> Tensor:
    """Logistic loss on the gap of the mean log-probabilities less a margin; eq. 6.

    -log sigmoid(beta (a_w - a_l) - gamma), where a is a response's log-probability by its tokens.
    Summed log-probabilities and lengths, each [B]; one loss per pair, [B].
    """
    chosen, rejected = mean_logps(logps)
    return -logsigmoid(beta * (chosen - rejected) - gamma)
