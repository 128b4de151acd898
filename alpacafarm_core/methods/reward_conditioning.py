"""Binary reward conditioning: learn good and bad answers behind a token that says which, then ask
for good ones; AlpacaFarm (Dubois et al. 2023, arXiv 2305.14387), section 3.

AlpacaFarm released weights but no code; the recipe here is its SFT recipe, from the SFT model. The
tokens are new ones of the model: `<reward_0>` before the prompt of a preferred answer, `<reward_1>`
before that of the other one.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.settings import Scale, Training
from alpacafarm_core.weights import Policy, Tagged


class RewardConditioning(Method):
    """Tell the policy which answers were preferred, then ask it for such ones."""

    sources: ClassVar[Mapping[str, str]] = {
        "objective": "AlpacaFarm, SFT10k; its code for this method is not public"
    }

    name: Literal["reward_conditioning"] = "reward_conditioning"
    objective: SFT = Field(default=SFT(), description="How tagged answers are imitated")

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The SFT recipe of the scale, once over both answers of each pair on the tiny model."""
        if scale == "paper":
            return cls()
        # Two answers a pair: twice the batch is the same number of optimiser steps.
        training = Training(learning_rate=2e-4, epochs=1, batch=64, max_length=256)
        return cls(objective=SFT(training=training))

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Tag both answers of each pair, train on all, answer behind the good token."""
        tagged = farm.grade(start.preferences)
        return farm.train(start.policy, tagged, self.objective).replace(decode=Tagged(tag=0))
