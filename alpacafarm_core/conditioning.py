"""Objectives of the loop that sorts its own samples by reward and learns them by likelihood.

B is responses, R response tokens. Flows read these classes for their forms, so torch is imported
only where a loss is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from alpacafarm_core.objective import Objective
from alpacafarm_core.proximal import leave_room
from alpacafarm_core.settings import Sampling, Training
from alpacafarm_core.values import Value

if TYPE_CHECKING:
    from torch import Tensor


class ConditionedLogps(NamedTuple):
    """Of each response token, all [B, R]: its log-probability, the KL in nats of the policy from
    the reference and the policy's entropy, both over the whole vocabulary; and where there is one.
    """

    logprobs: Tensor
    kl: Tensor
    entropies: Tensor
    mask: Tensor


class Sorting(Value):
    """How answers are sorted, and which of them are learned."""

    quantiles: int = Field(default=4, ge=2, description="Parts of the pool, by reward")
    train_on: Literal["best", "all"] = Field(
        default="best", description="Best quantile alone, or all with tokens"
    )
    scope: Literal["pool", "prompt"] = Field(
        default="pool", description="Among which answers quantiles are taken"
    )
    keep_pool: bool = Field(default=False, description="Go on learning from earlier samples")
    missing_eos: float | None = Field(default=-1.0, description="Score of an unfinished response")


class ConditionedObjective(Objective):
    """Likelihood of one's own samples, by quantile of their reward; AlpacaFarm's values."""

    steps: int = Field(default=390, ge=1, description="Rounds of sampling and learning")
    rollouts: int = Field(default=512, ge=1, description="Responses sampled per step")
    minibatch: int = Field(default=256, ge=1, description="Most responses per gradient step")
    gradient_steps: int = Field(default=1, ge=1, description="Gradient steps per step")
    sorting: Sorting = Field(default=Sorting(), description="Quantiles, and what is learned")
    kl_coef: float = Field(default=0.05, ge=0, description="Price of one nat a token")
    entropy_coef: float = Field(default=0.0, ge=0, description="Worth of one nat of entropy")
    kl_limit: float = Field(default=100.0, gt=0, description="Nats a response that end training")
    mean_over: Literal["tokens", "positions"] = Field(
        default="tokens", description="Real tokens, or padding up to max_tokens too"
    )
    sampling: Sampling = Field(
        default=Sampling(temperature=1.0, max_tokens=300), description="How rollouts are drawn"
    )
    training: Training = Field(
        default=Training(learning_rate=3e-6, adam_epsilon=1e-5, schedule="linear", warmup=0.0128),
        description="Optimiser; its epochs and batch are unused",
    )

    @property
    def is_tagged(self) -> bool:
        """Whether a token before the prompt says how good the answer is."""
        return self.sorting.train_on == "all"

    @model_validator(mode="after")
    def _with_room(self) -> Self:
        leave_room(self.training, self.sampling, before=int(self.is_tagged))
        return self

    @model_validator(mode="after")
    def _has_enough(self) -> Self:
        answers, sorting = self.sampling.n, self.sorting
        if self.rollouts % answers:
            raise ValueError(
                f"rollouts {self.rollouts} are no whole number of groups: make them a multiple of "
                f"sampling.n, {answers}"
            )
        setting, of = "rollouts", self.rollouts
        if sorting.scope == "prompt":
            setting, of = "sampling.n", answers
        if of < sorting.quantiles:
            raise ValueError(
                f"{setting} {of} cannot be cut into {sorting.quantiles} quantiles: raise "
                f"{setting} or lower sorting.quantiles"
            )
        if self.is_tagged and self.training.lora is not None:
            raise ValueError("reward tokens are learned with all weights: leave training.lora out")
        return self
