"""Best-of-n: draw n answers, keep the one the reward model likes most; AlpacaFarm, section 3.

No weights change. Draws are at temperature 1, as in AlpacaFarm, so compare it with best-of-1 as
well as with SFT at its own lower temperature.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.compat import Compat, nucleus
from alpacafarm_core.errors import BadInput
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.settings import Fitting, Scale
from alpacafarm_core.weights import BestOf, Plain, Policy, Reward


class BestOfN(Method):
    """Let a reward model choose among n answers."""

    sources: ClassVar[Mapping[str, str]] = {
        "n": "AlpacaFarm: the peak of its simulated curve",
        "temperature": "AlpacaFarm",
        "top_p": "the whole distribution; AlpacaFarm's helper took 0.9",
        "fitting": "AlpacaFarm's reward model",
        "compat": "ours: off",
    }

    name: Literal["best_of_n"] = "best_of_n"
    n: int = Field(default=16, ge=1, le=1024, description="Answers drawn per prompt")
    temperature: float = Field(default=1.0, gt=0, description="Temperature of the draws")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus of the draws")
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    compat: Compat = Field(default="none", description="AlpacaFarm's own choices where they differ")

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """AlpacaFarm's settings, or fewer and cooler draws for the world's tiny model."""
        if scale == "paper":
            return cls()
        return cls(n=8, temperature=0.7, fitting=Fitting.at(scale))

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Fit the reward model; the same policy then decodes with it."""
        if start.policy.decode != Plain():
            raise BadInput("best-of-n draws plainly: start from a policy that decodes plainly")
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        return start.policy.replace(decode=self.decoding(reward))

    def decoding(self, reward: Reward) -> BestOf:
        """How a policy decodes with a reward model."""
        top_p = nucleus(self.top_p, self.compat)
        return BestOf(n=self.n, reward=reward, temperature=self.temperature, top_p=top_p)
