"""Mixtures of instructions: so many of each source, none of them known from the evaluation.

UltraFeedback (arXiv 2310.01377, section 2.1) draws 64k instructions from six sources and removes
those that share 13 words in a row with a prompt of an evaluation set. Which rows are drawn depends
on each row alone, so that a larger count keeps them all. Frames in, frames out.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import polars as pl
from pydantic import Field, field_validator

from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import digest
from alpacafarm_core.prompts import merged
from alpacafarm_core.select import PROMPT
from alpacafarm_core.values import Value

PAPERS: Mapping[str, int] = {
    "evol_instruct": 10_000,
    "ultrachat": 9_929,
    "sharegpt": 19_949,
    "flan": 20_939,
    "truthful_qa": 811,
    "false_qa": 2_339,
}
"""UltraFeedback's rows by source; 63,967 in all."""

_WORD = re.compile(r"\w+")


class Mixture(Value):
    """Which instructions are answered, by the `dataset` they come from."""

    counts: dict[str, int] = Field(
        default=dict(PAPERS), min_length=1, description="Rows of each source, at most"
    )
    grams: int = Field(default=13, ge=1, description="Words in a row that give away")
    evaluated: int = Field(default=805, ge=0, description="Evaluation prompts to keep apart")
    seed: int = Field(default=0, ge=0, description="Seed of the draw")

    @field_validator("counts")
    @classmethod
    def _asks_for_some(cls, counts: dict[str, int]) -> dict[str, int]:
        if empty := [name for name, count in counts.items() if count < 1]:
            raise ValueError(f"source {empty[0]!r} is asked for no row; leave it out instead")
        return counts


class Mixed(NamedTuple):
    """Rows with the columns of Instructions, and what the manifest says of those left out.

    `shared` are the numbers, from 0, of rows that hold words of an evaluation prompt, and `short`
    how many rows a source has where it has fewer than were asked for.
    """

    rows: pl.DataFrame
    shared: list[int]
    short: dict[str, int]


def mixed(instructions: pl.DataFrame, evaluated: pl.DataFrame, mixture: Mixture) -> Mixed:
    """Rows of each source, drawn by a hash, in the order they stand in.

    Copies count once. Raises BadInput where a source has no row that may be used.
    """
    known = grams_of(evaluated, mixture.grams)
    texts = [merged(*row) for row in instructions.select(PROMPT).iter_rows()]
    shared = [row for row, text in enumerate(texts) if known & set(grams(text, mixture.grams))]
    numbered = instructions.with_row_index("row")
    clean = numbered.filter(~pl.col("row").is_in(shared)).unique(
        PROMPT, keep="first", maintain_order=True
    )
    drawn = [_of(clean, source, count, mixture.seed) for source, count in mixture.counts.items()]
    have = {source: len(rows) for source, rows in zip(mixture.counts, drawn, strict=True)}
    kept = clean.filter(pl.col("row").is_in([row for rows in drawn for row in rows]))
    short = {name: have[name] for name, count in mixture.counts.items() if have[name] < count}
    return Mixed(kept.drop("row"), shared, short)


def grams_of(prompts: pl.DataFrame, size: int) -> set[str]:
    """Every run of `size` words in the prompts."""
    asked = prompts.select(PROMPT).iter_rows()
    return {gram for row in asked for gram in grams(merged(*row), size)}


def grams(text: str, size: int) -> Iterator[str]:
    """Runs of `size` words, case and marks left out; a shorter text is one run of its own.

    >>> list(grams("Name a red fruit, please.", 4))
    ['name a red fruit', 'a red fruit please']
    >>> list(grams("Plums?", 4))
    ['plums']
    """
    words = _WORD.findall(text.lower())
    for start in range(max(min(1, len(words)), len(words) - size + 1)):
        yield " ".join(words[start : start + size])


def _of(clean: pl.DataFrame, source: str, count: int, seed: int) -> list[int]:
    """Numbers of the rows drawn from a source."""
    rows = clean.filter(pl.col("dataset") == source)
    if rows.is_empty():
        there = ", ".join(sorted(clean["dataset"].unique().to_list()))
        raise BadInput(
            f"no instruction of the source {source!r} may be used; the datasets with rows are "
            f"{there or 'none'}: set counts for those, or give instructions of that one"
        )
    placed = sorted(
        (digest("mixture", seed, instruction, text), row)
        for instruction, text, row in rows.select(*PROMPT, "row").iter_rows()
    )
    return [row for _, row in placed[:count]]
