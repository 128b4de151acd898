"""Gradient descent with a schedule: one optimiser step for each batch of a plan."""

import math
from collections.abc import Callable, Sequence
from itertools import islice

from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import Past
from alpacafarm_core.settings import Training
from alpacafarm_core.train.batches import Room, plan
from alpacafarm_core.train.checkpoint import Checkpoints, State
from alpacafarm_core.train.contracts import finite, unstuck
from alpacafarm_core.train.engine import Engine, Learn, MicroBatches, accumulate, engaged
from alpacafarm_core.train.logbook import Logbook
from alpacafarm_core.train.trial import Trial, check_on

Lesson = Callable[[list[int], Past], Learn]


def rate(training: Training, step: int, steps: int) -> float:
    """Learning rate of step `step` (from 0) of `steps`: linear warm-up, then the schedule.

    The first step already learns, and the last one still does.
    """
    warm = math.ceil(training.warmup * steps)
    if step < warm:
        return training.learning_rate * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, steps - warm)
    left = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}
    return training.learning_rate * left[training.schedule]


def step(engine: Engine, training: Training, at: int, steps: int) -> dict[str, float]:
    """One optimiser step at position `at` of the schedule: the gradient's norm and the rate.

    Raises ContractBroken on a norm, taken before clipping, that is not a number.
    """
    now = rate(training, at, steps)
    figures = {"grad_norm": engine.step(now), "learning_rate": now}
    finite(figures, at, steps)
    return figures


def descended(
    trial: Trial, training: Training, checkpoints: Checkpoints, machine: Machine
) -> tuple[Engine, list[dict[str, float]]]:
    """All steps of one model over fixed examples, once they are seen to fit; and their figures.

    Raises what `check_on`, `descend` and `unstuck` do.
    """
    (model,) = trial.models
    check_on(trial, machine)
    engine = engaged(trial.models, training, machine)
    plans = plan(trial.examples, training, Room.of(machine))
    model.train()
    steps = descend(engine, training, plans, trial.lesson, checkpoints)
    unstuck(steps, training.batch)
    model.eval()
    return engine, steps


def descend(
    engine: Engine,
    training: Training,
    plans: Sequence[MicroBatches],
    lesson: Lesson,
    checkpoints: Checkpoints,
) -> list[dict[str, float]]:
    """One optimiser step for each batch of the plan; the figures of every step.

    `lesson` takes the rows of a batch, and what the steps before were like, and gives what is
    learned from one of its micro-batches. Goes on from the last checkpoint where there is one; a
    figure that is not a number raises ContractBroken.
    """
    begun, steps = checkpoints.latest(engine) or State(0), len(plans)
    book = Logbook(checkpoints.feed if engine.team.leads else None, begun.history)
    for at, micro_batches in islice(enumerate(plans), begun.step, steps):
        rows = [row for micro in micro_batches for row in micro]
        figures = accumulate(engine, micro_batches, lesson(rows, Past(book.history, steps)))
        finite(figures, at, steps)
        book.note(at, steps, figures | step(engine, training, at, steps))
        checkpoints.save(engine, State(at + 1, book.history), is_last=at + 1 == steps)
    return book.history
