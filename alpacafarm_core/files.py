"""Files of other people's, read at the door: JSON, JSON lines, CSV and Parquet to typed rows.

What passes has exactly the columns of its kind; what does not is refused with one line that names
the file, the row (from 1), the column and the mend. Unknown columns are left behind. AlpacaFarm's
and AlpacaEval's own files pass unchanged: 0 is a tie, -1 and null are judgements that failed.
Preferences may also have a shape that `shapes` knows: TRL's, ordinal labels, ratings.
"""

import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import polars as pl

from alpacafarm_core.artifacts import (
    FLAG,
    IDS,
    REAL,
    TEXT,
    WHOLE,
    Candidates,
    Demonstrations,
    Instructions,
    Interactions,
    Leaderboard,
    Preferences,
    Table,
)
from alpacafarm_core.conversations import as_turns, labelled
from alpacafarm_core.errors import BadInput
from alpacafarm_core.formats import load
from alpacafarm_core.judgements import first_row, judged, shown
from alpacafarm_core.pairing import PAIR
from alpacafarm_core.shapes import as_pairs

__all__ = ["ALSO_CALLED", "KINDS", "kind_named", "load", "read", "read_pairs"]

KINDS: dict[str, type[Table]] = {
    "instructions": Instructions,
    "demonstrations": Demonstrations,
    "candidates": Candidates,
    "preferences": Preferences,
    "interactions": Interactions,
    "leaderboard": Leaderboard,
}
ALSO_CALLED = {"model_outputs": "candidates", "annotations": "preferences"}
REQUIRED = {
    "instructions": ("instruction",),
    "demonstrations": ("instruction", "output"),
    "candidates": ("instruction", "output"),
    "preferences": ("instruction", "output_1", "output_2", "preference"),
    "interactions": ("instruction", "response", "label"),
    "leaderboard": ("model", "win_rate"),
}
OTHER_NAMES = {
    "instruction": ("prompt",),
    "generator_2": ("model",),
    "is_noisy": ("is_noisy_label",),
    "model": ("",),  # AlpacaEval's leaderboards leave the first header empty
    "price": ("price_per_example", "preference_price_per_example"),
    "raw_completion": ("preference_raw_completion",),
    "seconds": ("time_per_example", "preference_time_per_example"),
}
FLAGS = {"true": True, "false": False, "": None}  # as CSV has them
PROMPT = ["instruction", "input"]
UNABSENT = {"instruction", "output", "output_1", "output_2", "response"}
DEFAULTS = {TEXT: "", IDS: [], FLAG: False}
ONE_ANSWER = [*PROMPT, "generator", "sample_index"]


def read(
    path: Path | str,
    kind: str,
    duplicates: Literal["refuse", "first"] = "refuse",
    beside: Sequence[str] = (),
) -> pl.DataFrame:
    """Rows of a file, in its order, with the columns of `kind`; raises BadInput.

    A prompt that comes twice among instructions is refused, or its first row is kept; an answer
    that comes twice among candidates is refused. Columns `beside` are kept too: answers, a text in
    every row.
    """
    path, kind = Path(path), kind_named(kind)
    raw = _named(load(path), kind, path)
    _check_columns(raw, (*REQUIRED[kind], *beside), kind, path)
    columns = KINDS[kind].columns
    answers = [_text(raw[name], path, may_lack=False) for name in beside]
    rows = pl.DataFrame([_column(raw, name, columns[name], path) for name in columns] + answers)
    _refuse_blank(rows, REQUIRED[kind][0], path)
    finish: dict[str, Callable[[], pl.DataFrame]] = {
        "instructions": lambda: _unique(rows, duplicates, path),
        "candidates": lambda: _numbered(rows, path),
        "preferences": lambda: judged(rows, path),
        "interactions": lambda: labelled(rows, path),
    }
    return finish[kind]() if kind in finish else rows


