"""Rows worth training on."""

import polars as pl

from alpacafarm_core import select as core
from alpacafarm_core.artifacts import Candidates, Demonstrations, Preferences, Scores
from alpacafarm_core.settings import Rule
from alpacafarm_core.store import Made
from tasks.stage import stage, store


@stage(Demonstrations, version=1)
def select(scored: Scores | Preferences, rule: Rule) -> pl.DataFrame:
    """Keep the best answer of each prompt, or the preferred one of each pair."""
    return core.select(store().read(scored), rule)


@stage(Preferences, version=1)
def prefer(chosen: Demonstrations, rejected: Candidates) -> Made:
    """Pair demonstrations with a policy's own answers to the same prompts."""
    return Made(core.prefer_in_parts(store().scan(chosen), store().scan(rejected)))
