"""One loop for every objective on fixed data: demonstrations or pairs in, a trained policy out.

A step's gradient is that of its whole batch, whatever the micro-batch: token losses are averaged
over all tokens of the batch, example losses over its examples. What the reference makes of the data
is looked at once, before any training. Left out: dropout is on where a model has any, and only then
do micro-batches matter.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import NO_PAST, Objective, Past
from alpacafarm_core.train.checkpoint import Checkpoints, origin
from alpacafarm_core.train.corpus import Known
from alpacafarm_core.train.descent import descended
from alpacafarm_core.train.engine import Learn, together
from alpacafarm_core.train.lora import take_up
from alpacafarm_core.train.material import Material, gold_of, material_of, wins_of
from alpacafarm_core.train.models import Loaded, autocast, fits, grow, load_policy, save
from alpacafarm_core.train.reading import Source, tags_in
from alpacafarm_core.train.reference import mismatched, noted, reference_logprobs
from alpacafarm_core.train.tokens import responses_of
from alpacafarm_core.train.trial import Trial
from alpacafarm_core.train.views import (
    GOLD,
    MISMATCHED,
    MIXED,
    WINS,
    Beside,
    Course,
    asks,
    batch_for,
    figures_of,
    is_of_pairs,
    see,
    statistics,
)

log = logging.getLogger("alpacafarm.training")

TOLD = ("mismatch_kl", "carried")
"""Statistics of a batch that are worth a line of their own among its figures."""


class Data(NamedTuple):
    """What is learned from: rows, and what the reference makes of them and of mismatched ones.

    What is not known is looked at before the training.
    """

    rows: Source
    known: Path | None = None
    mismatched: Path | None = None


def train(
    models: tuple[Path, Path | None],
    out: Path,
    data: Source | tuple[Source, Path | None, Path | None],
    objective: Objective,
    machine: Machine,
) -> dict[str, Any]:
    """Train the policy in folder `models[0]` on Demonstrations or Preferences; save it in `out`.

    `models[1]` is the reference, None the start itself; it is loaded only if the loss asks for what
    is not known. `data` are rows, or the fields of `Data`. Returns rows used and left out, and
    `steps`, a list of figures for each optimiser step. Goes on from a checkpoint beside `out`.
    Raises TrainingFailed when a contract is broken, BadInput when nothing is left to learn from or
    the checkpoint, or what is known, is of something else.
    """
    given = Data(*data) if isinstance(data, tuple) else Data(data)
    with together(machine) as team, torch.random.fork_rng():
        torch.manual_seed(objective.training.seed)
        policy = load_policy(models[0], machine)
        fits(policy, models[0], objective.training.max_length)
        if tags := tags_in(given.rows):
            _grow(policy, tags, objective)
        material = read(given.rows, policy.tokenizer, objective)
        take_up(policy.model, objective.training)
        course = enrolled(policy, models, material, given, objective, machine)
        recipe = origin(models, material.examples, objective, machine)
        finish = partial(save, policy, out)
        steps = _descended(course, Checkpoints(out, recipe, machine), finish)
    log.debug("rank %d of %d is done", *team)
    counts = {"rows": len(material.examples)} | material.left_out | material.odd
    return {**counts, "steps": steps}


def _grow(policy: Loaded, tags: int, objective: Objective) -> None:
    """Room for the reward tokens; raises BadInput where only an adapter would learn."""
    if objective.training.lora is not None:
        raise BadInput("reward tokens are learned with all weights: leave training.lora out")
    grow(policy, tags, objective.training.seed)


def read(data: Source, tokenizer: Any, objective: Objective) -> Material:
    """The examples the objective's view asks for, without those longer than `max_length`."""
    return material_of(data, tokenizer, is_of_pairs(objective), objective.training.max_length)


def enrolled(
    policy: Loaded,
    models: tuple[Path, Path | None],
    material: Material,
    given: Data,
    objective: Objective,
    machine: Machine,
) -> Course:
    """The policy with all that its objective's view asks for."""
    names, longest = asks(objective), objective.training.max_length
    frozen = _Frozen(policy, models, machine)
    known: Known | None = None
    if any(name.startswith("ref_") for name in names):
        known = frozen.known(given.known, material)
    beside: Beside | None = None
    if GOLD in names:
        beside = Beside(gold_of(given.rows, policy.tokenizer, material, longest))
    elif MISMATCHED in names:
        others = mismatched(material, longest)
        responses: Sequence[Any] = others.examples
        beside = Beside(responses, frozen.known(given.mismatched, others))
    wins = wins_of(given.rows, material.numbers) if names.issuperset(WINS) else None
    reference = frozen.apart() if names.issuperset(MIXED) else None
    course = Course(policy.model, material.examples, known, objective, machine)
    return course._replace(beside=beside, wins=wins, reference=reference)


class _Frozen(NamedTuple):
    """The reference: the start as it is now, unless another one is given."""

    policy: Loaded
    models: tuple[Path, Path | None]
    machine: Machine

    def known(self, file: Path | None, material: Material) -> Known:
        """What it makes of these responses, from a file or by looking at them."""
        if file is not None:
            return noted(file, material)
        other = self.models[1]
        reference = self.policy if other is None else load_policy(other, self.machine)
        return reference_logprobs(reference, material.examples, self.machine)

    def apart(self) -> Any:
        """The model itself, which never learns."""
        start, other = self.models
        model = load_policy(other or start, self.machine).model
        return model.requires_grad_(False).eval()


def _descended(
    course: Course, checkpoints: Checkpoints, finish: Callable[[], None]
) -> list[dict[str, float]]:
    """All steps of the objective's training; `finish` is called by one process with the result."""
    training = course.objective.training
    looks = (partial(lesson, course), partial(batch_for, course))
    trial = Trial([course.model], course.examples, training.batch, *looks)
    engine, steps = descended(trial, training, checkpoints, course.machine)
    with engine.whole():
        if engine.team.leads:
            finish()
    return steps


def lesson(course: Course, rows: Sequence[int], past: Past = NO_PAST) -> Learn:
    """What one micro-batch adds to a batch of these rows: its part of the mean loss, with gradient.

    Token losses are averaged over the tokens of the whole batch, example losses over its rows. The
    figures are the parts of the loss, of the batch's size, and for pairs of how they are ordered.
    """
    tokens = sum(len(r.response) for r in responses_of([course.examples[row] for row in rows]))
    of_batch = cache(lambda: statistics(course, rows, past))

    def learn(micro: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        known = of_batch()
        with autocast(course.machine):
            view = see(course, micro, known)
        losses = course.objective.loss(view)
        per_token = losses.dim() == 2
        loss = (losses * view.mask).sum() / tokens if per_token else losses.sum() / len(rows)
        seen = sum(len(r.response) for r in responses_of([course.examples[row] for row in micro]))
        size = {"rows": float(len(micro)), "tokens": float(seen)}
        told = {name: known[name] * len(micro) / len(rows) for name in TOLD if name in known}
        return loss, size | {"loss": float(loss.detach())} | told | figures_of(view, len(rows))

    return learn
