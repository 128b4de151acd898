"""Statistical rejection sampling optimisation (RSO); Liu et al. 2023 (arXiv 2309.06657).

The pairs come from the policy that DPO aims at, not from the SFT policy: answers are drawn often,
and kept so that they are distributed like that policy's. Accepted answers are paired as they come
(the paper's first-round rank). Where the paper samples among the 40 likeliest tokens, all are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.dpo import dpo_loss
from alpacafarm_core.methods.slic import hinge_loss
from alpacafarm_core.objective import Objective, PairLogps
from alpacafarm_core.settings import BUDGET, Fitting, Rejection, Sampling, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class Normalised(Objective):
    """A logistic regression or a support vector machine on the margin over the reference."""

    gamma: float = Field(default=0.05, gt=0, description="Scale of the margin")
    form: Literal["sigmoid", "hinge"] = Field(default="sigmoid", description="Shape of the loss")
    training: Training = Field(
        default=Training(learning_rate=1e-5, epochs=1, batch=32), description="RSO's recipe"
    )

    def loss(self, batch: PairLogps) -> Tensor:
        """Logistic or hinge loss on the scaled margin, [B]."""
        losses = {"sigmoid": rso_sigmoid_loss, "hinge": rso_hinge_loss}
        return losses[self.form](batch, self.gamma)


class RSO(Method):
    """Learn from pairs that are distributed as if the aim had drawn them."""

    sources: ClassVar[Mapping[str, str]] = {
        "sampling.max_tokens": "AlpacaFarm's longest answer",
        "sampling": "Liu et al. 2023: 64 answers at temperature 0.7, there of 40 tokens",
        "rejection.copies": "ours: the paper's listing has equal answers once",
        "rejection": "Liu et al. 2023",
        "fitting": "AlpacaFarm's reward model recipe",
        "objective.gamma": "Liu et al. 2023",
        "objective.form": "Liu et al. 2023: sigmoid-norm",
        "objective.training.epochs": "ours: the paper picks a checkpoint",
        "objective.training": "Liu et al. 2023, there with Adafactor and T5",
    }

    name: Literal["rso"] = "rso"
    sampling: Sampling = Field(
        default=Sampling(n=64, temperature=0.7), description="How answers are drawn"
    )
    rejection: Rejection = Field(default=Rejection(), description="Which answers are accepted")
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    objective: Normalised = Field(default=Normalised(), description="How pairs are learned from")

    @model_validator(mode="after")
    def _rejects(self) -> Self:
        if self.rejection.keep >= self.sampling.n:
            raise ValueError(
                f"rejection.keep {self.rejection.keep} of sampling.n {self.sampling.n} rejects "
                "nothing; lower rejection.keep or raise sampling.n"
            )
        self.sampling.must_differ(2)
        return self

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or one pair of eight answers a prompt for the tiny model."""
        if scale == "paper":
            return cls()
        return cls(
            sampling=Sampling(n=8, temperature=0.7, max_tokens=24 if scale == "smoke" else 72),
            rejection=Rejection(keep=2),
            fitting=Fitting.at(scale),
            objective=Normalised(gamma=0.1, training=BUDGET),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Fit the reward model, keep answers by rejection sampling, train on pairs of them."""
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        answers = farm.generate(start.policy, start.instructions, self.sampling)
        pairs = farm.rank(farm.score(answers, reward), self.rejection)
        return farm.train(start.policy, pairs, self.objective)


def rso_sigmoid_loss(logps: PairLogps, gamma: float) -> Tensor:
    """Logistic loss on the margin over the reference ("sigmoid-norm").

    -log sigmoid(gamma h), h the margin. Summed log-probabilities, each [B]; one loss a pair, [B].
    """
    return dpo_loss(logps, gamma)


def rso_hinge_loss(logps: PairLogps, gamma: float) -> Tensor:
    """Hinge loss on the margin over the reference ("hinge-norm").

    max(0, 1 - gamma h), h the margin. Summed log-probabilities, each [B]; one loss a pair, [B].
    """
    return hinge_loss(logps, gamma)
