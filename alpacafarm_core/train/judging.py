"""What one batch teaches a reward model, as settings ask: order, margins, length, views.

Correlation with length, and what the views of different prompts say of each other, belong to a
whole batch. Where they are asked for, the batch is looked at first without gradient; how the term
changes with each number of a response is worked out once, and a micro-batch then adds its share.
So the gradient is that of the whole batch, whatever the micro-batch and the number of processes.
B is pairs of a batch, b those of a micro-batch, H hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import NO_PAST, Past
from alpacafarm_core.settings import Fitting
from alpacafarm_core.train import bradley_terry, multi_view
from alpacafarm_core.train.batches import Padded, Room, alike, batch_of
from alpacafarm_core.train.bradley_terry import Judged
from alpacafarm_core.train.engine import Learn, gathered, share
from alpacafarm_core.train.forward import response_states
from alpacafarm_core.train.judged import Sampled, Split
from alpacafarm_core.train.models import Loaded, autocast, begin, sharing
from alpacafarm_core.train.multi_view import ViewHeads
from alpacafarm_core.train.team import Team
from alpacafarm_core.train.tokens import Pair

LENGTH_HEAD, VIEW_HEADS = "length_head", "view_heads"
ORTHOGONALITY = "orthogonality"


class Course(NamedTuple):
    """A reward model on its way: the model, its pairs, how it is fitted and on what.

    `sampled` are a policy's samples, where something is learned from them.
    """

    scorer: Loaded
    split: Split
    fitting: Fitting
    machine: Machine
    sampled: Sampled | None = None

    @property
    def looks_ahead(self) -> bool:
        """Whether a term of the loss belongs to the whole batch."""
        return self.fitting.odin is not None or self.sampled is not None


class Sight(NamedTuple):
    """What b pairs show: rewards of both sides by each head, and states of both views.

    `quality` and `length` [b, 2], chosen first; `states` [b, 2, H]. Empty where nobody asks.
    """

    quality: Tensor
    length: Tensor
    states: Tensor


class Ahead(NamedTuple):
    """Terms of a whole batch, by name, and how they change with what each pair shows."""

    terms: dict[str, float]
    slope: Sight
    states: Tensor
    noise: tuple[Tensor, Tensor]
    skl_weight: float


def attach(scorer: Loaded, fitting: Fitting, with_views: bool) -> None:
    """Give a scorer the heads that only its training needs, drawn from torch's generator."""
    model = scorer.model
    hidden, like = model.config.hidden_size, model.score.weight
    if fitting.odin is not None:
        head = nn.Linear(hidden, 1, bias=False)
        nn.init.normal_(head.weight, std=model.config.initializer_range)
        model.add_module(LENGTH_HEAD, head.to(like.device))
    if with_views:
        model.add_module(VIEW_HEADS, ViewHeads(hidden, fitting.views).to(like.device))


def detach(scorer: Loaded) -> None:
    """Take those heads away: what is left is an ordinary scorer with its quality head."""
    for name in (LENGTH_HEAD, VIEW_HEADS):
        scorer.model._modules.pop(name, None)


