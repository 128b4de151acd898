"""Answers to one prompt against each other."""

from importlib import import_module

import polars as pl

from alpacafarm_core import composing
from alpacafarm_core.artifacts import Candidates, Comparisons, Scores
from alpacafarm_core.farm import Judge
from alpacafarm_core.machine import Machine
from alpacafarm_core.pairs import asymmetry, compared
from alpacafarm_core.select import PROMPT
from alpacafarm_core.store import Made
from alpacafarm_core.weights import Pairwise
from tasks.generate import shares, written
from tasks.stage import stage, store


@stage(Comparisons, version=1)
def compare_scored(scored: Scores) -> pl.DataFrame:
    """Every answer to a prompt against every answer to it, by their scores."""
    return compared(store().read(scored))


@stage(Comparisons, version=1)
def compare_in_pairs(candidates: Candidates, judge: Pairwise) -> Made:
    """Every answer to a prompt against every answer to it, asked about in both orders.

    How much the judge minded the order is noted.
    """
    prompts = store().scan(candidates).select(PROMPT).unique().select(pl.len()).collect().item()
    told = (store().weights(judge), store().rows(candidates))
    some = shares(prompts, Machine.here().at_once())
    rows = pl.concat(written("pairwise:write", [(*told, part, judge.folder) for part in some]))
    return Made(rows, asymmetry(rows))


def compare(candidates: Candidates, judge: Judge | Pairwise) -> Comparisons:
    """Compare answers two at a time, or by a judge that gives a score to each."""
    return composing.compare(import_module("tasks"), candidates, judge)
