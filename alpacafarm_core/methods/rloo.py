"""REINFORCE Leave-One-Out; Ahmadian et al. 2024 (arXiv 2402.14740), after Kool et al. 2019.

A whole answer is one action. Its reward is R_i = r_i - coef * (log-ratio of policy to reference,
summed over its tokens), its baseline the mean reward of the other k - 1 answers to the prompt:
A_i = R_i - mean of R_j over j != i, and the gradient is A_i times that of the answer's
log-probability, summed over tokens (eq. 6). No value model, nothing is divided by a deviation.

With one minibatch and one pass, the defaults, that is REINFORCE as it stands: every ratio is 1 and
nothing is clipped. Where a setting asks for more gradient steps from the same answers, each answer
counts by its ratio as a whole, clipped like PPO's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.proximal import KLPenalty, OnlineObjective, Scoring
from alpacafarm_core.references import references
from alpacafarm_core.settings import Fitting, Sampling, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from alpacafarm_core.train.rl import Advantages, Average
    from alpacafarm_core.train.rollouts import Rollouts


class LeaveOneOutObjective(OnlineObjective):
    """Each answer against the other ones to its prompt, `sampling.n` in all, as one action."""

    minibatch: int = Field(default=512, ge=1, description="Responses per gradient step")
    inner_epochs: int = Field(default=1, ge=1, description="Passes over each step's rollouts")
    kl: KLPenalty = Field(default=KLPenalty(coef=0.03), description="Penalty in the reward")
    clip: float = Field(default=0.2, gt=0, description="Largest change of a response's ratio")
    shaping: Scoring = Field(
        default=Scoring(missing_eos=None), description="From scores to rewards"
    )
    sampling: Sampling = Field(
        default=Sampling(n=4, temperature=1.0, max_tokens=300), description="How groups are drawn"
    )
    training: Training = Field(
        default=Training(learning_rate=1e-6, schedule="constant"),
        description="Optimiser; its epochs and batch are unused",
    )

    @model_validator(mode="after")
    def _others(self) -> Self:
        if self.sampling.n < 2:
            raise ValueError("one answer leaves no other out: raise sampling.n to 2 or more")
        return self

    @property
    def averaging(self) -> Average:
        """Tokens of a response add up."""
        return "sum"

    def advantages(self, rollouts: Rollouts, kl_coef: float) -> Advantages:
        """One for all tokens of a response, from its score less its KL penalty."""
        from alpacafarm_core.train import rl

        in_reward, in_loss = self.kl_prices(kl_coef)
        nats = rl.kl(rollouts.logprobs, rollouts.ref_logprobs, self.kl.estimator) * rollouts.mask
        each = rl.left_out(rollouts.scores - in_reward * nats.sum(1), self.sampling.n)
        advantages = each[:, None] * rollouts.mask
        return rl.Advantages(advantages, advantages, in_loss)

    def compared(self, logprobs: Tensor, old: Tensor) -> Tensor:
        """So that a ratio is that of the whole response."""
        from alpacafarm_core.train import rl

        return rl.as_whole(logprobs, old)


class RLOO(Method):
    """Answer several times, and reinforce what beats the other answers."""

    sources: ClassVar[Mapping[str, str]] = {
        "fitting": "AlpacaFarm's reward model",
        "objective.kl.estimator": "Ahmadian et al. 2024, section 3",
        "objective.inner_epochs": "Ahmadian et al. 2024: on-policy",
        "objective.minibatch": "Ahmadian et al. 2024: on-policy, so all rollouts",
        "objective.sampling.n": "Ahmadian et al. 2024, the larger of 2 and 4",
        **dict.fromkeys(
            ("objective.kl.coef", "objective.rollouts", "objective.training.learning_rate"),
            "Ahmadian et al. 2024, TL;DR, quoted from memory",
        ),
        "objective.kl.target": "ours: off",
        "objective.kl.limit": "ours: a run beyond it is lost",
        "objective.clip": "TRL; unused at one step a batch",
        "objective.shaping": "ours: off",
        "objective.sampling": "AlpacaFarm's task",
        "objective.steps": "AlpacaFarm's PPO",
        "objective.training": "ours: constant after warm-up",
        "objective.training.epochs": "unused",
        "objective.training.batch": "unused",
    }

    name: Literal["rloo"] = "rloo"
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    objective: LeaveOneOutObjective = Field(
        default=LeaveOneOutObjective(), description="Groups and KL penalty"
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model: PPO's budget."""
        if scale == "paper":
            return cls()
        # As many gradient steps as PPO's, each answer once.
        steps = {"minibatch": 4 if scale == "smoke" else 16, "inner_epochs": 1}
        own = {"kl": KLPenalty(coef=0.1), "shaping": Scoring(), **steps}
        objective = LeaveOneOutObjective.at(scale, answers=4, **own)
        return cls(fitting=Fitting.at(scale), objective=objective)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Fit the reward model; answer each prompt k times, reinforce against the others."""
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        refs = references(farm, start.policy, reward, start.instructions, self.objective)
        return farm.roll_out(
            start.policy, reward, start.instructions, self.objective, ref_rewards=refs
        )
