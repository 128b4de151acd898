"""A number for each answer."""

import polars as pl

from alpacafarm_core.artifacts import Candidates, Scores
from alpacafarm_core.farm import Judge
from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Truth
from alpacafarm_core.train.job import call_each
from tasks.generate import shares
from tasks.stage import stage, store


@stage(Scores, version=1)
def score(candidates: Candidates, judge: Judge) -> pl.DataFrame:
    """Score each answer with a reward model, or with the truth of the built-in world."""
    rows = store().read(candidates)
    if isinstance(judge, Truth):
        from alpacafarm_core.world.utility import utility

        prompts = rows.select("instruction", "input", "output").iter_rows()
        scores, name = [utility(*row) for row in prompts], "truth"
    else:
        machine = Machine.here()
        parts = [(store().weights(judge), part) for part in shares(rows, machine.at_once())]
        found = call_each("reward:score", parts, machine)
        scores, name = [each for part in found for each in part], judge.folder
    return rows.with_columns(score=pl.Series(scores, dtype=pl.Float64), judge=pl.lit(name))
