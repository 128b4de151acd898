"""DRIFT, learning from users' dissatisfaction; Wang et al. 2025 (arXiv 2510.02341).

The rejected side are answers that users really disliked, the same in every round; the chosen side
is what the policy answers anew once it sees the disliked answer and what the user said of it. The
user's words are no part of what is trained on. Left out: RMSProp, for which the farm has AdamW; the
authors flatten a chat into plain lines and cut it on the right, which loses the feedback, while
here the oldest turns go, and then the end of the longest text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.interactions import Guidance
from alpacafarm_core.method import Method
from alpacafarm_core.methods.rpo import RPO
from alpacafarm_core.settings import BUDGET, Sampling, Scale, Training
from alpacafarm_core.weights import Policy

CODE = "Wang et al. 2025, released configuration"
RECIPE = Training(
    learning_rate=5e-7, epochs=1, batch=4, schedule="linear", warmup=0.1, max_length=2048
)


class Drift(Method):
    """Prefer what one would say now, knowing the complaint, to what was complained about.

    The loss is that of `rpo` with alpha 0.001: DPO's against the policy each round starts from, and
    a thousandth of the chosen tokens' cross-entropy.
    """

    sources: ClassVar[Mapping[str, str]] = {
        "turns": "ours: as many as WildFeedback labels",
        "rounds": f"{CODE}; up to five studied",
        "guidance": "ours: system text, request and length; Wang et al. 2025: their order",
        "sampling": CODE,
        "warming": f"{CODE}, there with RMSProp",
        "objective": f"{CODE}, there with RMSProp",
    }

    name: Literal["drift"] = "drift"
    turns: int = Field(default=90_000, ge=1, description="Turns of conversations, at most")
    rounds: int = Field(default=2, ge=0, description="Times to answer anew and learn")
    guidance: Guidance = Field(default=Guidance(), description="How complaints are shown")
    sampling: Sampling = Field(
        default=Sampling(temperature=0.7, top_p=0.9, max_tokens=512),
        description="How answers are drawn",
    )
    warming: RPO = Field(
        default=RPO(alpha=0.001, training=RECIPE.replace(epochs=3)),
        description="Training on answers users went on to accept",
    )
    objective: RPO = Field(
        default=RPO(alpha=0.001, training=RECIPE), description="Training of a round"
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the world's tiny model in words that it knows."""
        if scale == "paper":
            return cls()
        is_smoke = scale == "smoke"
        return cls(
            turns=96 if is_smoke else 3300,
            guidance=Guidance(
                system="### Lesson\n",
                layout="{system}{prompt}{response}\n\n### Comment: {feedback}\n\n### Response:",
            ),
            sampling=Sampling(temperature=0.7, top_p=0.9, max_tokens=24 if is_smoke else 72),
            warming=RPO(alpha=0.001, training=BUDGET.replace(epochs=3)),
            # At the full rate the policy unlearns to write: these rejected answers are easily told.
            objective=RPO(alpha=0.001, training=BUDGET.replace(learning_rate=2e-5)),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Learn what users went on to accept; each round, answer anew what they disliked, shown
        what they said, and prefer that without showing it.
        """
        talks = farm.interactions(start.source, self.turns)
        policy = farm.train(start.policy, farm.corrected(talks), self.warming)
        complaints = farm.guided(talks, self.guidance)
        for _ in range(self.rounds):
            fresh = farm.generate(policy, complaints, self.sampling)
            policy = farm.train(policy, farm.corrected(talks, fresh), self.objective)
        return policy
