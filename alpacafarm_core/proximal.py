"""Objectives of the loop in which a policy learns from its own samples: PPO's, and what is common.

What the loop asks of an objective: what each token was worth, from whole rollouts; whose value
model helps, if any; how a token's loss counts in a minibatch. PPO's answers are here, those of a
method without a critic in its own file. Flows read these classes for their forms, so torch is
imported only where something is computed. B is responses, R response tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.settings import Sampling, Scale, Training
from alpacafarm_core.shaping import LengthPenalty, Penalties, Reshaping, Vanilla
from alpacafarm_core.values import LATER, Grown, Value

if TYPE_CHECKING:
    from torch import Tensor

    from alpacafarm_core.train.rl import Advantages, Average
    from alpacafarm_core.train.rollouts import Rollouts


def leave_room(training: Training, sampling: Sampling, before: int = 0) -> None:
    """Raises ValueError where the longest answer leaves no token for a prompt.

    `before` are tokens that stand before every prompt.
    """
    if training.max_length <= sampling.max_tokens + before:
        raise ValueError(
            f"training.max_length {training.max_length} leaves no room for a prompt beside "
            f"sampling.max_tokens {sampling.max_tokens}: raise the first or lower the second"
        )


class KLPenalty(Grown):
    """What a token costs for straying from the reference."""

    coef: float = Field(default=0.0067, ge=0, description="Price of one nat")
    estimator: Literal["k1", "k2", "k3", "clamped"] = Field(
        default="k1", description="k1 signed log-ratio; clamped is AlpacaFarm's"
    )
    target: float | None = Field(default=None, gt=0, description="Nats a response; adapts coef")
    limit: float = Field(default=100.0, gt=0, description="Nats a response that end training")
    place: Annotated[Literal["reward", "loss"] | None, LATER] = Field(
        default=None, description="Where paid; none: as the method does"
    )


class Scoring(Grown):
    """Which scores count, what rewards they become, and what a differing sampler does to them."""

    missing_eos: float | None = Field(default=-1.0, description="Score of an unfinished response")
    importance_cap: float | None = Field(
        default=None, gt=0, description="Corrects for the sampler, up to this ratio"
    )
    ceiling: Annotated[float | None, LATER] = Field(
        default=None, description="Largest score that counts"
    )
    length: Annotated[LengthPenalty | None, LATER] = Field(
        default=None, description="Score lost by long answers"
    )
    reshape: Annotated[Reshaping, LATER] = Field(
        default=Vanilla(), description="From scores to rewards"
    )

    @property
    def penalties(self) -> Penalties:
        """What is taken off a score first, a reference answer's too."""
        return Penalties(ceiling=self.ceiling, length=self.length, missing_eos=self.missing_eos)


class Shaping(Scoring):
    """What happens to the reward model's scores before they are rewards."""

    whiten: bool = Field(default=True, description="Unit variance, mean kept")
    over: Literal["tokens", "positions"] = Field(
        default="tokens", description="Means over tokens, or padding too"
    )
    together: int | None = Field(
        default=None, ge=8, description="Responses whitened together; none: all"
    )


class Critic(Value):
    """The value model: a separate network with a fresh head of zeros."""

    init: Literal["reward", "policy"] = Field(default="reward", description="Where it starts")
    clip: float = Field(default=0.2, gt=0, description="Largest change of a value")
    coef: float = Field(default=0.1, ge=0, description="Weight of its loss")


