"""REINFORCE++; Hu 2025 (arXiv 2501.03262).

PPO's clipped loss without its value model: one answer a prompt, a token's reward is minus
coef * log-ratio of policy to reference, with the score added at the last token, and its advantage
is the sum of the rewards from it on, less the mean and over the standard deviation of all tokens of
the step's answers: A_t = (G_t - mean(G)) / std(G) with G_t = r - coef * (sum of d_u over u >= t).
The baseline is thus the whole batch, not the group of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.proximal import KLPenalty, OnlineObjective, Scoring
from alpacafarm_core.references import references
from alpacafarm_core.settings import Fitting, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from alpacafarm_core.train.rl import Advantages
    from alpacafarm_core.train.rollouts import Rollouts


class BatchObjective(OnlineObjective):
    """Returns of each token, normalised over the whole step's rollouts."""

    rollouts: int = Field(default=1024, ge=1, description="Responses sampled per step")
    minibatch: int = Field(default=128, ge=1, description="Responses per gradient step")
    inner_epochs: int = Field(default=1, ge=1, description="Passes over each step's rollouts")
    kl: KLPenalty = Field(default=KLPenalty(coef=0.01), description="Penalty in the reward")
    gamma: float = Field(default=1.0, gt=0, le=1, description="Discount per token")
    shaping: Scoring = Field(
        default=Scoring(missing_eos=None), description="From scores to rewards"
    )
    training: Training = Field(
        default=Training(learning_rate=5e-7),
        description="Optimiser; its epochs and batch are unused",
    )

    def advantages(self, rollouts: Rollouts, kl_coef: float) -> Advantages:
        """Normalised sums of the rewards from each token on."""
        from alpacafarm_core.train import rl

        mask = rollouts.mask
        in_reward, in_loss = self.kl_prices(kl_coef)
        penalties = rl.kl(rollouts.logprobs, rollouts.ref_logprobs, self.kl.estimator)
        rewards = rl.place_rewards(rollouts.scores, penalties, mask, in_reward)
        nobody = rewards.new_zeros(rewards.shape)
        returns = rl.estimate_advantages(rewards, nobody, mask, self.gamma, lam=1.0).returns
        return rl.Advantages(rl.whiten(returns, mask, keep_mean=False), returns, in_loss)


class ReinforcePP(Method):
    """Sample, score, and improve on the batch's mean within a trust region."""

    sources: ClassVar[Mapping[str, str]] = {
        "fitting": "AlpacaFarm's reward model",
        **dict.fromkeys(
            (
                *("objective.rollouts", "objective.minibatch", "objective.inner_epochs"),
                *("objective.kl.coef", "objective.sampling.n", "objective.training"),
            ),
            "OpenRLHF's script for REINFORCE++",
        ),
        "objective.kl.estimator": "Hu 2025, token-level KL penalty",
        "objective.kl.target": "ours: off",
        "objective.kl.limit": "ours: a run beyond it is lost",
        "objective.clip": "Hu 2025; Schulman et al. 2017",
        "objective.gamma": "Hu 2025",
        "objective.shaping": "ours: off",
        "objective.sampling": "AlpacaFarm's task",
        "objective.steps": "AlpacaFarm's PPO",
        "objective.training.epochs": "unused",
        "objective.training.batch": "unused",
    }

    name: Literal["reinforce_pp"] = "reinforce_pp"
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    objective: BatchObjective = Field(
        default=BatchObjective(), description="Rollouts, KL penalty and clipping"
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """OpenRLHF's settings, or those of the built-in world's tiny model: PPO's budget."""
        if scale == "paper":
            return cls()
        objective = BatchObjective.at(scale, kl=KLPenalty(coef=0.1), shaping=Scoring())
        return cls(fitting=Fitting.at(scale), objective=objective)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Fit the reward model, then train on the policy's own scored answers."""
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        refs = references(farm, start.policy, reward, start.instructions, self.objective)
        return farm.roll_out(
            start.policy, reward, start.instructions, self.objective, ref_rewards=refs
        )
