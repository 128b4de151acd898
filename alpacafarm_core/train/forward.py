"""Models on padded batches: what each response token, or each whole response, is given.

B is rows, R response tokens, N response tokens laid end to end, H hidden width. The backbone runs
once over prompt and response; heads see only the positions that matter.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from alpacafarm_core.train.batches import Padded
from alpacafarm_core.train.logps import Head, entropies, token_logprobs


class Judged(NamedTuple):
    """Log-probability and entropy (nats) at each response token, each [B, R], zero on padding."""

    logprobs: Tensor
    entropies: Tensor


def response_logprobs(model: Any, batch: Padded) -> Tensor:
    """Log-probability of each response token, [B, R] in float32, zero on padding."""
    hidden = _predicting(model, batch)
    found = token_logprobs(hidden, batch.targets[batch.mask], _head(model))
    return _spread(found, batch.mask)


@torch.no_grad()
def judged(model: Any, batch: Padded) -> Judged:
    """Log-probabilities and entropies, without gradient."""
    hidden, head = _predicting(model, batch), _head(model)
    found = token_logprobs(hidden, batch.targets[batch.mask], head)
    return Judged(_spread(found, batch.mask), _spread(entropies(hidden, head), batch.mask))


def response_values(critic: Any, batch: Padded) -> Tensor:
    """The critic's value before each response token, [B, R] in float32, zero on padding."""
    values = critic.score(_predicting(critic, batch))[:, 0].float()
    return _spread(values, batch.mask)


def response_scores(scorer: Any, batch: Padded) -> Tensor:
    """The scorer's number at the last token of each row, [B] in float32."""
    hidden = scorer.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    last = batch.where[:, :1] + batch.mask.sum(1, keepdim=True)
    rows = torch.arange(len(hidden), device=hidden.device)
    scores: Tensor = scorer.score(hidden[rows, last[:, 0]])[:, 0].float()
    return scores


def _predicting(model: Any, batch: Padded) -> Tensor:
    """Hidden states that predict a response token, [N, H]."""
    hidden = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    rows = torch.arange(len(hidden), device=hidden.device)[:, None].expand_as(batch.where)
    picked: Tensor = hidden[rows[batch.mask], batch.where[batch.mask]]
    return picked


def _head(model: Any) -> Head:
    """The language model's head, with the soft cap on logits that Gemma 2 has."""
    head: Head = model.get_output_embeddings()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return head if cap is None else lambda hidden: torch.tanh(head(hidden) / cap) * cap


def _spread(found: Tensor, mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, found)
