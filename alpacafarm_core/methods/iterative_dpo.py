"""Iterative DPO: label one's own answers, learn from them, answer again; Dong et al. 2024 (arXiv
2405.07863) and Xiong et al. 2023 (arXiv 2312.11456).

Dong et al. label by a reward model that nobody changes on the way, as here. Their exploration by a
second policy is left out: best and worst come from one policy.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.settings import BUDGET, Fitting, Ranking, Sampling, Scale, Training
from alpacafarm_core.weights import Policy

BEST_OVER_WORST = Ranking(chosen=1, rejected=-1)


class IterativeDPO(Method):
    """DPO on the best and the worst of one's own answers, round after round."""

    sources: ClassVar[Mapping[str, str]] = {
        "rounds": "Dong et al. 2024",
        "sampling.max_tokens": "AlpacaFarm's longest answer",
        "sampling": "Dong et al. 2024: 8 answers at temperature 1",
        "fitting": "AlpacaFarm's reward model recipe",
        "objective": "Dong et al. 2024; their script smooths labels by 0.1",
    }

    name: Literal["iterative_dpo"] = "iterative_dpo"
    rounds: int = Field(default=3, ge=1, description="Times to answer, label and train")
    sampling: Sampling = Field(
        default=Sampling(n=8, temperature=1.0), description="How answers are drawn"
    )
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    objective: DPO = Field(
        default=DPO(beta=0.1, training=Training(learning_rate=5e-7, epochs=2, batch=128)),
        description="How a round's pairs are learned from",
    )

    @model_validator(mode="after")
    def _has_answers_to_rank(self) -> Self:
        self.sampling.must_differ(BEST_OVER_WORST.least)
        return self

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or one pass over all prompts, in rounds, on the tiny model."""
        if scale == "paper":
            return cls()
        return cls(
            sampling=Sampling(n=4, temperature=0.7, max_tokens=24 if scale == "smoke" else 72),
            fitting=Fitting.at(scale),
            objective=DPO(training=BUDGET),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Each round, answer new prompts and train on best over worst; the reference is the
        policy that answered.
        """
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        policy = start.policy
        for number in range(1, self.rounds + 1):
            prompts = farm.share(start.instructions, number, self.rounds)
            answers = farm.generate(policy, prompts, self.sampling)
            pairs = farm.rank(farm.score(answers, reward), BEST_OVER_WORST)
            policy = farm.train(policy, pairs, self.objective)
        return policy
