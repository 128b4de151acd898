"""Binary FeedME: fine-tune on the preferred answer of each pair; AlpacaFarm, section 3.

AlpacaFarm released weights but no code; the recipe here is its SFT recipe, from the SFT model.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.settings import Rule, Scale
from alpacafarm_core.weights import Policy


class FeedME(Method):
    """Imitate the answers that were preferred, forget the others."""

    sources: ClassVar[Mapping[str, str]] = {
        "objective": "AlpacaFarm, SFT10k; its FeedME code is not public"
    }

    name: Literal["feedme"] = "feedme"
    objective: SFT = Field(default=SFT(), description="How the chosen answers are imitated")

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The SFT recipe of the scale, once over the data on the tiny model."""
        objective = SFT.at(scale)
        if scale == "paper":
            return cls(objective=objective)
        training = objective.training.replace(learning_rate=5e-4, epochs=1)
        return cls(objective=objective.replace(training=training))

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Keep the chosen answers, train on them."""
        chosen = farm.select(start.preferences, Rule(keep="chosen"))
        return farm.train(start.policy, chosen, self.objective)
