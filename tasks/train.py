"""Weights. The heavy work is a job: in this process on a CPU, in one of its own on a GPU."""

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from alpacafarm_core import plots
from alpacafarm_core.artifacts import Demonstrations, Instructions, Preferences
from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import Objective, ProximalObjective
from alpacafarm_core.settings import Fitting
from alpacafarm_core.store import Made
from alpacafarm_core.train.job import call_together
from alpacafarm_core.weights import Policy, RewardModel
from tasks.progress import following, publish
from tasks.stage import stage, store, unfinished

METRICS, PLOT = "metrics.parquet", "metrics.png"


@stage(RewardModel, version=1)
def fit_reward(policy: Policy, preferences: Preferences, fitting: Fitting) -> Made:
    """Fit a Bradley-Terry reward model to labelled pairs."""
    return _weights("reward:fit", store().weights(policy), store().rows(preferences), fitting)


@stage(Policy, version=1)
def train(
    policy: Policy,
    data: Demonstrations | Preferences,
    objective: Objective,
    reference: Policy | None = None,
) -> Made:
    """Train a policy on fixed data."""
    other = None if reference in (None, policy) else store().weights(reference)
    models = (store().weights(policy), other)
    return _weights("train.offline:train", models, store().rows(data), objective)


@stage(Policy, version=1)
def roll_out(
    policy: Policy,
    reward: RewardModel,
    instructions: Instructions,
    objective: ProximalObjective,
    reference: Policy | None = None,
) -> Made:
    """Train a policy on its own samples and a reward model's scores of them."""
    other = None if reference in (None, policy) else store().weights(reference)
    models = (store().weights(policy), store().weights(reward), other)
    return _weights("train.online:roll_out", models, store().read(instructions), objective)


def _weights(
    function: str,
    models: Path | tuple[Path | None, ...],
    rows: Path | pl.DataFrame,
    settings: Fitting | Objective | ProximalObjective,
) -> Made:
    """Weights, with the figures of every step beside them as Parquet and as a plot.

    Checkpoints lie beside the folder of the weights until they are finished, so a stage that was
    stopped goes on.
    """
    out, machine = unfinished() / "weights", Machine.here()
    shutil.rmtree(out, ignore_errors=True)
    verb, feed = function.partition(":")[2], out.with_name(f"{out.name}.progress.jsonl")
    with following(feed, verb, run=out.parent.name):
        notes: dict[str, Any] = call_together(
            function, models, out, rows, settings, machine=machine
        )
    history = pl.DataFrame(notes.pop("steps", []), infer_schema_length=None)
    history.write_parquet(out / METRICS)
    if plot := plots.steps(history):
        (out / PLOT).write_bytes(plot)
        publish(verb, history, plot)
    return Made(out, notes)
