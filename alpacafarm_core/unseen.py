"""Which prompts are asked in a source's evaluation, whoever wrote them.

A policy that invents instructions may hit on one that it will be judged on. Of files and of the hub
every evaluation prompt is known, and a prompt is one of them whatever its case and spacing. Of the
built-in world the content decides: what it asks in other words is asked all the same.
"""

import polars as pl

from alpacafarm_core import sources
from alpacafarm_core.prompts import merged
from alpacafarm_core.setup import Source, World

ALL = 1 << 40
COLUMNS = ("instruction", "input")


def evaluated(prompts: pl.DataFrame, source: Source) -> pl.Series:
    """Whether each prompt, as `instruction` and `input`, is one of the evaluation's."""
    rows = prompts.select(COLUMNS).iter_rows()
    if isinstance(source, World):
        from alpacafarm_core.world.instructions import asked_in

        return pl.Series([asked_in(*row) == "eval" for row in rows], dtype=pl.Boolean)
    known = {_plain(*row) for row in _asked(source)}
    return pl.Series([_plain(*row) in known for row in rows], dtype=pl.Boolean)


def _asked(source: Source) -> list[tuple[str, str]]:
    return sources.instructions(source, "eval", ALL).select(COLUMNS).rows()


def _plain(instruction: str, text: str) -> str:
    return " ".join(merged(instruction, text).lower().split())
