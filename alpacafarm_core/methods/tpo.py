"""Triple Preference Optimisation (TPO); Saeidi et al. 2024 (arXiv 2405.16681).

One stage from the base model in place of SFT and DPO. The paper's triples are rated answers of a
data set; here they are answers of the SFT policy, ranked by a reward model: the best one is
imitated, the second is preferred to the worst.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.artifacts import Ranked
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import Objective, TripleLogps, logsigmoid, mean_logps
from alpacafarm_core.settings import BUDGET, Fitting, Ranking, Sampling, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor

TRIPLES = Ranking(gold=1, chosen=2, rejected=-1)
PAPERS = Training(learning_rate=5e-7, epochs=1, batch=128, warmup=0.1, max_length=1024)


class Triple(Objective):
    """Imitate the gold answer, and prefer the chosen to the rejected one."""

    beta: float = Field(default=0.01, gt=0, description="Scale of the log-probabilities")
    alpha: float = Field(default=1.0, ge=0, description="Weight of imitating the gold answer")
    form: Literal["sigmoid", "hinge", "ipo"] = Field(
        default="sigmoid", description="Shape of the contrast; ipo on means"
    )
    smoothing: float = Field(
        default=0.0, ge=0, le=0.5, description="Share of labels taken for wrong"
    )
    training: Training = Field(default=PAPERS, description="TPO's recipe for base models")

    def loss(self, batch: TripleLogps) -> Tensor:
        """Contrast of the pair plus the cross-entropy of the gold tokens, [B]."""
        match self.form:
            case "sigmoid":
                return tpo_loss(batch, self.beta, self.alpha, self.smoothing)
            case "hinge":
                return tpo_hinge_loss(batch, self.beta, self.alpha)
            case "ipo":
                return tpo_ipo_loss(batch, self.beta, self.alpha)


class TPO(Method):
    """From the base model in one step: imitate the best answer, contrast two others."""

    sources: ClassVar[Mapping[str, str]] = {
        "sampling": "ours: the paper's answers come from a data set",
        "fitting": "AlpacaFarm's reward model recipe",
        "objective.smoothing": "the authors' code: off",
        "objective.training.batch": "ours: not found",
        "objective.training": "the authors' settings for base models",
        "objective": "the authors' settings for base models",
    }

    name: Literal["tpo"] = "tpo"
    sampling: Sampling = Field(
        default=Sampling(n=4, temperature=1.0), description="How answers are drawn"
    )
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    objective: Triple = Field(default=Triple(), description="How triples are learned from")

    @model_validator(mode="after")
    def _has_answers_to_rank(self) -> Self:
        self.sampling.must_differ(TRIPLES.least)
        return self

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or SFT's learning rate and more contrast for the tiny model."""
        if scale == "paper":
            return cls()
        training = BUDGET.replace(learning_rate=5e-4)
        return cls(
            sampling=Sampling(n=4, temperature=0.7, max_tokens=24 if scale == "smoke" else 72),
            fitting=Fitting.at(scale),
            objective=Triple(beta=0.1, training=training),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Rank answers of the SFT policy into triples; train the base policy on them."""
        triples = triples_of(farm, start, self.sampling, self.fitting)
        return farm.train(start.base, triples, self.objective)


def triples_of(farm: Farm, start: Start, sampling: Sampling, fitting: Fitting) -> Ranked:
    """Of every prompt the best answer as gold, the second over the worst as pair."""
    reward = farm.fit_reward(start.policy, start.preferences, fitting)
    answers = farm.generate(start.policy, start.instructions, sampling)
    return farm.rank(farm.score(answers, reward), TRIPLES)


def tpo_loss(logps: TripleLogps, beta: float, alpha: float, smoothing: float = 0.0) -> Tensor:
    """Logistic loss on the gap of the log-probabilities, plus the gold tokens' cross-entropy.

    -log sigmoid(beta (l_w - l_l)) - alpha l_g / n: l are summed log-probabilities, n is the batch's
    mean gold length, so that the mean over the batch is one over its gold tokens. With smoothing
    the opposite label counts that much. All fields [B]; one loss per triple, [B].
    """
    margin = beta * (logps.chosen - logps.rejected)
    return smoothed(margin, smoothing) + alpha * cross_entropy_of_gold(logps)


def tpo_hinge_loss(logps: TripleLogps, beta: float, alpha: float) -> Tensor:
    """As `tpo_loss` with the contrast max(0, 1 - beta (l_w - l_l))."""
    margin = beta * (logps.chosen - logps.rejected)
    return (1 - margin).clamp(min=0) + alpha * cross_entropy_of_gold(logps)


def tpo_ipo_loss(logps: TripleLogps, beta: float, alpha: float) -> Tensor:
    """As `tpo_loss` with the contrast (a_w - a_l - 1 / (2 beta))^2 on log-probabilities a token."""
    chosen, rejected = mean_logps(logps)
    return (chosen - rejected - 1 / (2 * beta)) ** 2 + alpha * cross_entropy_of_gold(logps)


def smoothed(margin: Tensor, smoothing: float) -> Tensor:
    """-(1 - s) log sigmoid(m) - s log sigmoid(-m), any shape."""
    return -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)


def cross_entropy_of_gold(logps: TripleLogps) -> Tensor:
    """Each gold response's share of the mean over the batch's gold tokens, [B]."""
    return -logps.gold / logps.mean_gold_length
