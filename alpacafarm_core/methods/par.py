"""Preference As Reward; Fu et al. 2025 (arXiv 2502.18770).

PPO pushed against an unbounded reward model runs into answers of which that is wrong. So what is
rewarded is not the score but how probably, to the reward model, the answer y is preferred to
answers of the SFT model: r(y) = mean over m of sigma(k * (score(y) - score(y_m))), m from 1 to M
(section 3). It is between 0 and 1, steep at the start, where it is 1/2 on average, and flat where
the score is far above the references'. Everything else is PPO.

PAR is the setting `objective.shaping.reshape` of every method that learns from its own samples;
this is PPO with it, at the paper's values. Its rivals are other values of the same setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.proximal import KLPenalty, ProximalObjective, Shaping
from alpacafarm_core.references import references
from alpacafarm_core.settings import Fitting, Sampling, Scale, Training
from alpacafarm_core.shaping import LengthPenalty, Preference
from alpacafarm_core.weights import Policy

OBJECTIVE = ProximalObjective(
    steps=825,
    rollouts=40,
    minibatch=40,
    inner_epochs=1,
    kl=KLPenalty(coef=0.005),
    lam=0.95,
    shaping=Shaping(missing_eos=None, whiten=False, reshape=Preference(), length=LengthPenalty()),
    sampling=Sampling(temperature=0.9, max_tokens=512),
    training=Training(
        learning_rate=3e-7, schedule="constant", warmup=0.1, clip=5.0, max_length=1024
    ),
)
"""The paper's PPO: one epoch over 33 thousand prompts."""


class PAR(Method):
    """PPO on the probability of beating the start's answers."""

    sources: ClassVar[Mapping[str, str]] = {
        "fitting": "Fu et al. 2025, reward model",
        "fitting.held_out": "AlpacaFarm's reward model",
        "fitting.above_length": "ours",
        "objective": "Fu et al. 2025, PPO",
        "objective.steps": "Fu et al. 2025: 33k prompts once, in batches of 40",
        "objective.inner_epochs": "Fu et al. 2025; without their buffer of older batches",
        "objective.kl.estimator": "Fu et al. 2025: per token, signed",
        "objective.kl.target": "ours: off",
        "objective.kl.limit": "ours: a run beyond it is lost",
        "objective.critic": "AlpacaFarm; the paper's critic has a rate of its own, 5e-6",
        "objective.critic.clip": "Fu et al. 2025, code",
        "objective.shaping.missing_eos": "Fu et al. 2025: none",
        "objective.shaping.importance_cap": "ours: off",
        "objective.shaping.whiten": "Fu et al. 2025: advantages only",
        "objective.shaping.over": "ours",
        "objective.shaping.together": "ours",
        "objective.shaping.length": "Fu et al. 2025, code; not in the paper",
        "objective.shaping.reshape": "Fu et al. 2025, M = 10 and k = 1",
        "objective.sampling.n": "Fu et al. 2025, PPO",
        "objective.sampling.top_p": "ours; 0.9 and the 50 likeliest there, which bias the ratios",
        "objective.training.schedule": "ours: constant after warm-up",
        "objective.training.epochs": "unused",
        "objective.training.batch": "unused",
    }

    name: Literal["par"] = "par"
    fitting: Fitting = Field(
        default=Fitting(
            training=Training(learning_rate=5e-6, epochs=1, batch=32, clip=5.0),
        ),
        description="How the reward model is fitted",
    )
    objective: ProximalObjective = Field(
        default=OBJECTIVE, description="Rollouts, shaping, KL penalty and clipping"
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model: PPO's budget."""
        if scale == "paper":
            return cls()
        shaping = Shaping(whiten=False, reshape=Preference())
        objective = ProximalObjective.at(scale, kl=KLPenalty(coef=0.1), shaping=shaping)
        return cls(fitting=Fitting.at(scale), objective=objective)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Fit the reward model, have it score answers of the start, and train on preference."""
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        refs = references(farm, start.policy, reward, start.instructions, self.objective)
        return farm.roll_out(
            start.policy, reward, start.instructions, self.objective, ref_rewards=refs
        )
