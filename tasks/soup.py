"""Weights averaged from weights."""

import shutil
from collections.abc import Sequence

from alpacafarm_core.artifacts import Artifact, Demonstrations
from alpacafarm_core.machine import Machine
from alpacafarm_core.store import Made
from alpacafarm_core.train.job import call
from alpacafarm_core.weights import Policy, RewardModel
from tasks.slots import gpu_slot
from tasks.stage import stage, store, unfinished


@stage(Policy, version=1)
def soup(
    policies: tuple[Policy, ...],
    weights: tuple[float, ...],
    held_out: Demonstrations | None = None,
) -> Made:
    """Average policies weight by weight, tested on demonstrations nobody has seen where given."""
    return _averaged(policies, weights, held_out)


@stage(RewardModel, version=1)
def soup_rewards(models: tuple[RewardModel, ...], weights: tuple[float, ...]) -> Made:
    """Average reward models weight by weight."""
    return _averaged(models, weights, None)


def _averaged(
    models: Sequence[Artifact], weights: tuple[float, ...], held_out: Demonstrations | None
) -> Made:
    out = unfinished() / "weights"
    shutil.rmtree(out, ignore_errors=True)
    folders = tuple(store().weights(model) for model in models)
    rows = None if held_out is None else store().rows(held_out)
    with gpu_slot():
        figures = call("train.soup:average", folders, out, weights, rows, machine=Machine.here())
    parents = [model.folder for model in models]
    return Made(out, {"parents": parents, "weights": list(weights), **figures})
