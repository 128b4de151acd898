"""Self-play fine-tuning (SPIN); Chen et al. 2024 (arXiv 2401.01335).

Left out: the authors add the pairs of the round before to a round's own, and lower the learning
rate and raise lambda in their last rounds. They use RMSProp where the farm has AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.dpo import dpo_loss
from alpacafarm_core.objective import Objective, PairLogps
from alpacafarm_core.settings import BUDGET, Sampling, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class SelfPlay(Objective):
    """Tell the demonstrations from the answers of the policy one was a round ago."""

    lam: float = Field(default=0.1, gt=0, description="Strength of the reference")
    training: Training = Field(
        default=Training(
            learning_rate=5e-7, epochs=3, batch=64, schedule="linear", warmup=0.1, max_length=1024
        ),
        description="SPIN's first rounds",
    )

    def loss(self, batch: PairLogps) -> Tensor:
        """Logistic loss on the margin over the round's start, [B]."""
        return spin_loss(batch, self.lam)


class SPIN(Method):
    """Prefer the demonstrations to one's own answers until they cannot be told apart."""

    sources: ClassVar[Mapping[str, str]] = {
        "rounds": "Chen et al. 2024: iterations 0 to 3",
        "sampling": "SPIN's code, there up to 256 tokens",
        "objective.lam": "Chen et al. 2024",
        "objective.training": "SPIN's code, there with RMSProp",
    }

    name: Literal["spin"] = "spin"
    rounds: int = Field(default=4, ge=1, description="Times to answer and train")
    sampling: Sampling = Field(
        default=Sampling(n=1, temperature=1.0), description="How answers are drawn"
    )
    objective: SelfPlay = Field(default=SelfPlay(), description="How a round's pairs are learned")

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or two rounds that take the steps of one DPO on the tiny model."""
        if scale == "paper":
            return cls()
        training = BUDGET.replace(batch=64) if scale == "smoke" else BUDGET
        return cls(
            rounds=2,
            sampling=Sampling(n=1, temperature=0.7, max_tokens=24 if scale == "smoke" else 72),
            objective=SelfPlay(training=training),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Each round, answer the demonstrations' prompts and train on demonstration over own
        answer; the reference is the policy that answered.
        """
        policy = start.policy
        for _ in range(self.rounds):
            own = farm.generate(policy, start.demonstrations, self.sampling)
            pairs = farm.prefer(start.demonstrations, own)
            policy = farm.train(policy, pairs, self.objective)
        return policy


def spin_loss(logps: PairLogps, lam: float) -> Tensor:
    """Logistic loss on the margin of the demonstration over the policy's own answer; eq. 4.7.

    -log sigmoid(lam h), where h is by how much the log-ratio to the round's start is larger for the
    demonstration (chosen) than for the own answer (rejected). Summed log-probabilities, each [B];
    one loss per pair, [B].
    """
    return dpo_loss(logps, lam)
