"""One loop for every objective on fixed data: demonstrations or pairs in, a trained policy out.

A step's gradient is that of its whole batch, whatever the micro-batch: token losses are averaged
over all tokens of the batch, example losses over its examples. The reference is run once, before
training. Left out: dropout is on where a model has any, and only then do micro-batches matter.
"""

import logging
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alpacafarm_core.errors import TrainingFailed
from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import OF_PAIRS, OF_TOKENS, Objective, view_of
from alpacafarm_core.train.batches import Padded, Room, alike, batch_of
from alpacafarm_core.train.checkpoint import Checkpoints, origin
from alpacafarm_core.train.contracts import Origin, sound
from alpacafarm_core.train.corpus import Corpus, Known
from alpacafarm_core.train.descent import descended
from alpacafarm_core.train.engine import Learn, together
from alpacafarm_core.train.forward import response_logprobs
from alpacafarm_core.train.lora import base_of, take_up
from alpacafarm_core.train.models import Loaded, autocast, begin, fits, load_policy, save, sharing
from alpacafarm_core.train.reading import Instructions, Reader, Source
from alpacafarm_core.train.tokens import Example, Pair, each_encoded, each_pair, responses_of
from alpacafarm_core.train.trial import Trial

log = logging.getLogger("alpacafarm.training")


class Material(NamedTuple):
    """What is learned from, how many rows were left out and why, and how many are odd."""

    examples: Sequence[Example]
    left_out: dict[str, int]
    odd: dict[str, int]


class Course(NamedTuple):
    """A policy on its way: the model, what it learns from, by which objective.

    `known` has the reference's log-probability of every token of each example's responses.
    """

    model: Any
    examples: Sequence[Example]
    known: Known | None
    objective: Objective
    machine: Machine


def train(
    models: tuple[Path, Path | None],
    out: Path,
    data: Source,
    objective: Objective,
    machine: Machine,
) -> dict[str, Any]:
    """Train the policy in folder `models[0]` on Demonstrations or Preferences; save it in `out`.

    `models[1]` is the reference, None the start itself; it is loaded only if the loss asks for it.
    Returns rows used and left out, and `steps`, a list of figures for each optimiser step. Goes on
    from a checkpoint beside `out`. Raises TrainingFailed when nothing is left to learn from or a
    contract is broken, BadInput when the checkpoint is of something else.
    """
    with together(machine) as team, torch.random.fork_rng():
        torch.manual_seed(objective.training.seed)
        start, reference = models
        policy = load_policy(start, machine)
        fits(policy, start, objective.training.max_length)
        material = read(data, policy.tokenizer, objective)
        take_up(policy.model, objective.training)
        known: Known | None = None
        if any(name.startswith("ref_") for name in view_of(objective)._fields):
            frozen = policy if reference is None else load_policy(reference, machine)
            known = reference_logprobs(frozen, material.examples, machine)
            del frozen  # its memory is the training's
        course = Course(policy.model, material.examples, known, objective, machine)
        recipe = origin(models, material.examples, objective, machine)
        steps = _descended(course, Checkpoints(out, recipe, machine), lambda: save(policy, out))
    log.debug("rank %d of %d is done", *team)
    counts = {"rows": len(material.examples)} | material.left_out | material.odd
    return {**counts, "steps": steps}


def _descended(
    course: Course, checkpoints: Checkpoints, finish: Callable[[], None]
) -> list[dict[str, float]]:
    """All steps of the objective's training; `finish` is called by one process with the result."""
    training, looks = course.objective.training, (partial(lesson, course), partial(_batch, course))
    trial = Trial([course.model], course.examples, training.batch, *looks)
    engine, steps = descended(trial, training, checkpoints, course.machine)
    with engine.whole():
        if engine.team.leads:
            finish()
    return steps


def read(data: Source, tokenizer: Any, objective: Objective) -> Material:
    """The examples the objective's view asks for, without those longer than `max_length`."""
    of_pairs, longest = _is_of_pairs(objective), objective.training.max_length
    rows = Reader(data, of_pairs)
    each = each_pair(rows, tokenizer) if of_pairs else each_encoded(rows, "output", tokenizer)
    whole = Corpus.of(each)
    fits = array("i", (at for at, length in enumerate(whole.lengths) if length <= longest))
    left_out = {"undecided": rows.undecided, "too_long": len(whole) - len(fits)}
    for reason, count in left_out.items():
        if count:
            log.warning("%d of %d rows left out: %s", count, rows.height, reason)
    if not fits:
        raise TrainingFailed(
            f"none of {rows.height} rows can be learned from ({left_out}); "
            f"raise max_length ({longest}) or give other data"
        )
    kept, numbers = whole.take(fits), array("i", (rows.numbers[at] for at in fits))
    odd = sound(kept, tokenizer.eos_token_id, Origin(numbers, Instructions(data, numbers)))
    return Material(kept, left_out, odd)


