"""Weights. The heavy work is a job: in this process on a CPU, in one of its own on a GPU."""

import shutil
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import polars as pl

from alpacafarm_core import composing, plots
from alpacafarm_core.artifacts import (
    Candidates,
    Demonstrations,
    Instructions,
    Logps,
    Preferences,
    Scores,
)
from alpacafarm_core.committees import Judges
from alpacafarm_core.conditioning import ConditionedObjective
from alpacafarm_core.farm import Known
from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import Objective
from alpacafarm_core.proximal import OnlineObjective
from alpacafarm_core.referring import told
from alpacafarm_core.settings import Fitting, Looking
from alpacafarm_core.store import Made
from alpacafarm_core.train.job import call_together
from alpacafarm_core.values import LATER
from alpacafarm_core.weights import Pairwise, Policy, Reward, RewardModel
from tasks.generate import written
from tasks.progress import following, publish
from tasks.reward import lying
from tasks.slots import gpu_slot
from tasks.stage import stage, store, unfinished

METRICS, PLOT = "metrics.parquet", "metrics.png"


@stage(RewardModel, version=1)
def fit_reward(
    policy: Policy,
    preferences: Preferences,
    fitting: Fitting,
    samples: Annotated[Candidates | None, LATER] = None,
) -> Made:
    """Fit a reward model to labelled pairs, and to a policy's samples where there are some."""
    rows = store().rows(preferences)
    data = rows if samples is None else (rows, store().rows(samples))
    return _weights("reward:fit", store().weights(policy), data, fitting)


@stage(Pairwise, version=1)
def fit_pairwise(policy: Policy, preferences: Preferences, fitting: Fitting) -> Made:
    """Fit a judge of two answers at once to labelled pairs, each in both orders."""
    return _weights("pairwise:fit", store().weights(policy), store().rows(preferences), fitting)


def fit_rewards(
    policy: Policy, preferences: Preferences, fitting: Fitting, samples: Candidates | None = None
) -> Reward:
    """Fit a reward model, or each member of a committee in a stage of its own."""
    return composing.fit_reward(import_module("tasks"), policy, preferences, fitting, samples)


@stage(Logps, version=1)
def look(policy: Policy, data: Demonstrations | Preferences, looking: Looking) -> Made:
    """What a policy makes of every response of a table, token by token."""
    folder = store().weights(policy)
    return Made(written("train.reference:look", [(folder, store().rows(data), looking)]))


@stage(Policy, version=1)
def train_policy(
    policy: Policy, data: Demonstrations | Preferences, objective: Objective, known: Known
) -> Made:
    """Train a policy on fixed data; of the reference is `known` what the loss asks for."""
    reference = known.reference
    other = None if reference in (None, policy) else store().weights(reference)
    logps = (known.given, known.mismatched)
    files = [None if each is None else store().rows(each) for each in logps]
    models, rows = (store().weights(policy), other), (store().rows(data), *files)
    return _weights("train.offline:train", models, rows, objective)


def train(
    policy: Policy,
    data: Demonstrations | Preferences,
    objective: Objective,
    reference: Policy | None = None,
) -> Policy:
    """Train a policy on fixed data, after a look at what the reference makes of it."""
    return composing.train(import_module("tasks"), policy, data, objective, reference)


@stage(Policy, version=1)
def roll_out(
    policy: Policy,
    reward: Reward,
    instructions: Instructions,
    objective: OnlineObjective | ConditionedObjective,
    reference: Policy | None = None,
    ref_rewards: Annotated[Scores | None, LATER] = None,
) -> Made:
    """Train a policy on its own samples and a reward model's scores of them.

    `ref_rewards` are scored answers of the start, where the objective's reshaping reads them.
    """
    other = None if reference in (None, policy) else store().weights(reference)
    models = (store().weights(policy), lying(reward), other)
    is_sorted = isinstance(objective, ConditionedObjective)
    loop = "train.conditioned:roll_out" if is_sorted else "train.online:roll_out"
    rows = store().read(instructions)
    refs = None if ref_rewards is None else store().read(ref_rewards)
    return _weights(loop, models, told(rows, refs, reward, objective), objective)


def _weights(
    function: str,
    models: Path | tuple[Path | Judges | None, ...],
    rows: Path | pl.DataFrame | tuple[Path | None, ...],
    settings: Fitting | Objective | OnlineObjective,
) -> Made:
    """Weights, with the figures of every step beside them as Parquet and as a plot.

    Checkpoints lie beside the folder of the weights until they are finished, so a stage that was
    stopped goes on.
    """
    out, machine = unfinished() / "weights", Machine.here()
    shutil.rmtree(out, ignore_errors=True)
    verb, feed = function.partition(":")[2], out.with_name(f"{out.name}.progress.jsonl")
    with gpu_slot(), following(feed, verb, run=out.parent.name):
        notes: dict[str, Any] = call_together(
            function, models, out, rows, settings, machine=machine
        )
    history = pl.DataFrame(notes.pop("steps", []), infer_schema_length=None)
    history.write_parquet(out / METRICS)
    if plot := plots.steps(history):
        (out / PLOT).write_bytes(plot)
        publish(verb, history, plot)
    return Made(out, notes)