class OnlineObjective(Value):
    """What a policy is trained for on its own samples; `sampling.n` of them a prompt."""

    steps: int = Field(default=40, ge=1, description="Rounds of sampling and learning")
    rollouts: int = Field(default=512, ge=1, description="Responses sampled per step")
    minibatch: int = Field(default=256, ge=1, description="Responses per gradient step")
    inner_epochs: int = Field(default=2, ge=1, description="Passes over each step's rollouts")
    kl: KLPenalty = Field(default=KLPenalty(), description="Price of leaving the reference")
    clip: float = Field(default=0.2, gt=0, description="Largest change of the probability ratio")
    shaping: Scoring = Field(default=Scoring(), description="From scores to rewards")
    sampling: Sampling = Field(
        default=Sampling(temperature=1.0, max_tokens=300), description="How rollouts are drawn"
    )
    training: Training = Field(
        default=Training(learning_rate=1e-5, adam_epsilon=1e-5, schedule="constant", warmup=0.125),
        description="Optimiser; its epochs and batch are unused",
    )

    @model_validator(mode="after")
    def _with_room(self) -> Self:
        leave_room(self.training, self.sampling)
        return self

    @model_validator(mode="after")
    def _in_whole_groups(self) -> Self:
        if self.rollouts % self.sampling.n:
            raise ValueError(
                f"rollouts {self.rollouts} are no whole number of groups: make them a multiple of "
                f"sampling.n, {self.sampling.n}"
            )
        return self

    @classmethod
    def at(cls, scale: Scale, answers: int = 1, **own: Any) -> Self:
        """The paper's settings, or the budget that all share on the world's tiny model.

        `answers` is how many each prompt gets there, `own` what an objective has otherwise.
        """
        if scale == "paper":
            return cls()
        is_smoke = scale == "smoke"
        budget = {
            "steps": 3 if is_smoke else 20,
            "rollouts": 16 if is_smoke else 64,
            "minibatch": 8 if is_smoke else 32,
            "inner_epochs": 2,
            "sampling": Sampling(n=answers, temperature=1.0, max_tokens=24 if is_smoke else 72),
            "training": Training(
                learning_rate=2e-4, schedule="linear", adam_epsilon=1e-5, max_length=256
            ),
        }
        return cls(**(budget | own))

    @property
    def value_model(self) -> Critic | None:
        """The critic; None where nobody estimates values."""
        return None

    @model_validator(mode="after")
    def _with_a_gradient(self) -> Self:
        if self.kl_in_loss and self.kl.estimator in ("k1", "clamped"):
            raise ValueError(
                f"kl.estimator {self.kl.estimator} has no useful gradient in a loss: take k3 or k2"
            )
        return self

    @property
    def kl_in_loss(self) -> bool:
        """Whether straying is paid for in the loss of a token, rather than in its reward."""
        return self.kl.place == "loss"

    def kl_prices(self, coef: float) -> tuple[float, float]:
        """What a nat costs in the reward, and in the loss, if its price is `coef`."""
        return (0.0, coef) if self.kl_in_loss else (coef, 0.0)

    @property
    def averaging(self) -> Average:
        """How the losses of a minibatch's tokens are averaged."""
        return "token"

    def advantages(self, rollouts: Rollouts, kl_coef: float) -> Advantages:
        """What each token of a step's rollouts was worth, [B, R], at this price of a nat."""
        raise NotImplementedError

    def compared(self, logprobs: Tensor, old: Tensor) -> Tensor:
        """The log-probabilities with which those of today make a ratio; all [B, R]."""
        return old


class ProximalObjective(OnlineObjective):
    """PPO against a reward model; AlpacaFarm's values."""

    gamma: float = Field(default=1.0, gt=0, le=1, description="Discount per token")
    lam: float = Field(default=1.0, ge=0, le=1, description="Decay of advantage estimation")
    critic: Critic = Field(default=Critic(), description="The value model")
    shaping: Shaping = Field(default=Shaping(), description="From scores to rewards")

    @model_validator(mode="after")
    def _on_one_base(self) -> Self:
        if self.training.lora is not None and self.critic.init == "reward":
            raise ValueError(
                "with LoRA policy and critic share one base, so the critic cannot start from the "
                "reward model: set critic.init to policy"
            )
        return self

    @property
    def value_model(self) -> Critic | None:
        """The one that is set."""
        return self.critic

    @property
    def averaging(self) -> Average:
        """Over tokens, or over all places up to `max_tokens`."""
        return "token" if self.shaping.over == "tokens" else "constant"

    def advantages(self, rollouts: Rollouts, kl_coef: float) -> Advantages:
        """Generalised advantages of scores less KL penalties, whitened."""
        from alpacafarm_core.train import rl

        mask = rollouts.mask
        in_reward, in_loss = self.kl_prices(kl_coef)
        penalties = rl.kl(rollouts.logprobs, rollouts.ref_logprobs, self.kl.estimator)
        rewards = rl.place_rewards(rollouts.scores, penalties, mask, in_reward)
        if self.shaping.whiten:
            rewards = self._white(rewards, mask, keep_mean=True)
        found = rl.estimate_advantages(rewards, rollouts.values, mask, self.gamma, self.lam)
        white = self._white(found.advantages, mask, keep_mean=False)
        return found._replace(advantages=white, kl_price=in_loss)

    def _white(self, values: Tensor, mask: Tensor, keep_mean: bool) -> Tensor:
        """Whitened over whom and what the settings say, [B, R]."""
        import torch

        from alpacafarm_core.train import rl

        longest = None if self.shaping.over == "tokens" else self.sampling.max_tokens
        size = self.shaping.together or len(values)
        rows = [slice(start, start + size) for start in range(0, len(values), size)]
        return torch.cat([rl.whiten(values[at], mask[at], keep_mean, longest) for at in rows])
