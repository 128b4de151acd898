"""What pairs teach a reward model: Bradley-Terry, with margins, a penalty, and heads for length.

Pure functions of tensors. B is pairs, N responses of a whole batch, H hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alpacafarm_core.errors import BadInput
from alpacafarm_core.fitting import Margin

NEAR_NOTHING = 1e-6  # ODIN's code adds it to the product of the heads' norms


class Judged(NamedTuple):
    """Rewards of N responses by the quality head and by the length head, and their tokens."""

    quality: Tensor
    length: Tensor
    tokens: Tensor


def pair_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """-log sigmoid(r_w - r_l - m): rewards of both sides and the margin asked for, each [B].

    Bradley-Terry, and with a margin UltraRM (arXiv 2310.01377): ln 2 where the gap is the margin.
    """
    return -logsigmoid(chosen - rejected - margin)


def penalty_loss(chosen: Tensor, rejected: Tensor, weight: float) -> Tensor:
    """Reg: b * (r_w^2 + r_l^2), each [B]; PAR (arXiv 2502.18770), table of rivals.

    A pair that is told apart settles at the gap d with sigmoid(-d) = b * d, centred on zero.
    """
    return weight * (chosen.square() + rejected.square())


def length_loss(seen: Judged, weight: float) -> Tensor:
    """ODIN's |corr(r_Q, length)| - corr(r_L, length) over a whole batch, times a weight; [].

    From -1, where quality says nothing of length and the other head everything, to 2.
    """
    of_quality = correlation(seen.quality, seen.tokens)
    loss: Tensor = weight * (of_quality.abs() - correlation(seen.length, seen.tokens))
    return loss


def orthogonality_loss(quality: Tensor, length: Tensor, weight: float) -> Tensor:
    """ODIN's |W_Q W_L^T| / (|W_Q| |W_L|) of two heads, each [1, H], times a weight; []."""
    norms = torch.linalg.norm(quality) * torch.linalg.norm(length) + NEAR_NOTHING
    loss: Tensor = weight * torch.linalg.norm(quality @ length.t()) / norms
    return loss


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation of two [N], as []; 0, without gradient, where either is constant."""
    a, b = one - one.mean(), other - other.mean()
    norms = torch.linalg.norm(a) * torch.linalg.norm(b)
    if not bool(norms.detach() > 0):
        return torch.zeros((), dtype=one.dtype, device=one.device)
    found: Tensor = (a * b).sum() / norms
    return found


def slopes(seen: Judged, weight: float) -> tuple[Judged, float]:
    """How `length_loss` of a whole batch changes with each reward, [N], and its value.

    So a micro-batch that knows its share of these numbers has the exact gradient of the batch.
    """
    quality, length = (each.detach().double().requires_grad_() for each in seen[:2])
    loss = length_loss(Judged(quality, length, seen.tokens.double()), weight)
    if not loss.requires_grad:
        return seen._replace(quality=seen.quality * 0, length=seen.length * 0), float(loss)
    found = torch.autograd.grad(loss, (quality, length), allow_unused=True)
    slope = [torch.zeros_like(quality) if each is None else each for each in found]
    return Judged(slope[0].float(), slope[1].float(), seen.tokens), float(loss.detach())


def margins(
    gaps: Sequence[float | None], margin: Margin | None, rows: Sequence[int] = ()
) -> list[float]:
    """The margin of each pair: its gap as a share of the largest, 0 where there is none.

    Raises BadInput, naming the row, where a gap is negative or more than the largest allowed.
    """
    if margin is None:
        return [0.0] * len(gaps)
    known = [gap or 0.0 for gap in gaps]
    largest = margin.largest or max(known, default=0.0)
    for at, gap in enumerate(known):
        if 0 <= gap <= largest:
            continue
        row = rows[at] if len(rows) else at
        mend = f"raise fitting.margin.largest, which is {largest:g}"
        if not gap > largest:
            mend = "put the preferred answer's number first, or leave fitting.margin out"
        raise BadInput(f"row {row}: its gap is {gap:g}; {mend}")
    return [gap / largest if largest else 0.0 for gap in known]
