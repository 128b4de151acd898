"""What users said of answers, and what can be learned from it."""

import polars as pl

from alpacafarm_core import interactions as core
from alpacafarm_core import sources
from alpacafarm_core.artifacts import Candidates, Guided, Interactions, Preferences
from alpacafarm_core.interactions import Guidance
from alpacafarm_core.setup import Source
from tasks.stage import stage, store


@stage(Interactions, version=2)
def interactions(source: Source, size: int) -> pl.DataFrame:
    """Answers and what their users made of them."""
    return sources.interactions(source, size)


@stage(Guided, version=1)
def guided(interactions: Interactions, guidance: Guidance) -> pl.DataFrame:
    """Prompts that show what was disliked and why."""
    return core.guided(store().read(interactions), guidance)


@stage(Preferences, version=1)
def corrected(interactions: Interactions, better: Candidates | None = None) -> pl.DataFrame:
    """Disliked answers against fresh ones, or against those that users went on to accept."""
    rows = store().read(interactions)
    return core.accepted(rows) if better is None else core.corrected(rows, store().read(better))
