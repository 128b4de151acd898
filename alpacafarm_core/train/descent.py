"""AdamW with a schedule and a limit on the gradient, over all weights of one or more models."""

import logging
import math
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch.nn import Module

from alpacafarm_core.errors import TrainingFailed
from alpacafarm_core.settings import Training

log = logging.getLogger("alpacafarm.training")

MicroBatches = Sequence[Sequence[int]]


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


class Descent:
    """Takes optimiser steps on gradients that others accumulate."""

    def __init__(self, models: Sequence[Module], training: Training, steps: int) -> None:
        self.training, self.steps = training, steps
        self.weights = list(chain.from_iterable(model.parameters() for model in models))
        self.optimiser = torch.optim.AdamW(
            self.weights,
            lr=training.learning_rate,
            betas=(0.9, 0.999),
            eps=training.adam_epsilon,
            weight_decay=training.weight_decay,
            fused=True,
        )

    def step(self, at: int) -> dict[str, float]:
        """One step at the rate of schedule position `at`; the gradients are then gone.

        Returns the gradient norm before clipping and the rate; raises TrainingFailed on a norm
        that is not a number.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights, self.training.clip))
        if not math.isfinite(norm):
            raise TrainingFailed(
                f"step {at + 1}: the gradient is {norm}; lower the learning rate or use float32"
            )
        now = rate(self.training, at, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = now
        self.optimiser.step()
        self.optimiser.zero_grad()
        return {"grad_norm": norm, "learning_rate": now}


def descend(
    model: Module,
    training: Training,
    plans: Sequence[MicroBatches],
    accumulate: Callable[[MicroBatches], dict[str, float]],
) -> list[dict[str, float]]:
    """One optimiser step for each batch of the plan; the figures of every step.

    `accumulate` adds a batch's gradient and returns its figures, `loss` among them; a loss that is
    not a number raises TrainingFailed.
    """
    descent = Descent([model], training, len(plans))
    history: list[dict[str, float]] = []
    model.train()
    for at, micro_batches in enumerate(plans):
        figures = accumulate(micro_batches)
        if not math.isfinite(figures["loss"]):
            raise TrainingFailed(
                f"step {at + 1} of {len(plans)}: the loss is {figures['loss']}; "
                "lower the learning rate or use float32"
            )
        history.append(figures | descent.step(at))
        log.info("step %d/%d %s", at + 1, len(plans), history[-1])
    model.eval()
    return history
