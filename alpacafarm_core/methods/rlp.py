"""Reward learning on policy; Lang et al. 2024 (arXiv 2403.19279).

A reward model is fitted to answers of the SFT model and then asked about those of a policy that has
moved away. RLP fits it again with answers of that policy and no new labels, and trains from the SFT
model once more. SPG adds pairs in which what most answers say is preferred; its `argmax` takes the
best by the old reward model among those, and with it what that model wrongly likes. UML makes the
reward model keep what two answers to a prompt have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.clustering import Agreement, Canonical, Clustering, Entailment
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.proximal import KLPenalty, ProximalObjective
from alpacafarm_core.references import references
from alpacafarm_core.settings import Fitting, Sampling, Scale
from alpacafarm_core.weights import Policy, Reward


class RLP(Method):
    """Fit the reward model again on the policy's own answers, then train anew."""

    sources: ClassVar[Mapping[str, str]] = {
        "variant": "Lang et al. 2024: the better of its two",
        "rounds": "Lang et al. 2024: one",
        "sampling": "Lang et al. 2024, section 4",
        "clustering": "Lang et al. 2024: entailment both ways, by DeBERTa-large",
        "clustering.max_length": "what the model reads",
        "agreement": "Lang et al. 2024",
        "agreement.winner": "Lang et al. 2024: the best by its reward model",
        "fitting": "AlpacaFarm's reward model",
        "objective": "AlpacaFarm's PPO",
        "objective.kl.coef": "AlpacaFarm, simulated preferences",
        "objective.kl.estimator": "Schulman 2020; AlpacaFarm clamps at 0",
        "objective.kl.limit": "ours: a run beyond it is lost",
        **dict.fromkeys(
            ("objective.training.schedule", "objective.training.warmup"),
            "AlpacaFarm's first 40 of 390 steps, in which the rate falls by a tenth",
        ),
        "objective.training.epochs": "unused",
        "objective.training.batch": "unused",
        "objective.shaping.missing_eos": "AlpacaFarm's penalty, there off",
        "objective.shaping.importance_cap": "ours: off",
        "objective.shaping.over": "ours: AlpacaFarm's means have padding in them",
        "objective.shaping.together": "ours: AlpacaFarm whitens in each process",
    }

    name: Literal["rlp"] = "rlp"
    variant: Literal["spg", "uml"] = Field(
        default="spg", description="Pairs by agreement, or two views"
    )
    rounds: int = Field(default=1, ge=1, description="Times to fit again and train anew")
    sampling: Sampling = Field(
        default=Sampling(n=10, temperature=1.0), description="How the policy's answers are drawn"
    )
    clustering: Clustering = Field(default=Entailment(), description="Which answers say the same")
    agreement: Agreement = Field(default=Agreement(), description="Which pairs agreement makes")
    fitting: Fitting = Field(default=Fitting(), description="How reward models are fitted")
    objective: ProximalObjective = Field(
        default=ProximalObjective(), description="Rollouts, KL penalty and clipping"
    )

    @model_validator(mode="after")
    def _has_answers_to_compare(self) -> Self:
        self.sampling.must_differ(2)
        if self.variant == "uml" and self.fitting.training.batch == 1:
            raise ValueError(
                "two views need other prompts beside them, and fitting.training.batch 1 has none; "
                "raise it"
            )
        return self

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model."""
        if scale == "paper":
            return cls()
        return cls(
            sampling=Sampling(n=10, temperature=1.0, max_tokens=24 if scale == "smoke" else 72),
            clustering=Canonical(),
            fitting=Fitting.at(scale),
            objective=ProximalObjective.at(scale, kl=KLPenalty(coef=0.1)),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Fit the reward model and train with PPO; each round, answer n times, fit the reward model
        again with those answers, and train with PPO from the start.
        """
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        policy = self.improved(farm, start, reward)
        for number in range(self.rounds):
            sampling = self.sampling.replace(seed=self.sampling.seed + number)
            answers = farm.generate(policy, start.instructions, sampling)
            reward = self.fitted_again(farm, start, reward, answers)
            policy = self.improved(farm, start, reward)
        return policy

    def improved(self, farm: Farm, start: Start, reward: Reward) -> Policy:
        """The SFT model trained for a reward model's scores."""
        refs = references(farm, start.policy, reward, start.instructions, self.objective)
        return farm.roll_out(
            start.policy, reward, start.instructions, self.objective, ref_rewards=refs
        )

    def fitted_again(self, farm: Farm, start: Start, reward: Reward, answers: Candidates) -> Reward:
        """The reward model of the labels and of a policy's answers.

        The one the policy was trained for scores them, where pairs are made.
        """
        if self.variant == "uml":
            return farm.fit_reward(start.policy, start.preferences, self.fitting, answers)
        clusters = farm.cluster(farm.score(answers, reward), self.clustering)
        pairs = farm.rank(clusters, self.agreement)
        labels = farm.unite((start.preferences, pairs))
        return farm.fit_reward(start.policy, labels, self.fitting)
