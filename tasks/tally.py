"""The leaderboard, and the table, samples and plot of it in the UI."""

from collections.abc import Mapping

import polars as pl

from alpacafarm_core import tally as core
from alpacafarm_core.artifacts import Leaderboard
from alpacafarm_core.farm import Evaluation
from tasks.stage import stage, store


@stage(Leaderboard, version=1)
def tally(evaluations: Mapping[str, Evaluation]) -> pl.DataFrame:
    """Count wins against the reference, one row a model."""
    return core.board(
        {
            model: (
                store().read(judged.preferences),
                None if judged.truth is None else store().read(judged.truth),
            )
            for model, judged in evaluations.items()
        }
    )
