"""Responses with their rewards, as a loop that sorts them holds them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alpacafarm_core.train.rollouts import laid, lifted
from alpacafarm_core.train.tokens import Tokens


class Pool(NamedTuple):
    """Responses with their prompts, without any reward token; `scores` and `finished` are [B]."""

    rows: list[Tokens]
    scores: Tensor
    finished: Tensor


def joined(parts: Sequence[Pool]) -> Pool:
    """Several as one, in order."""
    return Pool(
        rows=[row for part in parts for row in part.rows],
        scores=torch.cat([part.scores for part in parts]),
        finished=torch.cat([part.finished for part in parts]),
    )


def held(pool: Pool) -> dict[str, Tensor]:
    """As tensors alone, for a checkpoint."""
    return {"scores": pool.scores, "finished": pool.finished, **laid(pool.rows)}


def restored(tensors: Mapping[str, Tensor]) -> Pool:
    """The pool again, from what `held` made of it; an empty one from nothing."""
    if not tensors:
        return Pool([], torch.zeros(0), torch.zeros(0).bool())
    return Pool(lifted(tensors), tensors["scores"], tensors["finished"])
