"""Where an experiment's rows and weights come from."""

from pathlib import Path
from typing import Annotated

import polars as pl

from alpacafarm_core import sources
from alpacafarm_core.artifacts import Candidates, Demonstrations, Instructions, Preferences
from alpacafarm_core.setup import Pretrained, Source, Split
from alpacafarm_core.store import Made
from alpacafarm_core.values import LATER
from alpacafarm_core.weights import Policy
from tasks.stage import stage, store


@stage(Policy, version=1)
def base(model: Pretrained) -> Made:
    """Copy a language model into the store, so that what follows stands on files of its own."""
    folder = store().scratch()
    sources.take_model(model, folder)
    return Made(folder, {"model": Path(model.name).name})


@stage(Instructions, version=1)
def instructions(source: Source, split: Split, size: int) -> pl.DataFrame:
    """Prompts of one split."""
    return sources.instructions(source, split, size)


@stage(Demonstrations, version=1)
def demonstrations(
    source: Source, size: int, split: Annotated[Split, LATER] = "sft"
) -> pl.DataFrame:
    """Prompts of a split with answers to imitate."""
    return sources.demonstrations(source, size, split)


@stage(Candidates, version=1)
def published(source: Source, size: int) -> pl.DataFrame:
    """The reference's outputs for the evaluation prompts."""
    return sources.published(source, size)


@stage(Preferences, version=1)
def recorded(source: Source) -> pl.DataFrame:
    """Labels somebody recorded, for prompts that are not evaluated."""
    return sources.recorded(source)
