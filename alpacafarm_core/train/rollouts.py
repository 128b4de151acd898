"""One PPO step's responses, and what the models say of them before they learn from them."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from alpacafarm_core.train import rl
from alpacafarm_core.train.batches import Tokens
from alpacafarm_core.train.contracts import gap

PER_TOKEN = ("sampled", "mask", "logprobs", "ref_logprobs", "entropies", "values")
PER_RESPONSE = ("scores", "finished")
SURE, TINY = 2.0, 0.01  # standard errors, and nats, below which a mean is not taken for negative


class Rollouts(NamedTuple):
    """Responses with their prompts.

    `scores` and `finished` are [B]; the rest is [B, R], zero on padding. `sampled` are the
    sampler's own log-probabilities, not a number where it gave none.
    """

    rows: list[Tokens]
    scores: Tensor
    finished: Tensor
    sampled: Tensor
    mask: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    entropies: Tensor
    values: Tensor


def imagined(rows: list[Tokens]) -> Rollouts:
    """Rollouts of these responses, all of one length, of which nothing is known: all zeros."""
    shape = (len(rows), len(rows[0].response))
    known = {name: torch.zeros(shape) for name in PER_TOKEN} | {"mask": torch.ones(shape)}
    return Rollouts(
        rows=rows, scores=torch.zeros(shape[0]), finished=torch.zeros(shape[0]).bool(), **known
    )


def joined(parts: Sequence[Rollouts]) -> Rollouts:
    """The rollouts of all processes as one, in order."""
    if len(parts) == 1:
        return parts[0]
    longest = max(part.mask.shape[1] for part in parts)
    found = {name: torch.cat([getattr(part, name) for part in parts]) for name in PER_RESPONSE}
    for name in PER_TOKEN:
        each = [getattr(part, name) for part in parts]
        found[name] = torch.cat([pad(one, (0, longest - one.shape[1])) for one in each])
    return Rollouts(rows=[row for part in parts for row in part.rows], **found)


def described(rollouts: Rollouts) -> dict[str, float]:
    """What a step's responses are like; KL in nats a response, entropy in nats a token."""
    mask = rollouts.mask
    signed = rl.kl(rollouts.logprobs, rollouts.ref_logprobs, "k1") * mask
    positive = rl.kl(rollouts.logprobs, rollouts.ref_logprobs, "k3") * mask
    return {
        "reward": float(rollouts.scores.mean()),
        "kl": float(signed.sum(1).mean()),
        "kl_k3": float(positive.sum(1).mean()),
        "entropy": float(rl.masked_mean(rollouts.entropies, mask)),
        "length": float(mask.sum(1).mean()),
        "tokens": float(mask.sum()),
        "eos_rate": float(rollouts.finished.float().mean()),
    }


def below_reference(rollouts: Rollouts) -> bool:
    """Whether the mean signed log-ratio of a response is below 0 by more than chance allows.

    No distance is: the policy then earns by being less sure than the reference.
    """
    signed = rl.kl(rollouts.logprobs, rollouts.ref_logprobs, "k1") * rollouts.mask
    nats = signed.sum(1)
    doubt = float(nats.std()) / len(nats) ** 0.5 if len(nats) > 1 else 0.0
    return float(nats.mean()) < -max(SURE * doubt, TINY)


def agreement(rollouts: Rollouts) -> dict[str, float]:
    """How far sampler and trainer are apart; nothing where the sampler told no probabilities."""
    told = rollouts.mask.bool() & ~rollouts.sampled.isnan()
    return gap(rollouts.sampled, rollouts.logprobs, told) if told.any() else {}


def held(rollouts: Rollouts) -> dict[str, Tensor]:
    """As tensors alone, for a checkpoint."""
    found: dict[str, Tensor] = {n: getattr(rollouts, n) for n in (*PER_TOKEN, *PER_RESPONSE)}
    return found | laid(rollouts.rows)


def restored(tensors: Mapping[str, Tensor]) -> Rollouts:
    """The rollouts again, from what `held` made of them."""
    known = {name: tensors[name] for name in (*PER_TOKEN, *PER_RESPONSE)}
    return Rollouts(rows=lifted(tensors), **known)


def laid(rows: Sequence[Tokens]) -> dict[str, Tensor]:
    """Prompts and responses end to end, and the length of each."""
    found: dict[str, Tensor] = {}
    for name in Tokens._fields:
        lists: list[list[int]] = [getattr(row, name) for row in rows]
        found[f"{name}_ids"] = torch.tensor([each for ids in lists for each in ids])
        found[f"{name}_lengths"] = torch.tensor([len(ids) for ids in lists])
    return found


def lifted(tensors: Mapping[str, Tensor]) -> list[Tokens]:
    """The rows again, from what `laid` made of them."""
    return [
        Tokens(*both) for both in zip(*(_lists(tensors, n) for n in Tokens._fields), strict=True)
    ]


def _lists(tensors: Mapping[str, Tensor], name: str) -> list[list[int]]:
    ids, lengths = (tensors[f"{name}_{part}"].tolist() for part in ("ids", "lengths"))
    ends = list(accumulate(lengths))
    return [ids[end - length : end] for end, length in zip(ends, lengths, strict=True)]
