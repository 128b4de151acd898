"""Instructions of many sources, answered by a pool of models."""

from importlib import import_module

import polars as pl

from alpacafarm_core import composing, sources
from alpacafarm_core.artifacts import Candidates, Guided, Instructions, Pooled
from alpacafarm_core.mixture import Mixture, mixed
from alpacafarm_core.responders import Drawing, Seat, drawn, gathered
from alpacafarm_core.setup import Source
from alpacafarm_core.store import Made
from alpacafarm_core.weights import Policy
from tasks.stage import stage, store


@stage(Instructions, version=1)
def mix(instructions: Instructions, source: Source, mixture: Mixture) -> Made:
    """So many prompts of each source, without those known from the evaluation."""
    asked = sources.instructions(source, "eval", mixture.evaluated)
    found = mixed(store().read(instructions), asked, mixture)
    return Made(found.rows, {"shared_with_evaluation": found.shared, "short": found.short})


@stage(Guided, version=1)
def draw(instructions: Instructions, drawing: Drawing, seat: Seat) -> pl.DataFrame:
    """The prompts that one responder of a pool answers, each with its principle."""
    return drawn(store().read(instructions), drawing, seat)


@stage(Candidates, version=1)
def write(prompts: Guided, source: Source, skill: float) -> pl.DataFrame:
    """Answers of a writer of the built-in world, who heeds no principle."""
    return sources.answered(source, store().read(prompts), skill)


@stage(Pooled, version=1)
def gather(
    instructions: Instructions, drawing: Drawing, answers: tuple[Candidates, ...]
) -> pl.DataFrame:
    """All responders' answers as one table, in the order of the pool's names."""
    return gathered(store().read(instructions), drawing, [store().read(each) for each in answers])


def adopt(model: str) -> Policy:
    """Take a language model by its folder or hub name into the store."""
    return composing.adopt(import_module("tasks"), model)