def read_pairs(path: Path | str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs to judge as the file has them, and with the columns that judging needs.

    Raises BadInput; instruction and both outputs must be there, input may be.
    """
    raw = load(path := Path(path))
    _check_columns(raw, ("instruction", "output_1", "output_2"), "pairs", path)
    pairs = pl.DataFrame([_column(raw, name, kind, path) for name, kind in PAIR.items()])
    _refuse_blank(pairs, "instruction", path)
    return raw, pairs


def kind_named(name: str) -> str:
    """The kind that a name stands for; raises BadInput when there is none."""
    kind = ALSO_CALLED.get(name, name)
    if kind not in KINDS:
        raise BadInput(f"cannot read a file as {name!r}; use {', '.join((*KINDS, *ALSO_CALLED))}")
    return kind


def _named(raw: pl.DataFrame, kind: str, path: Path) -> pl.DataFrame:
    """The file's columns under our names; preferences of another shape as pairs."""
    if kind == "preferences":
        raw = as_pairs(raw, path)
    if kind == "interactions":
        raw = as_turns(raw, path)
    wanted = [name for name in KINDS[kind].columns if name not in raw.columns]
    for name in wanted:
        found = [other for other in OTHER_NAMES.get(name, ()) if other in raw.columns]
        if found:
            raw = raw.rename({found[0]: name})
    return raw


def _check_columns(raw: pl.DataFrame, needed: Sequence[str], kind: str, path: Path) -> None:
    if not raw.height:
        raise BadInput(f"{path}: no rows; {kind} need at least one")
    for name in needed:
        if name not in raw.columns:
            spare = [column for column in raw.columns if column not in needed]
            near = get_close_matches(name, spare, n=1)
            mend = f"rename {near[0]!r}" if near else "add it"
            there = ", ".join(raw.columns[:12])
            raise BadInput(f"{path}: no column {name!r} for {kind}, only {there}; {mend}")


def _column(raw: pl.DataFrame, name: str, kind: pl.DataType, path: Path) -> pl.Series:
    """One column of the file, or its default: empty text, no tokens, false, or null for numbers."""
    default = DEFAULTS.get(kind)
    if name not in raw.columns or raw[name].null_count() == raw.height:
        if name in UNABSENT:
            raise BadInput(f"{path}: column {name!r} has no value in any row; fill it in")
        return pl.Series(name, [default] * raw.height, dtype=kind)
    series = raw[name]
    if kind == TEXT:
        return _text(series, path, may_lack=name not in UNABSENT)
    if kind == REAL:
        return _number(series, path)
    return _whole(series, path) if kind == WHOLE else _as(kind, series, path)


def _as(kind: pl.DataType, series: pl.Series, path: Path) -> pl.Series:
    """Flags and token ids; what would not come back the same is refused."""
    if kind == FLAG and series.dtype == TEXT:
        low = series.str.to_lowercase()
        known = low.is_in([*FLAGS]).all()
        series = low.replace_strict(FLAGS, default=None, return_dtype=kind) if known else series
    cast = _cast(kind, series)
    if cast is None:
        raise BadInput(f"{path}: column {series.name!r} is {series.dtype}, not {kind}; cast it")
    lossy = series.ne_missing(cast.cast(series.dtype))
    if lossy.any():
        row = first_row(lossy)
        raise BadInput(
            f"{path}: row {row}, column {series.name!r}: {shown(series[row - 1])} is not {kind}; "
            "correct it"
        )
    default = pl.lit(DEFAULTS[kind], kind)
    return cast.to_frame().select(pl.first().fill_null(default))[series.name]


def _cast(kind: pl.DataType, series: pl.Series) -> pl.Series | None:
    """The column as `kind`; none where Polars cannot, or would make numbers of flags."""
    try:
        cast = series.cast(kind)
    except pl.exceptions.PolarsError:
        return None
    return cast if cast.dtype == kind and series.dtype != pl.List(pl.Boolean) else None


def _text(series: pl.Series, path: Path, may_lack: bool) -> pl.Series:
    """Text as it stands; null is "" where a text may be absent, and refused in an answer."""
    if series.name == "raw_completion" and series.dtype != TEXT:
        return _as_json(series)
    if series.dtype != TEXT:
        _refuse_other_than_text(series, path)
    if not may_lack and series.null_count():
        raise BadInput(
            f"{path}: row {first_row(series.is_null())} has no {series.name!r}; "
            'write "" for an empty answer, or remove the row'
        )
    return series.fill_null("")


def _as_json(series: pl.Series) -> pl.Series:
    """Judges' answers that are objects, as JSON text."""
    values = series.to_list()
    texts = [v if isinstance(v, str) else json.dumps(v, default=str) for v in values]
    return pl.Series(series.name, texts, dtype=TEXT).set(series.is_null(), "")


def _refuse_other_than_text(series: pl.Series, path: Path) -> None:
    values = enumerate(series.to_list(), start=1)
    odd = ((n, held) for n, held in values if held is not None and not isinstance(held, str))
    row, held = next(odd, (1, series.dtype))
    raise BadInput(
        f"{path}: row {row}, column {series.name!r}: {shown(held)} is not text; quote it, "
        "one text a row"
    )


def _number(series: pl.Series, path: Path) -> pl.Series:
    """Numbers, also when written as text; an empty field is null, NaN and infinity are refused."""
    given = _as_written(series)
    numbers = given.cast(REAL, strict=False) if _is_readable(given) else _nothing(series, REAL)
    finite = numbers.is_finite().fill_null(value=False)
    _refuse(given.is_not_null() & ~finite, series, "a finite number", path)
    return numbers


def _whole(series: pl.Series, path: Path) -> pl.Series:
    """Whole numbers, also when written as text or with a fraction of nought, such as 761.0."""
    numbers, given = _number(series, path), _as_written(series)
    exact = _nothing(series, WHOLE) if given.dtype.is_float() else given.cast(WHOLE, strict=False)
    even = numbers.set(numbers != numbers.floor(), None).cast(WHOLE, strict=False)
    exact = exact.to_frame().select(pl.first().fill_null(even))[series.name]
    _refuse(given.is_not_null() & exact.is_null(), series, "a whole number of 64 bits", path)
    return exact


def _as_written(series: pl.Series) -> pl.Series:
    """Objects as text, and an empty text as null."""
    if series.dtype == pl.Object:
        texts = [None if value is None else str(value) for value in series]
        return pl.Series(series.name, texts, dtype=TEXT)
    return series.replace("", None) if series.dtype == TEXT else series


def _is_readable(series: pl.Series) -> bool:
    """Whether it can hold numbers: a flag or a date is none, though Polars would cast it."""
    return series.dtype == TEXT or series.dtype.is_numeric()


def _nothing(series: pl.Series, kind: pl.DataType) -> pl.Series:
    return pl.Series(series.name, [None] * len(series), dtype=kind)


def _refuse(wrong: pl.Series, series: pl.Series, wanted: str, path: Path) -> None:
    if wrong.any():
        row = first_row(wrong)
        raise BadInput(
            f"{path}: row {row}, column {series.name!r}: {shown(series[row - 1])} is not "
            f"{wanted}; correct it, or leave it empty (null) when it is missing"
        )


def _refuse_blank(rows: pl.DataFrame, name: str, path: Path) -> None:
    blank = rows[name].str.strip_chars() == ""
    if blank.any():
        raise BadInput(f"{path}: row {first_row(blank)} has an empty {name!r}; remove the row")


def _unique(rows: pl.DataFrame, duplicates: str, path: Path) -> pl.DataFrame:
    if duplicates == "refuse":
        _refuse_twice(rows, PROMPT, "prompt (instruction and input); remove one", path)
    return rows.unique(PROMPT, keep="first", maintain_order=True)


def _refuse_twice(rows: pl.DataFrame, same: list[str], what: str, path: Path) -> None:
    again = ~rows.select(first=pl.struct(same).is_first_distinct())["first"]
    if again.any():
        second = first_row(again)
        alike = rows.select(pl.all_horizontal(pl.col(n) == rows[n][second - 1] for n in same))
        first = first_row(alike.to_series())
        raise BadInput(f"{path}: rows {first} and {second} are the same {what}")


def _numbered(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Answers of one generator to one prompt counted from 0, unless the file counts itself."""
    absent = rows["sample_index"].is_null()
    if absent.all():
        same = [*PROMPT, "generator"]
        return rows.with_columns(sample_index=pl.int_range(pl.len(), dtype=pl.Int64).over(same))
    if absent.any():
        raise BadInput(
            f"{path}: row {first_row(absent)} has no 'sample_index'; give every row one, or none"
        )
    what = "answer (instruction, input, generator and sample_index); number it, or remove one"
    _refuse_twice(rows, ONE_ANSWER, what, path)
    return rows
