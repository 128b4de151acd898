"""Opposites: the best answer to each prompt over the worst, some prompts kept for testing.

Magpie's preference data (Xu et al. 2024, arXiv 2406.08464, released code). Of equal scores the
first answer counts, and a prompt whose answers all score the same makes no pair: its best and worst
would be one answer. Which prompts are for testing depends on their text and the seed alone. Frames
in, frames out.
"""

from typing import Literal

import polars as pl
from pydantic import Field

from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import digest
from alpacafarm_core.pairs import as_ranked
from alpacafarm_core.select import PROMPT
from alpacafarm_core.values import Value


class Opposing(Value):
    """Which prompts make a pair of their best and worst answer."""

    held_out: float = Field(default=0.02, ge=0, lt=1, description="Share of prompts for testing")
    part: Literal["train", "test"] = Field(default="train", description="Which of the two")
    seed: int = Field(default=42, ge=0, description="Seed of the share")


def opposed(scored: pl.DataFrame, opposing: Opposing) -> pl.DataFrame:
    """One pair a prompt as Ranked, `gap` being the difference of scores.

    Raises BadInput where none is left.
    """
    rows = scored.filter(_wanted(scored, opposing))
    first = rows.with_row_index("row").sort("score", "row", descending=[True, False])
    best = first.unique(PROMPT, keep="first", maintain_order=True).sort("row")
    last = rows.with_row_index("row").sort("score", "row")
    worst = last.unique(PROMPT, keep="first", maintain_order=True)
    both = best.join(worst, on=PROMPT, suffix="_other", maintain_order="left")
    pairs = both.filter(pl.col("score") > pl.col("score_other"))
    if pairs.is_empty():
        raise BadInput(
            f"none of {rows.select(PROMPT).n_unique()} prompts in the {opposing.part} part has "
            "answers with different scores; draw more answers, or warmer ones"
        )
    return as_ranked(pairs, {})


def _wanted(rows: pl.DataFrame, opposing: Opposing) -> pl.Series:
    """Whether each row's prompt is in the part that is asked for."""
    bound = opposing.held_out * 16**8
    prompts = rows.select(PROMPT).iter_rows()
    tested = [int(digest(opposing.seed, *prompt)[:8], 16) < bound for prompt in prompts]
    found = pl.Series(tested, dtype=pl.Boolean)
    return found if opposing.part == "test" else ~found
