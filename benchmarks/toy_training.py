"""Training of toy policies by the farm's own objectives: their losses, on the views they ask for.

All worlds learn at once and apart: a step's gradient is the sum over worlds of the gradient of each
world's mean loss, and Adam treats every number by itself. Left out: schedules, clipping and every
other setting of an objective's `training`; the toy trains everything alike.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor

from alpacafarm_core.objective import NO_PAST, OF_PAIRS, Objective, Past, view_of
from alpacafarm_core.select import chosen
from alpacafarm_core.train.views import figures_of
from benchmarks.toy_world import (
    Answers,
    behind,
    expected_gold,
    gold,
    sums,
    token_logprobs,
    worlds_of,
)

RATE, BATCH = 0.02, 64


class Data(NamedTuple):
    """What is learned from, world after world; `counts` are the rows of each world.

    Only pairs have rejected answers, only triples gold ones to imitate, and only pairs whose
    answers were compared the probability of each to win, [N, 2].
    """

    counts: list[int]
    chosen: Answers
    rejected: Answers | None = None
    imitated: Answers | None = None
    wins: Tensor | None = None

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "Data":
        """The rows of Demonstrations, Preferences or Ranked; undecided pairs are left out."""
        rows = frame.sort(pl.col("dataset").cast(pl.Int64), maintain_order=True)
        if "preference" not in rows.columns:
            return cls(_counts(rows), Answers.of(rows, "output"))
        # The one that lost is the one that is chosen when the label is turned round.
        turned = rows.with_columns(preference=3 - pl.col("preference"))
        data = cls(
            _counts(chosen(rows)),
            Answers.of(chosen(rows), "output"),
            Answers.of(chosen(turned), "output"),
        )
        if "gold" in rows.columns and (rows["gold"] != "").all():
            data = data._replace(imitated=Answers.of(rows, "gold"))
        if "win_1" in rows.columns and not rows["win_1"].null_count():
            data = data._replace(wins=rows.select("win_1", "win_2").to_torch().float())
        return data

    @property
    def mismatched(self) -> Answers:
        """Each prompt with the chosen answer of the row before."""
        before = torch.arange(len(self.chosen.ids)) - 1
        return self.chosen.answered_by(self.chosen.take(before))


class Stage(NamedTuple):
    """What one training was like in each world; every tensor is [S].

    Changes are of log-probabilities from the start to the end of the training, in nats a response;
    `margin` is by how much the chosen answers are truly better, `right` how many of the pairs with
    a true difference are in order; `grad_norm` is that of the loss over the data before any step.
    """

    gold: Tensor
    grad_norm: Tensor
    chosen: Tensor
    rejected: Tensor
    imitated: Tensor
    margin: Tensor
    right: Tensor


class Lesson(NamedTuple):
    """One training: the data, the frozen table it is measured against, and what that makes of it.

    `known` has the reference's log-probability of every token, [N, R], for each side of the data;
    `names` are the fields that the loss sees.
    """

    objective: Objective
    data: Data
    reference: Tensor
    known: list[Tensor]
    names: frozenset[str]

    @classmethod
    def of(cls, objective: Objective, data: Data, reference: Tensor) -> "Lesson":
        """The reference looks at the data once."""
        sides = [side for side in (data.chosen, data.rejected) if side is not None]
        known = [token_logprobs(reference, side) for side in sides]
        return cls(objective, data, reference, known, frozenset(view_of(objective)._fields))


def trained(start: Tensor, lesson: Lesson, steps: int, draw: torch.Generator) -> Tensor:
    """The table after `steps` steps of Adam on batches of each world's rows."""
    table = start.clone().requires_grad_()
    adam = torch.optim.Adam([table], lr=RATE)
    past: list[list[dict[str, float]]] = [[] for _ in lesson.data.counts]
    for at in batches(lesson.data.counts, steps, draw):
        view = see(table, lesson, at, [Past(one, steps) for one in past])
        adam.zero_grad()
        mean_losses(lesson, view, len(start)).sum().backward()
        adam.step()
        if "carried" in lesson.names:
            for one, part in zip(past, _apart(view, len(start)), strict=True):
                one.append({"rows": float(BATCH)} | figures_of(part, BATCH))
    return table.detach()


