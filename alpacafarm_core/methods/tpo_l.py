"""TPO-L, triple preference optimisation with lengths taken out; Saeidi et al. 2024 (arXiv
2405.16681).

As TPO, with log-probabilities a token in the contrast and a margin it is to exceed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.tpo import PAPERS, TRIPLES, cross_entropy_of_gold, smoothed, triples_of
from alpacafarm_core.objective import Objective, TripleLogps, mean_logps
from alpacafarm_core.settings import BUDGET, Fitting, Sampling, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class TripleByLength(Objective):
    """Imitate the gold answer, and prefer the chosen to the rejected one token by token."""

    beta: float = Field(default=2.0, gt=0, description="Scale of the log-probabilities")
    gamma: float = Field(default=1.6, ge=0, description="Margin aimed at, after scaling")
    alpha: float = Field(default=0.05, ge=0, description="Weight of imitating the gold answer")
    smoothing: float = Field(
        default=0.0, ge=0, le=0.5, description="Share of labels taken for wrong"
    )
    training: Training = Field(default=PAPERS, description="TPO's recipe for base models")

    def loss(self, batch: TripleLogps) -> Tensor:
        """Contrast of the pair plus the cross-entropy of the gold tokens, [B]."""
        return tpo_l_loss(batch, self)


class TPOL(Method):
    """TPO whose contrast does not depend on how long the answers are."""

    sources: ClassVar[Mapping[str, str]] = {
        "sampling": "ours: the paper's answers come from a data set",
        "fitting": "AlpacaFarm's reward model recipe",
        "objective.smoothing": "the authors' code: off",
        "objective.training.batch": "ours: not found",
        "objective.training": "the authors' settings for base models",
        "objective": "the authors' settings for Mistral-7B-v0.3",
    }

    name: Literal["tpo_l"] = "tpo_l"
    sampling: Sampling = Field(
        default=Sampling(n=4, temperature=1.0), description="How answers are drawn"
    )
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    objective: TripleByLength = Field(
        default=TripleByLength(), description="How triples are learned from"
    )

    @model_validator(mode="after")
    def _has_answers_to_rank(self) -> Self:
        self.sampling.must_differ(TRIPLES.least)
        return self

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or SFT's learning rate and weight of imitation for the tiny
        model.
        """
        if scale == "paper":
            return cls()
        training = BUDGET.replace(learning_rate=5e-4)
        return cls(
            sampling=Sampling(n=4, temperature=0.7, max_tokens=24 if scale == "smoke" else 72),
            fitting=Fitting.at(scale),
            objective=TripleByLength(alpha=1.0, training=training),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Rank answers of the SFT policy into triples; train the base policy on them."""
        triples = triples_of(farm, start, self.sampling, self.fitting)
        return farm.train(start.base, triples, self.objective)


def tpo_l_loss(logps: TripleLogps, settings: TripleByLength) -> Tensor:
    """Logistic loss on the gap of the means, less a margin, plus the gold tokens' cross-entropy.

    -log sigmoid(beta (a_w - a_l) - gamma) - alpha l_g / n: a are log-probabilities a token, l_g is
    the gold's sum, n the batch's mean gold length. All fields [B]; one loss per triple, [B].
    """
    chosen, rejected = mean_logps(logps)
    margin = settings.beta * (chosen - rejected) - settings.gamma
    return smoothed(margin, settings.smoothing) + settings.alpha * cross_entropy_of_gold(logps)
