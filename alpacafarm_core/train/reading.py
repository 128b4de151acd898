"""Reading what is learned from: a frame, or a Parquet file, a part of it in memory at a time."""

import random
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import polars as pl
from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

from alpacafarm_core.train.tokens import TAG, labelled

Source = pl.DataFrame | Path

PART = 2_500  # rows in memory at a time
PROMPT = ["instruction", "input"]
ANSWERS = [*PROMPT, "tokenizer", "output", "output_ids"]
PAIRS = [*PROMPT, "tokenizer", "preference"] + [
    f"output_{side}{ids}" for side in (1, 2) for ids in ("", "_ids")
]


def in_parts(source: Source, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """These columns of all rows, in order, some thousand rows at a time."""
    if isinstance(source, pl.DataFrame):
        yield from source.select(columns).iter_slices(PART)
        return
    with ParquetFile(source) as file:
        for batch in file.iter_batches(PART, columns=list(columns)):
            yield pl.DataFrame(batch)


class Reader:
    """Reads the rows that examples are made of, once, and remembers which rows those were.

    `numbers` are the row numbers of those that were read and not left out, and `undecided` counts
    those that were, which happens to pairs only.
    """

    def __init__(self, source: Source, of_pairs: bool) -> None:
        """Nothing is read yet."""
        self.source, self.of_pairs = source, of_pairs
        self.numbers, self.undecided = array("i"), 0

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """The rows that can be learned from, in parts."""
        start = 0
        for part in in_parts(self.source, PAIRS if self.of_pairs else _answers(self.source)):
            rows = part.with_row_index("row", start)
            start += part.height
            rows = labelled(rows) if self.of_pairs else rows
            self.numbers.extend(rows["row"])
            self.undecided += part.height - rows.height
            yield rows

    @property
    def height(self) -> int:
        """Rows that were read."""
        return len(self.numbers) + self.undecided


def _answers(source: Source) -> list[str]:
    """Columns of answers, with their reward tokens where they have some."""
    return [*ANSWERS, TAG] if TAG in scanned(source).collect_schema() else ANSWERS


def tags_in(source: Source) -> int:
    """Reward tokens that a table's answers are tagged with, 0 where they are not."""
    if TAG not in scanned(source).collect_schema():
        return 0
    most = scanned(source).select(pl.col(TAG).max()).collect().item()
    return 0 if most is None else most + 1


class Instructions(Sequence[str]):
    """The instructions of the rows with these numbers, looked up when they are asked for."""

    def __init__(self, source: Source, numbers: Sequence[int]) -> None:
        """Nothing is looked up yet."""
        self.source, self.numbers = source, numbers

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> list[str]: ...

    def __getitem__(self, at: int | slice) -> str | list[str]:
        """One of them, or some."""
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        row = scanned(self.source).select("instruction").slice(self.numbers[at], 1)
        return str(row.collect().item())


def scanned(source: Source) -> pl.LazyFrame:
    """The rows, lazily."""
    return source.lazy() if isinstance(source, pl.DataFrame) else pl.scan_parquet(source)


def held_out(source: Source, most: int, seed: int) -> list[int]:
    """Labelled pairs to test on, counted among the labelled ones: at most so many, a tenth of all.

    All pairs of a prompt are on one side; prompts are drawn in an order fixed by the seed.
    """
    prompts = labelled(scanned(source).select(*PROMPT, "preference")).select(PROMPT).collect()
    order = prompts.select(pl.arg_sort_by(PROMPT)).to_series()
    ordered, prompt = prompts[order].lazy(), pl.col(PROMPT)
    is_new = pl.any_horizontal(prompt.ne_missing(prompt.shift())) | (pl.int_range(pl.len()) == 0)
    number = ordered.select(is_new.cum_sum()).collect().to_series() - 1
    sizes = number.rle().struct.field("len").to_list()
    names = list(range(len(sizes)))
    random.Random(seed).shuffle(names)
    room = min(most, prompts.height // 10)
    drawn: list[int] = []
    for name in names:
        if sizes[name] <= room:
            drawn.append(name)
            room -= sizes[name]
    tested = pl.Series(drawn, dtype=number.dtype)
    return order.filter(number.is_in(tested.implode())).sort().to_list()