@torch.no_grad()
def reference_logprobs(reference: Loaded, examples: Sequence[Example], machine: Machine) -> Known:
    """Log-probability of each token of each example's responses, chosen before rejected."""
    device = begin(machine)
    sides = 2 if isinstance(examples[0], Pair) else 1
    known = Known(len(examples), sides)
    for rows in alike(examples, range(len(examples)), Room.of(machine)):
        some = [examples[row] for row in rows]
        batch = batch_of(some, sharing(reference.model), machine.packs())
        with autocast(machine), base_of(reference.model):
            found = response_logprobs(reference.model, batch.to(device))
        places = [(row, side) for side in range(sides) for row in rows]
        for place, response, logprobs in zip(places, responses_of(some), found, strict=True):
            known.note(*place, logprobs[: len(response.response)])
    return known


def lesson(course: Course, rows: Sequence[int]) -> Learn:
    """What one micro-batch adds to a batch of these rows: its part of the mean loss, with gradient.

    Token losses are averaged over the tokens of the whole batch, example losses over its rows. The
    figures are the parts of the loss, of the batch's size, and for pairs of how they are ordered.
    """
    tokens = sum(len(r.response) for r in responses_of([course.examples[row] for row in rows]))

    def learn(micro: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        with autocast(course.machine):
            view = see(course, micro)
        losses = course.objective.loss(view)
        per_token = losses.dim() == 2
        loss = (losses * view.mask).sum() / tokens if per_token else losses.sum() / len(rows)
        seen = sum(len(r.response) for r in responses_of([course.examples[row] for row in micro]))
        size = {"rows": float(len(micro)), "tokens": float(seen)}
        return loss, size | {"loss": float(loss.detach())} | _order(view, len(rows))

    return learn


def see(course: Course, rows: Sequence[int]) -> Any:
    """The view of these examples that the objective's loss asks for, with gradient."""
    batch = _batch(course, rows).to(begin(course.machine))
    seen = {"logprobs": response_logprobs(course.model, batch), "mask": batch.mask.float()}
    if course.known is not None:
        sides = range(course.known.sides)
        known = [course.known.of(row, side) for side in sides for row in rows]
        seen["ref_logprobs"] = pad_sequence(known, batch_first=True).to(batch.ids.device)
    view = view_of(course.objective)
    fields = _of_pairs(seen) if _is_of_pairs(course.objective) else seen
    return view(**{name: fields[name] for name in view._fields})


def _batch(course: Course, rows: Sequence[int]) -> Padded:
    some = [course.examples[row] for row in rows]
    return batch_of(some, sharing(course.model), course.machine.packs())


def _of_pairs(seen: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sums over tokens, chosen rows before rejected ones, each [B]."""
    fields: dict[str, Tensor] = {}
    for prefix, name in (("", "logprobs"), ("ref_", "ref_logprobs")):
        if name in seen:
            sums = (seen[name] * seen["mask"]).sum(1).chunk(2)
            fields[f"{prefix}chosen"], fields[f"{prefix}rejected"] = sums
    fields["chosen_length"], fields["rejected_length"] = seen["mask"].sum(1).chunk(2)
    return fields


@torch.no_grad()
def _order(view: Any, rows: int) -> dict[str, float]:
    """This micro-batch's share of the batch's accuracy and mean margin in nats, for pairs."""
    if "chosen" not in view._fields:
        return {}
    margin = view.chosen - view.rejected
    if "ref_chosen" in view._fields:
        margin = margin - (view.ref_chosen - view.ref_rejected)
    return {"accuracy": float((margin > 0).sum()) / rows, "margin": float(margin.sum()) / rows}


def _is_of_pairs(objective: Objective) -> bool:
    names = set(view_of(objective)._fields)
    if not (names <= OF_TOKENS or names <= OF_PAIRS):
        raise TypeError(f"{view_of(objective).__name__} mixes unknown fields: {sorted(names)}")
    return names <= OF_PAIRS
