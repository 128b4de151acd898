"""Group Relative Policy Optimisation; Shao et al. 2024 (DeepSeekMath, arXiv 2402.03300).

PPO without a value model: a prompt is answered several times, and an answer is as good as it is
better than the others of its group. In symbols, for answer i of G with score r_i,
A_i = (r_i - mean(r)) / (std(r) + epsilon), the same for each of its tokens, and the loss is the
mean over answers of the mean over tokens of
-min(ratio * A_i, clip(ratio, 1 - c, 1 + c) * A_i) + coef * (exp(-d) + d - 1)
(eq. 3 and 4), where d is the token's log-ratio of policy to reference.

`objective.spread=none` with `objective.average=constant` is Dr. GRPO (Liu et al. 2025, arXiv
2503.20783); `objective.average=token` is the mean over all tokens (DAPO, arXiv 2503.14476).
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
    from alpacafarm_core.train.rl import Advantages, Average
    from alpacafarm_core.train.rollouts import Rollouts


class GroupObjective(OnlineObjective):
    """Advantages within the group of a prompt, and KL in the loss; `sampling.n` is the group."""

    rollouts: int = Field(default=1024, ge=2, description="Responses sampled per step")
    minibatch: int = Field(default=1024, ge=1, description="Responses per gradient step")
    inner_epochs: int = Field(default=1, ge=1, description="Passes over each step's rollouts")
    kl: KLPenalty = Field(
        default=KLPenalty(coef=0.04, estimator="k3"), description="Penalty in the loss"
    )
    spread: Literal["sample", "population", "none"] = Field(
        default="sample", description="Standard deviation that divides; none: Dr. GRPO"
    )
    epsilon: float = Field(default=1e-4, gt=0, description="Added to the standard deviation")
    average: Literal["response", "token", "constant"] = Field(
        default="response", description="Mean per response, all tokens, or max_tokens"
    )
    shaping: Scoring = Field(
        default=Scoring(missing_eos=None), description="From scores to rewards"
    )
    sampling: Sampling = Field(
        default=Sampling(n=64, temperature=1.0, max_tokens=300), description="How groups are drawn"
    )
    training: Training = Field(
        default=Training(learning_rate=1e-6, schedule="constant", warmup=0.0),
        description="Optimiser; its epochs and batch are unused",
    )

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if self.sampling.n < 2:
            raise ValueError("a group of one has nothing to compare with: raise sampling.n")
        return self

    @property
    def kl_in_loss(self) -> bool:
        """It is, unless the reward is to pay for it."""
        return self.kl.place != "reward"

    @property
    def averaging(self) -> Average:
        """As it is set."""
        return self.average

    def advantages(self, rollouts: Rollouts, kl_coef: float) -> Advantages:
        """One for all tokens of a response; the loss has the price of a nat, unless rewards do."""
        from alpacafarm_core.train import rl

        in_reward, in_loss = self.kl_prices(kl_coef)
        rewards = rollouts.scores
        if in_reward:
            nats = rl.kl(rollouts.logprobs, rollouts.ref_logprobs, self.kl.estimator)
            rewards = rewards - in_reward * (nats * rollouts.mask).sum(1)
        each = rl.in_group(rewards, self.sampling.n, self.spread, self.epsilon)
        advantages = each[:, None] * rollouts.mask
        return rl.Advantages(advantages, advantages, in_loss)


class GRPO(Method):
    """Answer in groups, compare within each, and improve without a value model."""

    sources: ClassVar[Mapping[str, str]] = {
        "fitting": "AlpacaFarm's reward model",
        **dict.fromkeys(
            (
                *("objective.rollouts", "objective.minibatch", "objective.inner_epochs"),
                *("objective.kl.coef", "objective.sampling.n", "objective.training.learning_rate"),
            ),
            "DeepSeekMath, 4.2",
        ),
        "objective.kl.estimator": "DeepSeekMath, eq. 4",
        "objective.kl.target": "ours: off",
        "objective.kl.limit": "ours: a run beyond it is lost",
        "objective.average": "DeepSeekMath, eq. 3",
        "objective.clip": "Schulman et al. 2017; not in the paper",
        "objective.spread": "TRL; the paper does not say",
        "objective.epsilon": "TRL; not in the paper",
        "objective.sampling.temperature": "TRL; not in the paper",
        "objective.sampling": "AlpacaFarm's task; the paper has 1024 tokens",
        "objective.shaping": "ours: off",
        "objective.steps": "AlpacaFarm's PPO",
        "objective.training": "ours: constant; not in the paper",
        "objective.training.epochs": "unused",
        "objective.training.batch": "unused",
    }

    name: Literal["grpo"] = "grpo"
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    objective: GroupObjective = Field(
        default=GroupObjective(), description="Groups, KL penalty and clipping"
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model: PPO's budget."""
        if scale == "paper":
            return cls()
        answers = 4 if scale == "smoke" else 8
        objective = GroupObjective.at(scale, answers, shaping=Scoring())
        return cls(fitting=Fitting.at(scale), objective=objective)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Fit the reward model; answer each prompt several times, compare, improve, repeat."""
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        refs = references(farm, start.policy, reward, start.instructions, self.objective)
        return farm.roll_out(
            start.policy, reward, start.instructions, self.objective, ref_rewards=refs
        )
