"""Answers to a prompt that say the same."""

import shutil
from importlib import import_module

import polars as pl

from alpacafarm_core import composing
from alpacafarm_core.artifacts import Clusters, Scores
from alpacafarm_core.clustering import Clustering, Entailment, Told, asking, clustered
from alpacafarm_core.machine import Machine
from alpacafarm_core.store import Made
from alpacafarm_core.train.job import call
from alpacafarm_core.weights import Policy
from tasks.slots import gpu_slot
from tasks.stage import stage, store


@stage(Clusters, version=1)
def cluster_told(scored: Scores, clustering: Told) -> pl.DataFrame:
    """Put answers that say the same together, as their texts tell."""
    return clustered(store().read(scored), asking(clustering))


@stage(Clusters, version=1)
def cluster_read(scored: Scores, clustering: Entailment, reader: Policy) -> Made:
    """Put answers that say the same together, as a model of entailment reads them."""
    folder = store().scratch()
    file = folder / "clusters.parquet"
    told = (store().weights(reader), store().rows(scored), clustering, file)
    with gpu_slot():
        notes: dict[str, int] = call("entailment:write", *told, machine=Machine.here())
    rows = pl.read_parquet(file)
    shutil.rmtree(folder)
    return Made(rows, notes)


def cluster(scored: Scores, clustering: Clustering) -> Clusters:
    """Put answers that say the same together, with a model taken into the store where one reads."""
    return composing.cluster(import_module("tasks"), scored, clustering)