def lesson(course: Course, rows: Sequence[int], past: Past = NO_PAST) -> Learn:
    """What one micro-batch adds to a batch of these rows: loss with gradient, and the figures.

    `loss` is that of the pairs; what else is minimised has figures of its own.
    """
    views = _views(course, rows, len(past.figures))
    place = {row: at for at, row in enumerate(rows)}
    ahead = cache(lambda: _ahead(course, rows, views, past))

    def learn(micro: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        whole = ahead() if course.looks_ahead else None
        sight, some = look(course, micro, views), [course.split.learned[row] for row in micro]
        terms = _pair_terms(course, micro, sight, len(rows))
        told = {name: float(term.detach()) for name, term in terms.items()}
        if whole is not None:
            at = torch.tensor([place[row] for row in micro])
            share = len(micro) / len(rows)
            shared = _whole_terms(course, sight, whole, at, share)
            told |= {name: value * share for name, value in whole.terms.items()}
            told |= {n: float(term.detach()) for n, term in shared.items() if n == ORTHOGONALITY}
            terms |= shared
        gap = sight.quality.detach() @ sight.quality.new_tensor([1.0, -1.0])
        return torch.stack([*terms.values()]).sum(), {
            "tokens": float(sum(side.length for pair in some for side in pair)),
            **told,
            "accuracy": float((gap > 0).sum()) / len(rows),
            "margin": float(gap.sum()) / len(rows),
        }

    return learn


def look(course: Course, micro: Sequence[int], views: dict[int, Pair]) -> Sight:
    """What these pairs, and the samples that go with them, show."""
    model, machine = course.scorer.model, course.machine
    states = _states(course, [course.split.learned[row] for row in micro])
    with autocast(machine):
        quality = model.score(states)[:, 0].float()
        length = model.length_head(states)[:, 0].float() if course.fitting.odin else quality[:0]
    seen = _states(course, [views[row] for row in micro]).float() if views else quality[:0]
    return Sight(_sides(quality), _sides(length), _sides(seen))


def gaps(scorer: Loaded, of: Sequence[Pair], machine: Machine) -> Tensor:
    """Reward of the chosen and of the rejected response, [B, 2], without gradient."""
    found = torch.zeros(len(of), 2)
    with torch.no_grad():
        for micro in alike(of, range(len(of)), Room.of(machine)):
            batch = batch_for(scorer.model, [of[row] for row in micro], machine)
            with autocast(machine):
                states = response_states(scorer.model, batch.to(begin(machine)))
                found[micro] = _sides(scorer.model.score(states)[:, 0].float()).cpu()
    return found


def batch_for(model: Any, of: Sequence[Pair], machine: Machine) -> Padded:
    """Pairs as the model reads them."""
    return batch_of(of, sharing(model), machine.packs())


def _states(course: Course, of: Sequence[Pair]) -> Tensor:
    """The last state of each response, chosen ones before rejected ones, [2b, H]."""
    batch = batch_for(course.scorer.model, of, course.machine).to(begin(course.machine))
    with autocast(course.machine):
        return response_states(course.scorer.model, batch)


def _sides(each: Tensor) -> Tensor:
    """All of one side before all of the other, [2b, ..], as [b, 2, ..]."""
    return torch.stack(each.chunk(2), 1) if len(each) else each


def _pair_terms(
    course: Course, micro: Sequence[int], sight: Sight, pairs: int
) -> dict[str, Tensor]:
    """What each pair adds by itself, as parts of the means over a batch of so many pairs."""
    fitting = course.fitting
    rewards = sight.quality + sight.length if fitting.odin else sight.quality
    chosen, rejected = rewards.unbind(1)
    asked = chosen.new_tensor([course.split.margins[row] for row in micro])
    terms = {"loss": bradley_terry.pair_loss(chosen, rejected, asked).sum() / pairs}
    if fitting.penalty:
        penalty = bradley_terry.penalty_loss(chosen, rejected, fitting.penalty)
        terms["penalty"] = penalty.sum() / pairs
    return terms


def _whole_terms(
    course: Course, sight: Sight, ahead: Ahead, at: Tensor, share: float
) -> dict[str, Tensor]:
    """A micro-batch's share of the terms of its batch: their gradient is exact, their value not."""
    model, fitting, terms = course.scorer.model, course.fitting, dict[str, Tensor]()
    for name, seen, slope in zip(Sight._fields, sight, ahead.slope, strict=True):
        if len(slope):
            terms[name] = (slope[at.to(slope.device)] * seen).sum()
    if fitting.odin:
        heads = model.score.weight, model.length_head.weight
        orthogonality = bradley_terry.orthogonality_loss(*heads, fitting.odin.orthogonality)
        terms[ORTHOGONALITY] = share * orthogonality
    if course.sampled is not None:
        found = multi_view.terms(model.view_heads, ahead.states, ahead.noise)
        loss = multi_view.multi_view_loss(found, fitting.views, ahead.skl_weight)
        terms["heads"] = share * loss
    return terms


def _views(course: Course, rows: Sequence[int], step: int) -> dict[int, Pair]:
    """Two samples of a prompt to go with each row of a batch; none where none are learned from."""
    if course.sampled is None:
        return {}
    drawn = course.sampled.views(course.fitting.training.seed, step, len(rows))
    return dict(zip(rows, drawn, strict=True))


def _ahead(course: Course, rows: Sequence[int], views: dict[int, Pair], past: Past) -> Ahead:
    """The terms of a whole batch, which is looked at without gradient, and their slopes."""
    sight = _seen(course, rows, lambda micro: look(course, micro, views))
    fitting, model, terms = course.fitting, course.scorer.model, dict[str, float]()
    step = len(past.figures)
    slope = Sight(*(each[:0] for each in sight))
    if fitting.odin:
        told, judged = _of_length(course, rows, sight, fitting.odin.length)
        terms, slope = terms | told, slope._replace(quality=judged.quality, length=judged.length)
    weight = multi_view.skl_weight(fitting.views, step, past.steps)
    noise = _noise(fitting, step, len(rows), sight.states.device)
    if course.sampled is not None:
        with torch.enable_grad():
            states = sight.states.requires_grad_()
            found = multi_view.terms(model.view_heads, states, noise)
            loss = multi_view.multi_view_loss(found, fitting.views, weight)
            (change,) = torch.autograd.grad(loss, states)
        slope = slope._replace(states=change)
        terms |= {name: float(term.detach()) for name, term in found._asdict().items()}
        terms |= {"skl_weight": weight, "view_loss": float(loss.detach())}
    return Ahead(terms, slope, sight.states.detach(), noise, weight)


def _of_length(
    course: Course, rows: Sequence[int], sight: Sight, weight: float
) -> tuple[dict[str, float], Judged]:
    """Correlations with length over a batch, and the slopes of their term, each [B, 2]."""
    pairs = [course.split.learned[row] for row in rows]
    tokens = torch.tensor([[len(side.response) for side in pair] for pair in pairs])
    tokens = tokens.to(sight.quality)
    seen = Judged(sight.quality.flatten(), sight.length.flatten(), tokens.flatten())
    slope, loss = bradley_terry.slopes(seen, weight)
    told = {
        "length_loss": loss,
        "length_correlation": float(bradley_terry.correlation(seen.quality, seen.tokens)),
        "length_head_correlation": float(bradley_terry.correlation(seen.length, seen.tokens)),
    }
    shaped = (each.view_as(sight.quality) for each in slope)
    return told, Judged(*shaped)


@torch.no_grad()
def _seen(course: Course, rows: Sequence[int], see: Callable[[Sequence[int]], Sight]) -> Sight:
    """What a whole batch shows, each process looking at its share; in the order of the rows.

    Dropout, where a model has any, is drawn again as it was here when the batch is learned from.
    """
    device = course.scorer.model.score.weight.device
    micros = alike(course.split.learned, rows, Room.of(course.machine))
    found = dict[int, list[Tensor]]()
    with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
        for micro, _ in share(micros, Team.here()):
            shown = [each if len(each) else each.new_zeros(len(micro), 0) for each in see(micro)]
            found |= {row: [each[at].cpu() for each in shown] for at, row in enumerate(micro)}
    for part in gathered(found):
        found |= part
    columns = zip(*(found[row] for row in rows), strict=True)
    return Sight(*(torch.stack(column).to(device) for column in columns))


def _noise(
    fitting: Fitting, step: int, prompts: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Standard normal numbers for both views of each prompt of a step, [B, Z] each."""
    drawn = torch.Generator().manual_seed(1_000_003 * fitting.training.seed + step)
    size = (2, prompts, fitting.views.size)
    one, other = torch.randn(size, generator=drawn).to(device).unbind()
    return one, other
