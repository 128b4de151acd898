"""Curry-DPO: several pairs a prompt, from easy to hard; Pattnaik et al. 2024 (arXiv 2403.07230).

The paper ranks answers of several models by ratings; here one policy's answers are ranked by a
reward model. Its controls are settings: `pooled` trains once on all pairs, shuffled; with `refresh`
off the first policy stays the reference; `rejected` of (2, 3, -1) goes from hard to easy, and of
(-1, -1, -1) has the easy pair only, with as many references. All of them take as many steps, up to
the last batch of each stage.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from alpacafarm_core.artifacts import Ranked, Scores
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.settings import BUDGET, Fitting, Ranking, Sampling, Scale, Training
from alpacafarm_core.weights import Policy


class CurryDPO(Method):
    """Learn first from clear pairs, last from close ones, and move the reference along."""

    sources: ClassVar[Mapping[str, str]] = {
        "rejected": "Pattnaik et al. 2024: easy, medium, hard",
        "pooled": "Pattnaik et al. 2024",
        "refresh": "Pattnaik et al. 2024",
        "parts": "ours: one pass over all prompts",
        "sampling.n": "Pattnaik et al. 2024: four answers",
        "sampling": "ours: the paper's come from a data set",
        "fitting": "AlpacaFarm's reward model recipe",
        "objective": "ours: DPO's usual values, the paper's were not found",
    }

    name: Literal["curry_dpo"] = "curry_dpo"
    rejected: tuple[int, ...] = Field(
        default=(-1, 3, 2), min_length=1, description="Places of the rejected, stage by stage"
    )
    pooled: bool = Field(default=False, description="All pairs at once, shuffled")
    refresh: bool = Field(default=True, description="Each stage's start is its reference")
    parts: int = Field(default=1, ge=1, description="Parts of the prompts; one is used")
    sampling: Sampling = Field(
        default=Sampling(n=4, temperature=1.0), description="How answers are drawn"
    )
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    objective: DPO = Field(
        default=DPO(beta=0.1, training=Training(learning_rate=5e-7, epochs=1, batch=32)),
        description="How a stage's pairs are learned from",
    )

    @field_validator("rejected")
    @classmethod
    def _below_the_best(cls, rejected: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := {0, 1}.intersection(rejected):
            raise ValueError(
                f"place {min(wrong)} is not below the best; count from 2, or from -1 at the end"
            )
        return rejected

    @model_validator(mode="after")
    def _has_answers_to_rank(self) -> Self:
        if self.pooled and len(set(self.rejected)) < len(self.rejected):
            raise ValueError(
                f"rejected {list(self.rejected)} has a place twice, and pooled counts a pair once; "
                "drop the repeats from rejected or turn pooled off"
            )
        self.sampling.must_differ(Ranking(rejected=tuple(set(self.rejected))).least)
        return self

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or three pairs of every third prompt for the tiny model."""
        if scale == "paper":
            return cls()
        return cls(
            parts=3,
            sampling=Sampling(n=4, temperature=0.7, max_tokens=24 if scale == "smoke" else 72),
            fitting=Fitting.at(scale),
            objective=DPO(training=BUDGET),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Rank each prompt's answers; train stage by stage on the best over the worst, the third,
        the second; the reference is the policy of the stage before.
        """
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        prompts = farm.share(start.instructions, 1, self.parts)
        answers = farm.generate(start.policy, prompts, self.sampling)
        scores = farm.score(answers, reward)
        policy = start.policy
        for pairs in self.stages(farm, scores):
            reference = None if self.refresh else start.policy
            policy = farm.train(policy, pairs, self.objective, reference)
        return policy

    def stages(self, farm: Farm, scores: Scores) -> list[Ranked]:
        """The pairs of each stage."""
        if self.pooled:
            return [farm.rank(scores, Ranking(chosen=1, rejected=self.rejected))]
        return [farm.rank(scores, Ranking(chosen=1, rejected=place)) for place in self.rejected]
