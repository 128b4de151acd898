"""Proximal policy optimisation for language models, as AlpacaFarm runs it (section 3; Schulman et
al. 2017, arXiv 1707.06347).

Where AlpacaFarm's code is at odds with its own intent this follows the intent: the KL penalty is
signed (its clamp at zero is `objective.kl.estimator="clamped"`), statistics and means leave padding
out, the end token is looked for in the sampled ids, and an answer that never ends is penalised.
`compat=alpacafarm` makes AlpacaFarm's own choices again, as far as they are choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.compat import Compat, proximal
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.proximal import KLPenalty, ProximalObjective
from alpacafarm_core.references import references
from alpacafarm_core.settings import Fitting, Scale
from alpacafarm_core.weights import Policy


class PPO(Method):
    """Sample, score with a reward model, and improve within a trust region."""

    sources: ClassVar[Mapping[str, str]] = {
        "fitting": "AlpacaFarm's reward model",
        "objective": "AlpacaFarm",
        "objective.kl.coef": "AlpacaFarm, simulated preferences",
        "objective.kl.estimator": "Schulman 2020; AlpacaFarm clamps at 0",
        "objective.kl.limit": "ours: a run beyond it is lost",
        **dict.fromkeys(
            ("objective.training.schedule", "objective.training.warmup"),
            "AlpacaFarm's first 40 of 390 steps, in which the rate falls by a tenth",
        ),
        "objective.training.epochs": "unused",
        "objective.training.batch": "unused",
        "objective.shaping.missing_eos": "AlpacaFarm's penalty, there off",
        "objective.shaping.importance_cap": "ours: off",
        "objective.shaping.over": "ours: AlpacaFarm's means have padding in them",
        "objective.shaping.together": "ours: AlpacaFarm whitens in each process",
        "compat": "ours: off",
    }

    name: Literal["ppo"] = "ppo"
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    objective: ProximalObjective = Field(
        default=ProximalObjective(), description="Rollouts, KL penalty and clipping"
    )
    compat: Compat = Field(default="none", description="AlpacaFarm's own choices where they differ")

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """AlpacaFarm's settings, or those of the built-in world's tiny model."""
        if scale == "paper":
            return cls()
        objective = ProximalObjective.at(scale, kl=KLPenalty(coef=0.1))
        return cls(fitting=Fitting.at(scale), objective=objective)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Fit the reward model, then train on the policy's own scored answers."""
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        objective = proximal(self.objective, self.compat)
        refs = references(farm, start.policy, reward, start.instructions, objective)
        return farm.roll_out(start.policy, reward, start.instructions, objective, ref_rewards=refs)
