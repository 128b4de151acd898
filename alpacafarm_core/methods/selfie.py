"""Spread Preference Annotation, first posted as Selfie; Kim et al. 2024 (arXiv 2406.04412).

A policy trained on few labels holds a reward: how much likelier an answer has become since the SFT
model. It labels the policy's own answers, whose labels are trusted less where extrapolating beyond
the policy does not bear them out. The SFT model stays the judge's reference in every round, while
the reference of training is the policy each round starts from. The paper's released configuration
leaves extrapolation off (0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.cdpo import cdpo_loss
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.objective import MixedLogps, Objective, Past, margin_of
from alpacafarm_core.settings import BUDGET, Ranking, Sampling, Scale, Training
from alpacafarm_core.weights import Implicit, Policy

if TYPE_CHECKING:
    from torch import Tensor

NEVER = -1e6
"""A threshold, in nats, below every margin: nothing is suspect."""


class Doubting(Objective):
    """DPO that believes a label less where a policy extrapolated by this step disagrees."""

    beta: float = Field(default=0.1, gt=0, description="Strength of the reference")
    smoothing: float = Field(default=0.1, ge=0, le=0.5, description="Doubt of a suspect label")
    suspects: float = Field(default=0.1, ge=0, le=0.9, description="Share of labels in doubt")
    window: int = Field(default=50, ge=2, description="Steps the threshold looks back")
    trusting: float = Field(default=0.2, ge=0, le=1, description="Share of steps without doubt")
    extrapolation: float = Field(
        default=0.5, ge=0, description="Beyond the policy; halves each round"
    )
    training: Training = Field(
        default=Training(learning_rate=5e-7, epochs=1, batch=32, warmup=0.1, max_length=2048),
        description="Optimiser of a round",
    )

    def loss(self, batch: MixedLogps) -> Tensor:
        """Logistic loss with the labels of suspects smoothed, [B]."""
        return selfie_loss(batch, self.beta, self.smoothing)

    def carry(self, past: Past) -> float:
        """Margin, in nats, up to which a pair is suspect."""
        if not self.suspects or len(past.figures) < self.trusting * past.steps:
            return NEVER
        margins = [figures["mixed_margin"] for figures in past.figures]
        return threshold(margins, self.suspects, self.window)

    def mix(self) -> float:
        """How far beyond the policy, seen from the reference."""
        return self.extrapolation


class Selfie(Method):
    """Learn from few labels, then label one's own answers by what was learned."""

    sources: ClassVar[Mapping[str, str]] = {
        "one_in": "Kim et al. 2024: 2k of 61k pairs, 3.3%",
        "rounds": "Kim et al. 2024: three; the released script runs two",
        "slices": "ours: AlpacaFarm's prompts in three; the paper's grow from 8k to 30k",
        "sampling": "Kim et al. 2024, released code",
        "ranking": "Kim et al. 2024: the better of two over the worse",
        "seeding": "Kim et al. 2024, released code",
        "refining": "Kim et al. 2024, released code",
        "refining.extrapolation": "Kim et al. 2024: 1/2, 1/4, 1/8; the released configuration: 0",
    }

    name: Literal["selfie"] = "selfie"
    one_in: int = Field(default=30, ge=1, description="One label of so many is used")
    seed: int = Field(default=0, ge=0, description="Which labels those are")
    rounds: int = Field(default=3, ge=1, description="Times to answer, label and learn")
    slices: int = Field(default=3, ge=1, description="Parts of the prompts, one a round")
    sampling: Sampling = Field(
        default=Sampling(n=2, temperature=0.7), description="How answers are drawn"
    )
    ranking: Ranking = Field(default=Ranking(), description="Which answers make a pair")
    seeding: DPO = Field(
        default=DPO(
            training=Training(learning_rate=5e-7, epochs=3, batch=32, warmup=0.1, max_length=2048)
        ),
        description="Training on the labels",
    )
    refining: Doubting = Field(default=Doubting(), description="Training on one's own labels")

    @model_validator(mode="after")
    def _has_answers_to_rank(self) -> Self:
        self.sampling.must_differ(self.ranking.least)
        return self

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model."""
        if scale == "paper":
            return cls()
        is_smoke = scale == "smoke"
        return cls(
            one_in=3 if is_smoke else 30,
            rounds=2 if is_smoke else 3,
            sampling=Sampling(n=2, temperature=0.7, max_tokens=24 if is_smoke else 72),
            seeding=DPO(training=BUDGET.replace(epochs=3)),
            refining=Doubting(window=10, training=BUDGET),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train on few labels; each round, answer twice, prefer what has grown likelier since the
        SFT model, and train on that with doubt.
        """
        seeds = farm.labels(start.preferences, 1 + self.seed % self.one_in, self.one_in)
        policy = farm.train(start.policy, seeds, self.seeding)
        for number in range(self.rounds):
            prompts = farm.share(start.instructions, 1 + number % self.slices, self.slices)
            answers = farm.generate(policy, prompts, self.sampling)
            scored = farm.score(answers, Implicit(policy=policy, reference=start.policy))
            policy = farm.train(policy, farm.rank(scored, self.ranking), self.doubting(number))
        return policy

    def doubting(self, number: int) -> Doubting:
        """The objective of a round, the first being 0: extrapolation halves from round to round."""
        return self.refining.replace(extrapolation=self.refining.extrapolation / 2**number)


def selfie_loss(logps: MixedLogps, beta: float, smoothing: float) -> Tensor:
    """Logistic loss on the implicit margin, turned round by `smoothing` where a pair is suspect.

    L = -(1 - a z) log s(b h) - a z log s(-b h), with h the margin of policy over reference, a the
    smoothing, b beta, and z 1 where the margin of the mixed policy (1 + l) policy - l reference is
    at most the threshold `carried`, else 0, without gradient; section 4.2. Takes summed
    log-probabilities in nats, each [B]; returns one loss per pair, [B].
    """
    mixed = margin_of(logps._replace(chosen=logps.mixed_chosen, rejected=logps.mixed_rejected))
    doubt = smoothing * (mixed <= logps.carried).to(mixed.dtype).detach()
    return cdpo_loss(logps, beta, doubt)


def threshold(margins: list[float], share: float, window: int) -> float:
    """The margin below which about that share of the last `window` margins lie; 0 before so many.

    It lies half-way between two of them in order: for a share of 0.1 of 50, the sixth and seventh.
    """
    if len(margins) < window:
        return 0.0
    last, at = sorted(margins[-window:]), min(round(share * window), window - 1)
    return (last[at] + last[min(at + 1, window - 1)]) / 2
