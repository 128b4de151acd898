"""Objectives: settings with one pure loss, and the views of a batch a loss may ask for.

A view is a named tuple of tensors. The offline loop reads the annotation of `loss`, builds that
view and runs no reference model when the view has no `ref_` field. What a field may be called is
`OF_TOKENS` for one answer a row and `OF_PAIRS` for two; a new view only combines those names.
B is examples, R response tokens. A mean over the tokens of a batch is a loss of each example too:
its tokens' loss divided by the batch's mean length. Flows read these classes for their forms, so
torch is imported only where a loss is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_type_hints

from pydantic import Field, model_validator

from alpacafarm_core.settings import Sampling, Training
from alpacafarm_core.values import Value

if TYPE_CHECKING:
    from torch import Tensor

OF_TOKENS = frozenset({"logprobs", "ref_logprobs", "mask"})
OF_PAIRS = frozenset(
    {
        *("chosen", "rejected", "ref_chosen", "ref_rejected"),  # sums of log-probabilities
        *("chosen_length", "rejected_length"),  # tokens
        *("mean_chosen_length", "mean_gold_length"),  # tokens a response of the whole batch
        "gold",  # sum for a third response, to be imitated
        *("chosen_win", "rejected_win"),  # probability to win against the other samples
        "mismatch_kl",  # the batch's mean log-ratio on responses to other prompts
        "carried",  # what `carry` makes of the steps before
        *("mixed_chosen", "mixed_rejected"),  # sums under policy and reference mixed by `mix`
    }
)


class TokenLogps(NamedTuple):
    """Log-probability of each response token [B, R], and 1 where there is one [B, R]."""

    logprobs: Tensor
    mask: Tensor


class PairLogps(NamedTuple):
    """Log-probabilities of two responses, summed over tokens and the end token, each [B]."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor


class ContrastLogps(NamedTuple):
    """Sums for both responses, no reference, and the batch's mean chosen length; each [B]."""

    chosen: Tensor
    rejected: Tensor
    mean_chosen_length: Tensor


class MeanLogps(NamedTuple):
    """Sums for both responses and their tokens, no reference; each [B]."""

    chosen: Tensor
    rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor


class LengthLogps(NamedTuple):
    """A pair with its reference, the tokens of each response, and of the batch's; each [B]."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor
    mean_chosen_length: Tensor


class TripleLogps(NamedTuple):
    """A pair and a gold response to imitate, no reference; each [B]."""

    chosen: Tensor
    rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor
    gold: Tensor
    mean_gold_length: Tensor


class UnpairedLogps(NamedTuple):
    """A pair with its reference, and the batch's KL on mismatched responses; each [B]."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    mismatch_kl: Tensor


class WinLogps(NamedTuple):
    """A pair with its reference, and how probably each response wins; each [B]."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_win: Tensor
    rejected_win: Tensor


class CarriedLogps(NamedTuple):
    """A pair with its reference, and a statistic of the steps before; each [B]."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    carried: Tensor


class MixedLogps(NamedTuple):
    """A pair with its reference, its sums under a mixture, and a statistic; each [B]."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    mixed_chosen: Tensor
    mixed_rejected: Tensor
    carried: Tensor


class Past(NamedTuple):
    """The figures of the steps that were taken, means over the batch, of how many in all."""

    figures: Sequence[Mapping[str, float]] = ()
    steps: int = 1


NO_PAST = Past()


class Objective(Value):
    """What a policy is trained for on fixed data."""

    training: Training

    def loss(self, batch: Any) -> Tensor:
        """One loss per example, [B], or per response token, [B, R]; no reduction."""
        raise NotImplementedError

    def carry(self, past: Past) -> float:
        """A running statistic, as a function of the figures of the steps before."""
        raise NotImplementedError

    def mix(self) -> float:
        """Weight w of the mixed logits (1 + w) * policy - w * reference."""
        raise NotImplementedError


def view_of(objective: Objective) -> type[Any]:
    """The view that `loss` asks for: the annotation of its parameter."""
    hints = get_type_hints(type(objective).loss, localns={"Tensor": object})
    view: type[Any] = next(hint for name, hint in hints.items() if name != "return")
    return view


def logsigmoid(margin: Tensor) -> Tensor:
    """Log of the logistic function, stable on both sides; any shape."""
    from torch.nn.functional import logsigmoid as log_of_sigmoid

    return log_of_sigmoid(margin)


class KLPenalty(Value):
    """What a token costs for straying from the reference."""

    coef: float = Field(default=0.0067, ge=0, description="Price of one nat")
    estimator: Literal["k1", "k2", "k3", "clamped"] = Field(
        default="k1", description="k1 signed log-ratio; clamped is AlpacaFarm's"
    )
    target: float | None = Field(default=None, gt=0, description="Nats a response; adapts coef")
    limit: float = Field(default=100.0, gt=0, description="Nats a response that end training")


class Shaping(Value):
    """What happens to the reward model's scores before they are rewards."""

    whiten: bool = Field(default=True, description="Unit variance, mean kept")
    missing_eos: float | None = Field(default=-1.0, description="Score of an unfinished response")
    importance_cap: float | None = Field(
        default=None, gt=0, description="Corrects for the sampler, up to this ratio"
    )


class Critic(Value):
    """The value model: a separate network with a fresh head of zeros."""

    init: Literal["reward", "policy"] = Field(default="reward", description="Where it starts")
    clip: float = Field(default=0.2, gt=0, description="Largest change of a value")
    coef: float = Field(default=0.1, ge=0, description="Weight of its loss")


class ProximalObjective(Value):
    """PPO against a reward model; AlpacaFarm's values."""

    steps: int = Field(default=40, ge=1, description="Rounds of sampling and learning")
    rollouts: int = Field(default=512, ge=1, description="Responses sampled per step")
    minibatch: int = Field(default=256, ge=1, description="Responses per gradient step")
    inner_epochs: int = Field(default=2, ge=1, description="Passes over each step's rollouts")
    kl: KLPenalty = Field(default=KLPenalty(), description="Price of leaving the reference")
    clip: float = Field(default=0.2, gt=0, description="Largest change of the probability ratio")
    gamma: float = Field(default=1.0, gt=0, le=1, description="Discount per token")
    lam: float = Field(default=1.0, ge=0, le=1, description="Decay of advantage estimation")
    critic: Critic = Field(default=Critic(), description="The value model")
    shaping: Shaping = Field(default=Shaping(), description="From scores to rewards")
    sampling: Sampling = Field(
        default=Sampling(temperature=1.0, max_tokens=300), description="How rollouts are drawn"
    )
    training: Training = Field(
        default=Training(
            learning_rate=1e-5, adam_epsilon=1e-5, batch=256, schedule="linear", warmup=0.0125
        ),
        description="Optimiser; its epochs and batch are unused",
    )

    @model_validator(mode="after")
    def _on_one_base(self) -> Self:
        if self.training.lora is not None and self.critic.init == "reward":
            raise ValueError(
                "with LoRA policy and critic share one base, so the critic cannot start from the "
                "reward model: set critic.init to policy"
            )
        return self