def batches(counts: list[int], steps: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Rows of each step, 64 of each world, world after world; every row once before any twice."""
    each, first = [], 0
    for count in counts:
        passes = -(-steps * BATCH // count)
        orders = [torch.randperm(count, generator=draw) for _ in range(passes)]
        each.append(first + torch.cat(orders)[: steps * BATCH].view(steps, BATCH))
        first += count
    yield from torch.cat(each, dim=1)


def see(table: Tensor, lesson: Lesson, at: Tensor, past: list[Past]) -> Any:
    """The view of the rows `at`, as many of each world, that the objective's loss asks for."""
    data, names = lesson.data, lesson.names
    won = data.chosen.take(at)
    if not names <= OF_PAIRS or data.rejected is None:
        ours = token_logprobs(table, won)
        fields = {"logprobs": ours, "ref_logprobs": lesson.known[0][at], "mask": won.mask}
        return view_of(lesson.objective)(**{name: fields[name] for name in names})
    lost = data.rejected.take(at)
    fields = {"chosen": sums(table, won), "rejected": sums(table, lost)}
    if "ref_chosen" in names:
        fields["ref_chosen"], fields["ref_rejected"] = (one[at].sum(1) for one in lesson.known)
    fields |= {"chosen_length": won.lengths, "rejected_length": lost.lengths}
    fields |= _further(table, lesson, at, past)
    return view_of(lesson.objective)(**{name: fields[name] for name in names})


def _further(table: Tensor, lesson: Lesson, at: Tensor, past: list[Past]) -> dict[str, Tensor]:
    """What only some losses ask for, each [N]."""
    data, names, worlds, found = lesson.data, lesson.names, len(table), dict[str, Tensor]()
    if "mean_chosen_length" in names:
        found["mean_chosen_length"] = _means(data.chosen.take(at).lengths, worlds)
    if "gold" in names and data.imitated is not None:
        imitated = data.imitated.take(at)
        found["gold"] = sums(table, imitated)
        found["mean_gold_length"] = _means(imitated.lengths, worlds)
    if "chosen_win" in names and data.wins is not None:
        found["chosen_win"], found["rejected_win"] = data.wins[at].unbind(1)
    if "mismatch_kl" in names:
        others = data.mismatched.take(at)
        ratios = sums(table.detach(), others) - sums(lesson.reference, others)
        found["mismatch_kl"] = _means(ratios, worlds)
    if "carried" in names:
        carried = torch.tensor([lesson.objective.carry(one) for one in past])
        found["carried"] = carried.repeat_interleave(len(at) // worlds)
    if "mixed_chosen" in names and data.rejected is not None:
        weight = lesson.objective.mix()
        mixed = (1 + weight) * table.detach() - weight * lesson.reference
        found["mixed_chosen"] = sums(mixed, data.chosen.take(at))
        found["mixed_rejected"] = sums(mixed, data.rejected.take(at))
    return found


def mean_losses(lesson: Lesson, view: Any, worlds: int) -> Tensor:
    """Mean loss of each world, [S], over its tokens or over its examples."""
    losses = lesson.objective.loss(view)
    if losses.dim() == 1:
        return losses.view(worlds, -1).mean(1)
    total = (losses * view.mask).view(worlds, -1).sum(1)
    return total / view.mask.view(worlds, -1).sum(1)


def staged(start: Tensor, end: Tensor, lesson: Lesson) -> Stage:
    """What a training from one table to another was like."""
    data, nothing = lesson.data, torch.zeros(len(start))
    sides = [data.chosen, data.rejected, data.imitated]
    changes = [
        nothing if side is None else by_world(sums(end, side) - sums(start, side), data.counts)
        for side in sides
    ]
    margin = right = nothing
    if data.rejected is not None:
        gaps = gold(data.chosen) - gold(data.rejected)
        margin, differ = by_world(gaps, data.counts), by_world((gaps != 0).float(), data.counts)
        right = by_world((gaps > 0).float(), data.counts) / differ
    return Stage(
        expected_gold(behind(end, None)), _first_norm(start, lesson), *changes, margin, right
    )


def by_world(numbers: Tensor, counts: list[int]) -> Tensor:
    """Means over the rows of each world, which lie world after world, [S]."""
    return torch.stack([part.mean() for part in numbers.split(counts)])


def _first_norm(start: Tensor, lesson: Lesson) -> Tensor:
    """Norm of the gradient of each world's mean loss over its data, before any step, [S]."""
    counts, table = lesson.data.counts, start.clone().requires_grad_()
    # As many rows of each world as the smallest has: statistics of a batch are laid out so.
    firsts = torch.tensor([0, *counts[:-1]]).cumsum(0)
    at = (firsts[:, None] + torch.arange(min(counts))).flatten()
    view = see(table, lesson, at, [NO_PAST] * len(start))
    mean_losses(lesson, view, len(start)).sum().backward()
    return table.grad.flatten(1).norm(dim=1)


def _means(numbers: Tensor, worlds: int) -> Tensor:
    """Each world's mean, for each of its rows, [N]."""
    apart = numbers.view(worlds, -1)
    return apart.mean(1, keepdim=True).expand_as(apart).flatten()


def _apart(view: Any, worlds: int) -> list[Any]:
    """A view for each world."""
    fields = [field.detach().view(worlds, -1) for field in view]
    return [type(view)(*(field[world] for field in fields)) for world in range(worlds)]


def _counts(rows: pl.DataFrame) -> list[int]:
    return torch.bincount(worlds_of(rows)).tolist()
