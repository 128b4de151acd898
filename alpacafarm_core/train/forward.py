"""Models on padded batches: what each response token, or each whole response, is given.

N is responses, R tokens of one, T tokens of all laid end to end, H hidden width. The backbone runs
once over prompt and response; heads see only the positions that matter.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alpacafarm_core.train import lean
from alpacafarm_core.train.batches import Padded
from alpacafarm_core.train.logps import Head, divergences, entropies, tempered, token_logprobs


class Judged(NamedTuple):
    """Log-probability and entropy (nats) at each response token, each [N, R], zero on padding."""

    logprobs: Tensor
    entropies: Tensor


def response_logprobs(model: Any, batch: Padded, temperature: float = 1.0) -> Tensor:
    """Log-probability of each response token, [N, R] in float32, zero on padding."""
    hidden, head = _predicting(model, batch), tempered(_head(model), temperature)
    return _spread(token_logprobs(hidden, batch.targets[batch.mask], head), batch.mask)


@torch.no_grad()
def mixed_logprobs(model: Any, reference: Any, batch: Padded, weight: float) -> Tensor:
    """Log-probabilities under the logits (1 + weight) * policy - weight * reference, [N, R]."""
    if not weight:
        return response_logprobs(model, batch)
    ours, theirs = _predicting(model, batch), _predicting(reference, batch)
    width, head, other = ours.shape[-1], _head(model), _head(reference)

    def mixed(hidden: Tensor) -> Tensor:
        return (1 + weight) * head(hidden[:, :width]) - weight * other(hidden[:, width:])

    found = token_logprobs(torch.cat([ours, theirs], -1), batch.targets[batch.mask], mixed)
    return _spread(found, batch.mask)


@torch.no_grad()
def judged(model: Any, batch: Padded, temperature: float = 1.0) -> Judged:
    """Log-probabilities and entropies at a temperature, without gradient."""
    hidden, head = _predicting(model, batch), tempered(_head(model), temperature)
    found = token_logprobs(hidden, batch.targets[batch.mask], head)
    return Judged(_spread(found, batch.mask), _spread(entropies(hidden, head), batch.mask))


def response_divergences(
    ours: tuple[Any, Padded], theirs: tuple[Any, Padded], never: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability, KL(policy || reference) and entropy at each response token, each [N, R].

    Policy and reference read the same responses, each after its own prompts; KL and entropy leave
    out the tokens in `never`, which the reference may not have. Zero on padding.
    """
    (model, batch), (reference, other) = ours, theirs
    plain = [_plain(each, never) for each in (model, reference)]
    count = min(map(len, plain))
    with torch.no_grad():
        known = _predicting(reference, other)
    found = divergences(
        (_predicting(model, batch), known),
        batch.targets[batch.mask],
        (_head(model), _head(reference)),
        (plain[0][:count], plain[1][:count]),
    )
    logprobs, kl, left = (_spread(each, batch.mask) for each in found)
    return logprobs, kl, left


def response_values(critic: Any, batch: Padded) -> Tensor:
    """The critic's value before each response token, [N, R] in float32, zero on padding."""
    values = critic.score(_predicting(critic, batch))[:, 0].float()
    return _spread(values, batch.mask)


def response_scores(scorer: Any, batch: Padded) -> Tensor:
    """The scorer's number at the last token of each response, [N] in float32."""
    scores: Tensor = scorer.score(response_states(scorer, batch))[:, 0].float()
    return scores


def response_states(scorer: Any, batch: Padded) -> Tensor:
    """The last layer's state at the last token of each response, [N, H]."""
    return _hidden_at(scorer, batch, batch.rows, batch.last)


def _predicting(model: Any, batch: Padded) -> Tensor:
    """Hidden states that predict a response token, [T, H]."""
    rows = batch.rows[:, None].expand_as(batch.where)
    return _hidden_at(model, batch, rows[batch.mask], batch.where[batch.mask])


def _hidden_at(model: Any, batch: Padded, rows: Tensor, at: Tensor) -> Tensor:
    """The last layer's hidden states at positions `at` [T] of rows `rows` [T], as [T, H]."""
    if lean.suits(model):
        return lean.hidden_at(model, batch, rows, at)
    hidden: Tensor = model.base_model(
        input_ids=batch.ids,
        attention_mask=batch.attention,
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    return hidden[rows, at]


def _head(model: Any) -> Head:
    """The language model's head, with the soft cap on logits that Gemma 2 has."""
    head: Head = model.get_output_embeddings()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return head if cap is None else lambda hidden: torch.tanh(head(hidden) / cap) * cap


def _plain(model: Any, never: Sequence[int]) -> Tensor:
    """Ids of a model's vocabulary without some of them."""
    ids = torch.arange(model.config.vocab_size, device=model.device)
    return ids[~torch.isin(ids, torch.tensor(list(never), device=model.device))]


def _spread(found: Tensor, mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, found)
