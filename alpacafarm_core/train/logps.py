"""Log-probabilities of response tokens, in float32, a bounded slab of the vocabulary at a time.

Pure. N is response tokens of a whole batch laid end to end, H hidden width, V vocabulary. Padding
never gets here: the caller picks the hidden states that predict a response token.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]

SLAB = 32_000_000  # logits held at once; 128 MB in float32


def tempered(head: Head, temperature: float) -> Head:
    """The head of the distribution that is sampled from; at 0, which is greedy, the head itself."""
    return head if temperature in (0, 1) else lambda hidden: head(hidden) / temperature


def token_logprobs(hidden: Tensor, targets: Tensor, head: Head, slab: int = SLAB) -> Tensor:
    """Log-probability of each target, [N] in float32.

    `hidden` [N, H] predicts `targets` [N] through `head` ([n, H] -> [n, V]). One slab is computed
    straight; with several, each is computed again in the backward pass instead of being held.
    """
    rows = max(1, slab // _width(head, hidden))
    if len(targets) <= rows:
        return _logprobs(hidden, targets, head)
    parts = zip(_slabs(hidden, rows), _slabs(targets, rows), strict=True)
    return torch.cat([checkpoint(_logprobs, h, t, head, use_reentrant=False) for h, t in parts])


@torch.no_grad()
def entropies(hidden: Tensor, head: Head, slab: int = SLAB) -> Tensor:
    """Entropy in nats of each next-token distribution, [N]; `hidden` is [N, H]."""
    parts = _slabs(hidden, max(1, slab // _width(head, hidden)))
    return torch.cat([_entropy(head(part).float()) for part in parts])


def divergences(
    hidden: tuple[Tensor, Tensor],
    targets: Tensor,
    heads: tuple[Head, Head],
    plain: tuple[Tensor, Tensor],
    slab: int = SLAB,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability of each target, exact KL(policy || reference) and entropy in nats, all [N].

    Everything is given for the policy and for the reference: `hidden` [N, H], the head, and the ids
    that are `plain` tokens, equally many of both. KL and entropy are of the distributions over
    those alone; the log-probability is over the policy's whole vocabulary.
    """
    rows = max(1, slab // (2 * _width(heads[0], hidden[0])))
    if len(targets) <= rows:
        return _divergences(*hidden, targets, heads, plain)
    parts = zip(*(_slabs(each, rows) for each in (*hidden, targets)), strict=True)
    found = [checkpoint(_divergences, *part, heads, plain, use_reentrant=False) for part in parts]
    ours, away, left = (torch.cat(each) for each in zip(*found, strict=True))
    return ours, away, left


def _divergences(
    hidden: Tensor,
    ref_hidden: Tensor,
    targets: Tensor,
    heads: tuple[Head, Head],
    plain: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    logits = heads[0](hidden).float()
    found = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    ours = logits.index_select(-1, plain[0]).log_softmax(-1)
    theirs = heads[1](ref_hidden).float().index_select(-1, plain[1]).log_softmax(-1)
    probs = ours.exp()
    return found, (probs * (ours - theirs)).sum(-1), -(probs * ours).sum(-1)


def _slabs(tensor: Tensor, rows: int) -> Iterator[Tensor]:
    return (tensor[start : start + rows] for start in range(0, len(tensor), rows))


def _logprobs(hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
    logits = head(hidden).float()
    return -torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def _entropy(logits: Tensor) -> Tensor:
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


@torch.no_grad()
def _width(head: Head, hidden: Tensor) -> int:
    return max(1, head(hidden[:1]).shape[-1])
