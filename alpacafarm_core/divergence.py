"""How far a policy has gone from where it started, on its own answers."""

from pathlib import Path
from typing import Any

import polars as pl
import torch

from alpacafarm_core.machine import Machine
from alpacafarm_core.train.batches import Room, Tokens, alike, encode, padded
from alpacafarm_core.train.forward import response_logprobs
from alpacafarm_core.train.models import autocast, begin, load_policy


@torch.no_grad()
def log_ratios(models: tuple[Path, Path], rows: pl.DataFrame, machine: Machine) -> list[float]:
    """log p(answer) - log q(answer), in nats, of each row's `output` under policy and reference.

    Over answers that were sampled from the policy at temperature 1 the mean is an unbiased
    estimate of KL(policy || reference) a response (the k1 estimator).
    """
    policy, reference = (load_policy(folder, machine) for folder in models)
    answers = encode(rows, "output", policy.tokenizer)
    ours, theirs = (summed(model.model, answers, machine) for model in (policy, reference))
    return [one - other for one, other in zip(ours, theirs, strict=True)]


def summed(model: Any, answers: list[Tokens], machine: Machine) -> list[float]:
    """Log-probability of each answer, summed over its tokens, in nats."""
    found = torch.zeros(len(answers))
    for micro in alike(answers, range(len(answers)), Room.of(machine)):
        batch = padded([answers[row] for row in micro]).to(begin(machine))
        with autocast(machine):
            found[micro] = response_logprobs(model, batch).sum(1).cpu()
    return found.tolist()
