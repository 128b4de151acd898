"""Four file formats to a frame of raw columns: JSON, JSON lines, CSV (or TSV) and Parquet.

Everything here is about the file, not about what it means: a file that is absent, cut short or
broken is refused with the line and the mend.
"""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from alpacafarm_core.errors import BadInput, Missing

Reader = Callable[[Path], pl.DataFrame]


def load(path: Path | str) -> pl.DataFrame:
    """The file as it stands, rows and columns in its order; raises Missing or BadInput.

    CSV fields are text, an empty one is "". A JSON column of mixed or nested values is of objects.
    """
    path = Path(path)
    if not path.is_file():
        raise Missing(f"no file {path}; give the path of an existing file")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BadInput(f"{path}: unknown ending; convert it to one of {', '.join(READERS)}")
    if not path.stat().st_size:
        raise BadInput(f"{path}: the file is empty; export it again")
    return reader(path)


def _json(path: Path) -> pl.DataFrame:
    """An array of objects; objects on lines of their own are accepted too."""
    text = _utf8(path)
    if text.lstrip().startswith("{") and "\n{" in text.strip():
        return _jsonl(path)
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadInput(f"{path}: broken JSON at {where} ({error.msg}); mend that line") from error
    if not isinstance(records, list):
        raise BadInput(f"{path}: not an array of objects; put the rows into [ ... ]")
    return _frame(records, path)


def _jsonl(path: Path) -> pl.DataFrame:
    """One object a line; empty lines are skipped."""
    records = []
    for number, line in enumerate(_utf8(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise BadInput(
                f"{path}: broken JSON at line {number} ({error.msg}); mend or remove that line"
            ) from error
    return _frame(records, path)


def _csv(path: Path) -> pl.DataFrame:
    """Fields as text; a row with too few or too many of them is refused."""
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        frame = pl.read_csv(_utf8(path).encode(), separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"{path}: broken CSV{_ragged(path, separator)}; export it again") from error
    # Polars pads a short row with nulls, which look like empty fields at its end.
    if frame.height and frame.to_series(-1).null_count() and (where := _ragged(path, separator)):
        raise BadInput(f"{path}: broken CSV{where}; export it again")
    return frame.with_columns(pl.all().fill_null(""))


def _parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadInput(f"{path}: not a Parquet file, or cut short; copy it again") from error


READERS: dict[str, Reader] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}


def _utf8(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from error


def _ragged(path: Path, separator: str) -> str:
    """Where the first row with another number of fields than the header ends."""
    reader = csv.reader(_utf8(path).splitlines(keepends=True), delimiter=separator)
    width = len(next(reader, []))
    for fields in reader:
        if len(fields) not in (0, width):
            return f" at line {reader.line_num} ({len(fields)} fields, the header has {width})"
    return ""


def _frame(records: Sequence[Any], path: Path) -> pl.DataFrame:
    for row, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            kind = type(record).__name__
            raise BadInput(f"{path}: row {row} is a {kind}, not an object; write {{...}} a row")
    names = dict.fromkeys(name for record in records for name in record)
    return pl.DataFrame([_series(name, [r.get(name) for r in records]) for name in names])


def _series(name: str, values: list[Any]) -> pl.Series:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {int, float}:
        return pl.Series(name, values, dtype=pl.Float64, strict=False)
    if len(kinds) <= 1 and not kinds & {list, dict}:
        return pl.Series(name, values)
    if kinds == {list}:
        return _lists(name, values)
    return pl.Series(name, values, dtype=pl.Object)


def _lists(name: str, values: list[Any]) -> pl.Series:
    """Lists of one kind of scalar as such, anything else as objects."""
    inner = {type(item) for value in values for item in value or ()}
    flat = len(inner) <= 1 and not inner & {list, dict}
    return pl.Series(name, values) if flat else pl.Series(name, values, dtype=pl.Object)
