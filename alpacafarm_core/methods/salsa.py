"""PPO with a soup as reference (SALSA); Chegini et al. 2024 (arXiv 2411.01798).

Two SFT models of one start, trained alike but for their seeds, are averaged weight by weight, and
the KL penalty of PPO is measured against the average instead of the start. At the same price of a
nat the policy may then go further from its own start. The penalty is signed: a clamp at zero would
charge the start, which is not at the reference, and hide a policy that earns by being less sure
than the reference. Where the mean signed KL falls below zero, the log says so. The paper's own
values of PPO were not to be had; AlpacaFarm's stand in for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.errors import BadInput
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.methods.ppo import PPO
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.proximal import KLPenalty, ProximalObjective
from alpacafarm_core.references import references
from alpacafarm_core.settings import Fitting, Scale
from alpacafarm_core.weights import Policy


class SALSA(Method):
    """PPO about an average of SFT models."""

    sources: ClassVar[Mapping[str, str]] = {
        "weights": "Chegini et al. 2024: two models, alpha 0.5",
        "init": "Chegini et al. 2024, from memory",
        "held_out": "ours: the test of a soup",
        "sft": "AlpacaFarm, SFT10k",
        "fitting": "AlpacaFarm's reward model",
        **{name: said for name, said in PPO.sources.items() if name.startswith("objective.")},
        "objective": "AlpacaFarm's PPO",
        "objective.kl.estimator": "Schulman 2020; a clamp would charge the start",
    }

    name: Literal["salsa"] = "salsa"
    weights: tuple[float, ...] = Field(
        default=(0.5, 0.5), min_length=2, description="Share of each SFT model, the start first"
    )
    init: Literal["first", "soup"] = Field(
        default="first", description="Begin at first SFT model or soup"
    )
    held_out: int = Field(
        default=200, ge=0, le=10_000, description="Demonstrations testing the soup; 0: none"
    )
    sft: SFT = Field(default=SFT(), description="How the other SFT models are trained")
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    objective: ProximalObjective = Field(
        default=ProximalObjective(), description="Rollouts, KL penalty and clipping"
    )

    @model_validator(mode="after")
    def _in_shares(self) -> Self:
        if min(self.weights) < 0 or not math.isclose(math.fsum(self.weights), 1, abs_tol=1e-6):
            raise ValueError(f"weights {self.weights} are no shares of one: from 0, 1 together")
        return self

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or PPO's on the world's tiny model with a soup as reference."""
        if scale == "paper":
            return cls()
        return cls(
            held_out=32 if scale == "smoke" else 200,
            sft=SFT.at(scale),
            fitting=Fitting.at(scale),
            objective=ProximalObjective.at(scale, kl=KLPenalty(coef=0.1)),
        )

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train more SFT models with other seeds, average all, and run PPO with the average as the
        reference.
        """
        reference = self.reference(farm, start)
        policy = start.policy if self.init == "first" else reference
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        refs = references(farm, policy, reward, start.instructions, self.objective)
        return farm.roll_out(
            policy, reward, start.instructions, self.objective, reference, ref_rewards=refs
        )

    def reference(self, farm: Farm, start: Start) -> Policy:
        """The soup of the start and of models that differ from it in their seeds alone."""
        others = [farm.train(start.base, start.demonstrations, each) for each in self.others()]
        if start.policy in others:
            raise BadInput(
                f"{start.policy.folder} would be averaged with itself; set sft.training.seed to "
                "another number than the start's"
            )
        tests = None
        if self.held_out:
            tests = farm.demonstrations(start.source, self.held_out, "val")
        return farm.soup((start.policy, *others), self.weights, tests)

    def others(self) -> list[SFT]:
        """How each SFT model but the first is trained: with the next seeds after the start's."""
        training = self.sft.training
        seeds = range(training.seed + 1, training.seed + len(self.weights))
        return [self.sft.replace(training=training.replace(seed=seed)) for seed in seeds]
