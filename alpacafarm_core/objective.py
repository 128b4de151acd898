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
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

from alpacafarm_core.settings import Training
from alpacafarm_core.values import Value

if TYPE_CHECKING:
    from torch import Tensor

LN_2 = 0.6931471805599453
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


Referenced = PairLogps | LengthLogps | UnpairedLogps | WinLogps | CarriedLogps | MixedLogps
"""A pair with what the reference makes of it."""


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


def log_ratios(batch: Referenced) -> tuple[Tensor, Tensor]:
    """Log-ratio of policy to reference, in nats, of the chosen and the rejected, each [B]."""
    return batch.chosen - batch.ref_chosen, batch.rejected - batch.ref_rejected


def margin_of(batch: Referenced) -> Tensor:
    """By how much the policy prefers the chosen more than the reference does, in nats, [B]."""
    chosen, rejected = log_ratios(batch)
    return chosen - rejected


def mean_logps(batch: MeanLogps | LengthLogps | TripleLogps) -> tuple[Tensor, Tensor]:
    """Log-probability a token of the chosen and the rejected, each [B]; 0 where there is none."""
    chosen, rejected = (n.clamp(min=1) for n in (batch.chosen_length, batch.rejected_length))
    return batch.chosen / chosen, batch.rejected / rejected


def log_odds(mean: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = exp(mean), for any mean <= 0; any shape.

    A response that is certain (p = 1) counts as one of 1 - p = 1e-7.
    """
    low = mean.clamp(max=-1e-7)
    near, far = (-low.expm1()).log(), (-low.clamp(max=-LN_2).exp()).log1p()
    return low - near.where(low > -LN_2, far)
