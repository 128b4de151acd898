"""Quark: sort one's own answers by reward, learn the best ones by likelihood; Lu et al. 2022 (arXiv
2205.13636), as AlpacaFarm runs it (section 3).

By default, as there, only the best quarter of each step's answers is learned, without a token, and
the pool is cleared at every step. With `objective.sorting.train_on=all` every answer is learned
behind a token that says which quantile it fell into, and the policy then answers behind the token
of the best.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.compat import Compat, conditioned
from alpacafarm_core.conditioning import ConditionedLogps, ConditionedObjective
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.settings import Fitting, Sampling, Scale, Training
from alpacafarm_core.weights import Policy, Tagged

if TYPE_CHECKING:
    from torch import Tensor


class QuarkObjective(ConditionedObjective):
    """Likelihood and entropy of what is learned, and the price of leaving the reference."""

    def loss(self, batch: ConditionedLogps) -> Tensor:
        """Likelihood, KL and entropy of each response token, [B, R]."""
        return quark_loss(batch, self.kl_coef, self.entropy_coef)


class Quark(Method):
    """Answer, sort by reward, imitate the best, near the policy one began with."""

    sources: ClassVar[Mapping[str, str]] = {
        "fitting": "AlpacaFarm's reward model",
        "objective": "AlpacaFarm",
        "objective.steps": "AlpacaFarm: ten passes over its prompts",
        "objective.sorting.scope": "both authors' codes",
        "objective.sorting.missing_eos": "ours: AlpacaFarm's penalty of PPO, off in its Quark",
        "objective.kl_coef": "AlpacaFarm's script; 0.2 in its code",
        "objective.kl_limit": "ours: a run beyond it is lost",
        "objective.mean_over": "ours: AlpacaFarm averages over padding too",
        "objective.training.warmup": "AlpacaFarm: 5 of its 390 steps",
        "objective.training.epochs": "unused",
        "objective.training.batch": "unused",
        "compat": "ours: off",
    }

    name: Literal["quark"] = "quark"
    fitting: Fitting = Field(default=Fitting(), description="How the reward model is fitted")
    objective: QuarkObjective = Field(
        default=QuarkObjective(), description="Rollouts, quantiles and KL penalty"
    )
    compat: Compat = Field(default="none", description="AlpacaFarm's own choices where they differ")

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """AlpacaFarm's settings, or those of the built-in world's tiny model."""
        if scale == "paper":
            return cls()
        is_smoke = scale == "smoke"
        objective = QuarkObjective(
            steps=3 if is_smoke else 42,
            rollouts=32 if is_smoke else 128,
            minibatch=8 if is_smoke else 32,
            gradient_steps=1 if is_smoke else 3,
            sampling=Sampling(temperature=1.0, max_tokens=24 if is_smoke else 72),
            training=Training(
                learning_rate=2e-4, schedule="linear", adam_epsilon=1e-5, max_length=256
            ),
        )
        return cls(fitting=Fitting.at(scale), objective=objective)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Fit the reward model; sample, sort and learn; answer behind the best token, if any."""
        reward = farm.fit_reward(start.policy, start.preferences, self.fitting)
        objective = conditioned(self.objective, self.compat)
        policy = farm.roll_out(start.policy, reward, start.instructions, objective)
        return policy.replace(decode=Tagged()) if objective.is_tagged else policy


def quark_loss(logps: ConditionedLogps, kl_coef: float, entropy_coef: float) -> Tensor:
    """Minus log-likelihood, plus the price of leaving the reference, minus the worth of entropy.

    -log pi(y_t | token, x, y_<t) + kl_coef KL(pi_t || ref_t) - entropy_coef H(pi_t), with
    the KL in the direction of both authors' codes. Takes [B, R], returns [B, R].
    """
    return -logps.logprobs + kl_coef * logps.kl - entropy_coef * logps.entropies
