"""Tables written and read a part at a time, as Parquet, so that none need ever be held whole."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl
from pyarrow.parquet import ParquetFile, ParquetWriter  # type: ignore[import-untyped]

from alpacafarm_core.artifacts import Columns

GROUP = 4096  # rows written together
CHUNK = 16_384  # rows read together


def lay(frames: Iterable[pl.DataFrame], columns: Columns, file: Path) -> int:
    """Write frames one below the other, cast to these columns; how many rows there are."""
    count, schema = 0, pl.DataFrame(schema=columns).to_arrow().schema
    with ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(frames):
            held = group.select(pl.col(name).cast(kind) for name, kind in columns.items())
            writer.write_table(held.to_arrow().cast(schema))
            count += group.height
    return count


def read(files: Sequence[Path]) -> Iterator[pl.DataFrame]:
    """The rows of each file in turn, a few thousand at a time."""
    for path in files:
        with ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                yield pl.DataFrame(file.read_row_group(number))


def chunks(file: Path, share: tuple[int, int]) -> Iterator[pl.DataFrame]:
    """Part of the rows of a file, from the first of the share, as many as it says, in order."""
    first, rows = share
    for start in range(first, first + rows, CHUNK):
        height = min(CHUNK, first + rows - start)
        yield pl.scan_parquet(file).slice(start, height).collect()


def _groups(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in frames of at least GROUP rows, but for the last."""
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame)
        if sum(each.height for each in held) >= GROUP:
            yield pl.concat(held)
            held = []
    if held:
        yield pl.concat(held)
