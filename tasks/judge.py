"""A number for each answer."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import polars as pl

from alpacafarm_core import composing, parts
from alpacafarm_core.artifacts import Candidates, Scores, Uncertain
from alpacafarm_core.committees import Verdict
from alpacafarm_core.farm import Judge, Judging
from alpacafarm_core.machine import Machine
from alpacafarm_core.referring import penalised
from alpacafarm_core.residual import residual as without_length
from alpacafarm_core.select import agreed, finite
from alpacafarm_core.settings import Truth
from alpacafarm_core.shaping import Penalties
from alpacafarm_core.store import Made
from alpacafarm_core.weights import Implicit
from tasks.generate import shares, written
from tasks.stage import stage, store


@stage(Scores, version=1)
def score(candidates: Candidates, judge: Judging) -> Made:
    """Score each answer with a reward model, a policy's own reward, or the world's truth."""
    file, rows = store().rows(candidates), store().manifest(candidates).rows or 0
    if isinstance(judge, Truth):
        return Made(_true(file, rows))
    some = shares(rows, Machine.here().at_once())
    if isinstance(judge, Implicit):
        both = (store().weights(judge.policy), store().weights(judge.reference))
        name = f"implicit {judge.policy.folder} {judge.reference.folder}"
        found = written("train.implicit:write", [(both, file, part, name) for part in some])
        return Made(finite(found, name))
    folder = store().weights(judge)
    calls = [(folder, file, part, judge.folder) for part in some]
    return Made(finite(written("scoring:write", calls), judge.folder))


@stage(Scores, version=1)
def penalise(scores: Scores, penalties: Penalties) -> pl.DataFrame:
    """Scores less what an answer loses by its length, a ceiling, or having no end."""
    return penalised(store().read(scores), penalties)


@stage(Scores, version=1)
def residual(scores: Scores, seen: Scores) -> pl.DataFrame:
    """Scores less what length explains, by the line through those in `seen`."""
    return without_length(store().read(scores), store().read(seen))


@stage(Uncertain, version=1)
def agree(scored: tuple[Scores, ...], verdict: Verdict) -> pl.DataFrame:
    """The scores of several judges of the same answers as one, and their spread."""
    return agreed([store().read(each) for each in scored], verdict)


def score_by(candidates: Candidates, judge: Judge) -> Scores:
    """Score each answer; a committee's members do so in stages of their own."""
    return composing.score(import_module("tasks"), candidates, judge)


def _true(file: Path, rows: int) -> Iterator[pl.DataFrame]:
    from alpacafarm_core.world.utility import utility

    for chunk in parts.chunks(file, (0, rows)):
        prompts = chunk.select("instruction", "input", "output").iter_rows()
        found = pl.Series("score", [utility(*row) for row in prompts], dtype=pl.Float64)
        yield chunk.with_columns(found, judge=pl.lit("truth")).select(list(Scores.columns))
