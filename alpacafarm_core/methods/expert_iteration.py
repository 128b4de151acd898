"""Expert iteration: imitate the best of n answers of one's own; AlpacaFarm (Dubois et al. 2023,
arXiv 2305.14387), section 3, after Anthony et al. 2017 (arXiv 1705.08439).

AlpacaFarm stops after one round. In a further round the policy answers again and goes on from where
it is; the reward model stays as it was fitted.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.compat import Compat, nucleus
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.settings import Fitting, Rule, Sampling, Scale, Training
from alpacafarm_core.weights import Policy


class ExpertIteration(Method):
    """Answer often, keep what the reward model likes most, imitate that."""

    sources: ClassVar[Mapping[str, str]] = {
        "rounds": "AlpacaFarm: one round",
        "sampling": "AlpacaFarm: best of 16 at temperature 1",
        "fitting": "AlpacaFarm's reward model recipe",
        "objective": "AlpacaFarm's SFT recipe",
        "compat": "ours: off",
    }

    name: Literal["expert_iteration"] = "expert_iteration"
    rounds: int = Field(default=1, ge=1, description="Times to answer and imitate")
    sampling: Sampling = Field(
        default=Sampling(n=16, temperature=1.0), description="How answers are drawn"
    )
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    objective: SFT = Field(default=SFT(), description="How the best answers are imitated")
    compat: Compat = Field(default="none", description="AlpacaFarm's own choices where they differ")

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """AlpacaFarm's settings, or fewer and cooler draws for the world's tiny model."""
        if scale == "paper":
            return cls()
        longest = 24 if scale == "smoke" else 72
        training = Training(learning_rate=2e-4, epochs=1, batch=32, max_length=256)
        return cls(
            sampling=Sampling(n=8, temperature=0.7, max_tokens=longest),
            fitting=Fitting.at(scale),
            objective=SFT(training=training),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Fit the reward model; each round, answer n times and train on the best answers."""
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        policy = start.policy
        for number in range(self.rounds):
            sampling = self.drawing(number)
            answers = farm.generate(policy, start.instructions, sampling)
            best = farm.select(farm.score(answers, reward), Rule(keep="best"))
            policy = farm.train(policy, best, self.objective)
        return policy

    def drawing(self, number: int) -> Sampling:
        """How the answers of a round, counted from 0, are drawn: other ones each time."""
        seed, top_p = self.sampling.seed + number, nucleus(self.sampling.top_p, self.compat)
        return self.sampling.replace(seed=seed, top_p=top_p)
