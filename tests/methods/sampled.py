"""Rollouts by hand, for what a method makes of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alpacafarm_core.train.batches import Tokens
from alpacafarm_core.train.rollouts import Rollouts


def rollouts_of(scores: Sequence[float], ratios: Tensor, mask: Tensor | None = None) -> Rollouts:
    """Responses with these scores [B] and log-ratios of policy to reference [B, R]."""
    known = torch.ones_like(ratios) if mask is None else mask
    nothing = torch.zeros_like(ratios)
    return Rollouts(
        rows=[Tokens([0], [5] * int(length)) for length in known.sum(1)],
        scores=torch.tensor(scores),
        finished=torch.ones(len(scores)).bool(),
        sampled=nothing,
        mask=known,
        logprobs=ratios * known - known,
        ref_logprobs=-known,
        entropies=nothing,
        values=nothing,
    )
