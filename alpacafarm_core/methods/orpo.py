"""Odds Ratio Preference Optimisation; Hong et al. 2024 (arXiv 2403.07691).

It takes the place of SFT, so it starts from the base model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import MeanLogps, Objective, log_odds, logsigmoid, mean_logps
from alpacafarm_core.settings import BUDGET, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class ORPO(Objective, Method):
    """Imitate the chosen responses and make their odds better than those of the rejected."""

    sources: ClassVar[Mapping[str, str]] = {
        "lam": "Hong et al. 2024; the authors' Mistral script",
        "training": "the authors' Mistral script, but for its schedule",
    }

    name: Literal["orpo"] = "orpo"
    lam: float = Field(default=0.1, ge=0, description="Weight of the odds ratio")
    training: Training = Field(
        default=Training(learning_rate=5e-6, epochs=5, batch=32),
        description="The authors' optimiser",
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model."""
        return cls() if scale == "paper" else cls(training=BUDGET)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train the base policy on the pairs: no SFT stage before, and no reference."""
        return farm.train(start.base, start.preferences, self)

    def loss(self, batch: MeanLogps) -> Tensor:
        """Cross-entropy of the chosen response, and the odds ratio's loss, [B]."""
        return orpo_loss(batch, self.lam)


def orpo_loss(logps: MeanLogps, lam: float) -> Tensor:
    """The chosen response's mean cross-entropy plus lam times the odds ratio's loss; eq. 6.

    -a_w + lam * (-log sigmoid(o(a_w) - o(a_l))), where a is a response's log-probability by its
    tokens and o(a) = a - log(1 - e^a) the log-odds. Summed log-probabilities and lengths, each
    [B]; one loss per pair, [B].
    """
    return -mean_logps(logps)[0] + lam * odds_ratio_loss(logps)


def odds_ratio_loss(logps: MeanLogps) -> Tensor:
    """Logistic loss on the log of the two responses' odds ratio; eq. 7.

    -log sigmoid(o(a_w) - o(a_l)), shapes as above; [B].
    """
    chosen, rejected = mean_logps(logps)
    return -logsigmoid(log_odds(chosen) - log_odds(rejected))
