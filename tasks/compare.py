"""Answers to one prompt against each other."""

from importlib import import_module

import polars as pl

from alpacafarm_core import composing
from alpacafarm_core.artifacts import Candidates, Comparisons, Scores
from alpacafarm_core.farm import Judge
from alpacafarm_core.pairs import compared
from tasks.stage import stage, store


@stage(Comparisons, version=1)
def compare_scored(scored: Scores) -> pl.DataFrame:
    """Every answer to a prompt against every answer to it, by their scores."""
    return compared(store().read(scored))


def compare(candidates: Candidates, judge: Judge) -> Comparisons:
    """Compare answers by a judge that gives a score to each, in a stage of its own."""
    return composing.compare(import_module("tasks"), candidates, judge)
