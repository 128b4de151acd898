"""What the columns of a table hold, in a few numbers each: the same on every page and command."""

from typing import NamedTuple

import polars as pl

SHOWN = 60
"""Characters of a value that are shown."""


class Column(NamedTuple):
    """One column: its type, rows without a value, different values, and where they lie.

    `least`, `median` and `most` are of the values of numbers, of the characters of texts and of the
    items of lists, as `measured` says; `commonest` is the most frequent value of texts and flags
    (of equally frequent ones the first in order) and `times` in how many rows it stands. A number
    that is not finite counts as none. None where a column has no such figure.
    """

    column: str
    type: str
    nulls: int
    distinct: int | None
    measured: str | None
    least: float | None
    median: float | None
    most: float | None
    commonest: str | None
    times: int | None


def profiled(rows: pl.DataFrame | pl.LazyFrame) -> list[Column]:
    """Statistics of every column, in order; of a lazy table one column at a time is read."""
    lazy = rows.lazy()
    return [_column(lazy, name, kind) for name, kind in lazy.collect_schema().items()]


def _column(rows: pl.LazyFrame, name: str, kind: pl.DataType) -> Column:
    held = rows.select(pl.col(name)).collect()[name]
    if kind.is_float():
        held = held.set(~held.is_finite().fill_null(True), None)
    size, measured = _size(held, kind)
    commonest, times = _commonest(held) if kind in (pl.String, pl.Boolean) else (None, None)
    return Column(
        column=name,
        type=_word(kind),
        nulls=held.null_count(),
        distinct=None if isinstance(kind, pl.List) else held.drop_nulls().n_unique(),
        measured=measured,
        least=_real(size, "min"),
        median=_real(size, "median"),
        most=_real(size, "max"),
        commonest=commonest,
        times=times,
    )


def _real(sizes: pl.Series | None, figure: str) -> float | None:
    value = None if sizes is None else getattr(sizes, figure)()
    return None if value is None else float(value)


def _size(held: pl.Series, kind: pl.DataType) -> tuple[pl.Series | None, str | None]:
    """What is measured of each value, and in what."""
    if isinstance(kind, pl.List):
        return held.list.len(), "items"
    if kind == pl.String:
        return held.str.len_chars(), "characters"
    return (held, "value") if kind.is_numeric() else (None, None)


def _commonest(held: pl.Series) -> tuple[str | None, int | None]:
    counts = held.drop_nulls().alias("value").value_counts(name="times")
    if counts.is_empty():
        return None, None
    value, times = counts.sort(["times", "value"], descending=[True, False]).row(0)
    return brief(str(value).lower() if held.dtype == pl.Boolean else value), times


def _word(kind: pl.DataType) -> str:
    """The type of a column as people say it."""
    if isinstance(kind, pl.List):
        return "list"
    if kind.is_numeric():
        return "number" if kind.is_float() else "whole"
    return {pl.String: "text", pl.Boolean: "flag"}.get(type(kind), str(kind).lower())


def brief(held: object, longest: int = SHOWN) -> str:
    """A value in one line, cut where it is longer."""
    text = " ".join(str(held).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
