"""What a loss sees of a micro-batch: the fields its view asks for, and no others.

A statistic of the whole batch, or of the steps before, is the same number for every example, so
that a loss stays a function of one example and micro-batches do not matter. B is examples.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import OF_PAIRS, OF_TOKENS, Objective, Past, view_of
from alpacafarm_core.train.batches import Padded, Room, alike, batch_of, padded
from alpacafarm_core.train.corpus import Known
from alpacafarm_core.train.forward import mixed_logprobs, response_logprobs
from alpacafarm_core.train.models import autocast, begin, sharing
from alpacafarm_core.train.tokens import Example, Tokens, responses_of

GOLD, MISMATCHED = "gold", "mismatch_kl"
WINS, MIXED = ("chosen_win", "rejected_win"), ("mixed_chosen", "mixed_rejected")


class Beside(NamedTuple):
    """One more response to each example's prompt: a gold one, or one that answers another prompt.

    `known` has what the reference makes of it, where the loss asks for that.
    """

    responses: Sequence[Tokens]
    known: Known | None = None


class Course(NamedTuple):
    """A policy on its way: the model, what it learns from, by which objective.

    `known` has the reference's log-probability of every token of each example's responses, `wins`
    [N, 2] how probably the chosen and the rejected response of each pair win; `reference` is there
    only for a loss that asks for more of it.
    """

    model: Any
    examples: Sequence[Example]
    known: Known | None
    objective: Objective
    machine: Machine
    beside: Beside | None = None
    wins: Tensor | None = None
    reference: Any = None


def asks(objective: Objective) -> frozenset[str]:
    """Names of the fields that the loss sees; raises TypeError where there is no such field."""
    names = frozenset(view_of(objective)._fields)
    if not (names <= OF_TOKENS or names <= OF_PAIRS):
        raise TypeError(f"{view_of(objective).__name__} mixes unknown fields: {sorted(names)}")
    return names


def is_of_pairs(objective: Objective) -> bool:
    """Whether it learns from pairs, not from single answers."""
    return asks(objective) <= OF_PAIRS


def batch_for(course: Course, rows: Sequence[int]) -> Padded:
    """The responses of these examples, as the model reads them."""
    some = [course.examples[row] for row in rows]
    return batch_of(some, sharing(course.model), course.machine.packs())


def statistics(course: Course, rows: Sequence[int], past: Past) -> dict[str, float]:
    """What the view asks for that is one number for the whole batch of these examples."""
    names, found = asks(course.objective), dict[str, float]()
    if "mean_chosen_length" in names:
        chosen = responses_of([course.examples[row] for row in rows])[: len(rows)]
        found["mean_chosen_length"] = sum(len(each.response) for each in chosen) / len(rows)
    if "mean_gold_length" in names:
        gold = [course.beside.responses[row] for row in rows] if course.beside else []
        found["mean_gold_length"] = sum(len(each.response) for each in gold) / len(rows)
    if MISMATCHED in names:
        found[MISMATCHED] = _mismatch_kl(course, rows)
    if "carried" in names:
        found["carried"] = course.objective.carry(past)
    return found


def see(course: Course, rows: Sequence[int], of_batch: Mapping[str, float] | None = None) -> Any:
    """The view of these examples that the objective's loss asks for, with gradient.

    `of_batch` are the statistics of the batch that these examples are part of.
    """
    batch = batch_for(course, rows).to(begin(course.machine))
    seen = {"logprobs": response_logprobs(course.model, batch), "mask": batch.mask.float()}
    if course.known is not None:
        sides = range(course.known.sides)
        known = [course.known.of(row, side) for side in sides for row in rows]
        seen["ref_logprobs"] = pad_sequence(known, batch_first=True).to(batch.ids.device)
    view = view_of(course.objective)
    if not is_of_pairs(course.objective):
        return view(**{name: seen[name] for name in view._fields})
    fields = _of_pairs(seen) | _more(course, rows, batch)
    device = batch.ids.device
    for name, number in (of_batch or {}).items():
        fields[name] = torch.full((len(rows),), number, device=device)
    return view(**{name: fields[name] for name in view._fields})


@torch.no_grad()
def figures_of(view: Any, rows: int) -> dict[str, float]:
    """This micro-batch's share of the means over a batch of pairs: accuracy, margin, both sides.

    In nats a response: what the policy gives the chosen and the rejected one, above the reference
    where there is one; the margin is the gap of the two.
    """
    if "chosen" not in view._fields:
        return {}
    chosen, rejected = view.chosen, view.rejected
    if "ref_chosen" in view._fields:
        chosen, rejected = chosen - view.ref_chosen, rejected - view.ref_rejected
    margin = chosen - rejected
    figures = {
        "accuracy": (margin > 0).sum(),
        "margin": margin.sum(),
        "chosen": chosen.sum(),
        "rejected": rejected.sum(),
    }
    if "mixed_chosen" in view._fields:
        mixed = (view.mixed_chosen - view.ref_chosen) - (view.mixed_rejected - view.ref_rejected)
        figures["mixed_margin"] = mixed.sum()
    return {name: float(figure) / rows for name, figure in figures.items()}


def _of_pairs(seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sums over tokens, chosen rows before rejected ones, each [B]."""
    fields: dict[str, Tensor] = {}
    for prefix, name in (("", "logprobs"), ("ref_", "ref_logprobs")):
        if name in seen:
            sums = (seen[name] * seen["mask"]).sum(1).chunk(2)
            fields[f"{prefix}chosen"], fields[f"{prefix}rejected"] = sums
    fields["chosen_length"], fields["rejected_length"] = seen["mask"].sum(1).chunk(2)
    return fields


def _more(course: Course, rows: Sequence[int], batch: Padded) -> dict[str, Tensor]:
    """What only some losses ask for, each [B]."""
    names, fields = asks(course.objective), dict[str, Tensor]()
    if GOLD in names and course.beside is not None:
        gold = padded([course.beside.responses[row] for row in rows]).to(batch.ids.device)
        fields[GOLD] = response_logprobs(course.model, gold).sum(1)
    if course.wins is not None:
        wins = course.wins[list(rows)].to(batch.ids.device)
        fields |= dict(zip(WINS, wins.unbind(1), strict=True))
    if "mixed_chosen" in names:
        weight = course.objective.mix()
        mixed = mixed_logprobs(course.model, course.reference, batch, weight).sum(1)
        fields["mixed_chosen"], fields["mixed_rejected"] = mixed.chunk(2)
    return fields


@torch.no_grad()
def _mismatch_kl(course: Course, rows: Sequence[int]) -> float:
    """Mean log-ratio of policy to reference, in nats, of responses that answer other prompts."""
    if course.beside is None or course.beside.known is None:
        return 0.0
    responses, total = course.beside.responses, 0.0
    for micro in alike(responses, rows, Room.of(course.machine)):
        batch = padded([responses[row] for row in micro]).to(begin(course.machine))
        with autocast(course.machine):
            ours = float(response_logprobs(course.model, batch).sum())
        total += ours - float(sum(course.beside.known.of(row, 0).sum() for row in micro))
    return total / len(rows)
