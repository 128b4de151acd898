"""What the studies ask of the farm beyond the methods' own stages."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from alpacafarm_core import curves as core
from alpacafarm_core import plots, sources
from alpacafarm_core.artifacts import Candidates, Curves, Preferences, Ranks, Scores
from alpacafarm_core.comparison import across, standard_error
from alpacafarm_core.curves import PROMPT, Point, Pool, Run
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.machine import Machine
from alpacafarm_core.ranking import agreement
from alpacafarm_core.setup import Source
from alpacafarm_core.store import Made
from alpacafarm_core.train.job import call
from alpacafarm_core.weights import Policy
from tasks.slots import gpu_slot
from tasks.stage import stage, store

PLOT = "plot.png"


@stage(Candidates, version=1)
def nth(candidates: Candidates, index: int) -> pl.DataFrame:
    """One sample of every prompt."""
    return store().read(candidates).filter(pl.col("sample_index") == index)


@stage(Candidates, version=1)
def written(source: Source, size: int, skill: float) -> pl.DataFrame:
    """Answers of a writer of the built-in world to the evaluation prompts."""
    return sources.written(source, size, skill)


@stage(Scores, version=1)
def drift(candidates: Candidates, policy: Policy, reference: Policy) -> pl.DataFrame:
    """Log-ratio of each answer under a policy and its reference, in nats."""
    rows, models = store().read(candidates), (store().weights(policy), store().weights(reference))
    with gpu_slot():
        found = call("divergence:log_ratios", models, rows, machine=Machine.here())
    name = pl.lit(f"log-ratio to {reference.folder}")
    return rows.with_columns(score=pl.Series(found, dtype=pl.Float64), judge=name)


@stage(Curves, version=1)
def curves(pools: Sequence[Pool], runs: Sequence[Run], sizes: Sequence[int]) -> Made:
    """The points of a study, its plot, and where true utility peaks."""
    points = [point for pool in pools for point in _of_pool(pool, sizes)]
    points += [_of_run(run) for run in runs]
    series = list(dict.fromkeys(point.series for point in points))
    peaks = {
        name: core.peak([point for point in points if point.series == name])._asdict()
        for name in series
    }
    rows = core.table(points)
    return Made(rows, {"peaks": peaks}, files={PLOT: plots.curves(rows)})


@stage(Ranks, version=2)
def ranks(
    simulated: Sequence[Mapping[str, Evaluation]], human: Sequence[Mapping[str, Evaluation]]
) -> Made:
    """The same models by two sorts of judges, an entry a seed, and how alike those rank them."""
    ours, theirs = (_rates(side) for side in (simulated, human))
    rows = ours.join(theirs, on="model", suffix="_human").select(
        "model",
        simulated="rate",
        simulated_error="error",
        human="rate_human",
        human_error="error_human",
    )
    inside, outside = (
        list(rows.select(name, f"{name}_error").iter_rows()) for name in ("simulated", "human")
    )
    found = agreement(rows["model"].to_list(), inside, outside)
    return Made(rows, found._asdict(), files={PLOT: plots.ranks(rows)})


def _rates(side: Sequence[Mapping[str, Evaluation]]) -> pl.DataFrame:
    """Win rate and standard error of each model in percent, over prompts and, if many, seeds."""
    found = []
    for model in side[0]:
        runs = [
            store()
            .read(rows[model].preferences)
            .select(*PROMPT, points=100 * (pl.col("preference") - 1))
            for rows in side
        ]
        if len(runs) > 1:
            mean, error, *_ = across(runs, "points")
        else:
            points = runs[0]["points"].drop_nulls().cast(pl.Float64).to_numpy()
            mean, error = float(points.mean()), standard_error(points)
        found.append({"model": model, "rate": mean, "error": error})
    return pl.DataFrame(found)


def _of_pool(pool: Pool, sizes: Sequence[int]) -> list[Point]:
    return core.best_of_points(pool.series, pooled(pool), sizes)


def pooled(pool: Pool) -> pl.DataFrame:
    """A row a sample of every prompt: its reward, utility, and what judges and people said."""
    keys = [*PROMPT, "sample_index"]
    rows = store().read(pool.proxy).select(*keys, proxy="score")
    truth = store().read(pool.truth).select(*keys, utility="score")
    rows = rows.join(truth, on=keys)
    for name, tables in (("win_rate", pool.judged), ("human", pool.human)):
        rows = rows.join(_judged(tables).rename({"preference": name}), on=keys, how="left")
    return rows.fill_null(float("nan"))


def _judged(tables: Sequence[Preferences]) -> pl.DataFrame:
    return pl.concat(
        store()
        .read(table)
        .select(*PROMPT, pl.col("preference") - 1, sample_index=pl.lit(index, pl.Int64))
        for index, table in enumerate(tables)
    )


def _of_run(run: Run) -> Point:
    proxy, truth = (store().read(scores) for scores in (run.proxy, run.truth))
    judged, human = (store().read(pairs) for pairs in (run.judged, run.human))
    kl = float(np.mean(store().read(run.drift)["score"].to_numpy()))
    measures = {
        "proxy": proxy["score"].to_numpy(),
        "win_rate": (judged["preference"] - 1).cast(pl.Float64).to_numpy(),
        "human": (human["preference"] - 1).cast(pl.Float64).to_numpy(),
        "utility": truth["score"].to_numpy(),
    }
    return Point(run.series, run.x, kl, measures)
