"""Four file formats to a frame of raw columns: JSON, JSON lines, CSV (or TSV) and Parquet.

Everything here is about the file, not about what it means: a file that is absent, cut short or
broken is refused with the line and the mend.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl

from alpacafarm_core.errors import BadInput, Missing

Reader = Callable[[Path], pl.DataFrame]
LONGEST_FIELD = 2**31 - 1  # bytes; Python's csv stops at 128 KiB unless told
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(?P<half>u[dD][89a-fA-F]\w\w)|.)", re.DOTALL
)
_BEGIN, _BETWEEN = re.compile(r"\s*\[?\s*"), re.compile(r"[\s,]*")


class _Twice(ValueError):
    """A key that stands twice in one object."""


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
    text = _json_text(path)
    if text.lstrip().startswith("{") and "\n{" in text.strip():
        return _jsonl(path)
    records = _parsed(text, path)
    if not isinstance(records, list):
        raise BadInput(f"{path}: not an array of objects; put the rows into [ ... ]")
    return _frame(records, path)


def _jsonl(path: Path) -> pl.DataFrame:
    """One object a line; empty lines are skipped."""
    lines = enumerate(_json_text(path).split("\n"), start=1)
    return _frame([_parsed(line, path, number) for number, line in lines if line.strip()], path)


def _json_text(path: Path) -> str:
    """Text without half a character, an escape such as `ud83d` alone: no table can hold it."""
    text = _utf8(path)
    for escape in _ESCAPE.finditer(text):
        if half := escape["half"]:
            line = text.count("\n", 0, escape.start()) + 1
            column = escape.start() - text.rfind("\n", 0, escape.start())
            raise BadInput(
                f"{path}: half a character, \\{half}, at line {line}, column {column}; "
                "remove it or write its other half"
            )
    return text


def _parsed(text: str, path: Path, line: int = 0) -> Any:
    """What a JSON text says: a whole file, or one line of it."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        where = f"{line or error.lineno}, column {error.colno}"
        raise BadInput(
            f"{path}: broken JSON at line {where} ({error.msg}); mend or remove that line"
        ) from error
    except (ValueError, RecursionError) as error:
        where = f"line {line}" if line else f"row {_row_not_read(text)}"
        raise BadInput(f"{path}: {where}{_why(error)}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        raise _Twice(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return held


def _why(error: Exception) -> str:
    if isinstance(error, _Twice):
        return f" has the key {str(error)!r} twice; remove or rename one"
    if isinstance(error, RecursionError):
        return " is nested too deeply; write flat objects, {...} a row"
    return " has a number of thousands of digits; correct it"


def _row_not_read(text: str) -> int:
    """The first row, from 1, of an array that cannot be read."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    row, at = 1, _after(_BEGIN, text, 0)
    try:
        while True:
            at = _after(_BETWEEN, text, decoder.raw_decode(text, at)[1])
            row += 1
    except (ValueError, RecursionError):
        return row


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _csv(path: Path) -> pl.DataFrame:
    """Fields as text; a row with too few or too many of them is refused, and a name used twice."""
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    text = _utf8(path)
    _refuse_names_twice(text, separator, path)
    try:
        frame = pl.read_csv(text.encode(), separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"{path}: broken CSV{_ragged(text, separator)}; export it again") from error
    # Polars pads a short row with nulls, which look like empty fields at its end.
    if frame.height and frame.to_series(-1).null_count() and (where := _ragged(text, separator)):
        raise BadInput(f"{path}: broken CSV{where}; export it again")
    return frame.with_columns(pl.all().fill_null(""))


def _parquet(path: Path) -> pl.DataFrame:
    """Columns as they stand, but for text kept as numbers of categories."""
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadInput(f"{path}: not a Parquet file, or cut short; copy it again") from error
    coded = [name for name, kind in frame.schema.items() if kind in (pl.Categorical, pl.Enum)]
    return frame.with_columns(pl.col(coded).cast(pl.String))


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


def _refuse_names_twice(text: str, separator: str, path: Path) -> None:
    line, header = next(_records(text, separator), (1, []))
    twice = [name for name, times in Counter(header).items() if name and times > 1]
    if twice:
        raise BadInput(f"{path}: line {line} names column {twice[0]!r} twice; rename or remove one")


def _ragged(text: str, separator: str) -> str:
    """Where the first row with another number of fields than the header ends."""
    records = _records(text, separator)
    width = len(next(records, (1, []))[1])
    for line, fields in records:
        if len(fields) != width:
            return f" at line {line} ({len(fields)} fields, the header has {width})"
    return ""


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of CSV that are not empty, each with the line on which it ends."""
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator)
    for fields in reader:
        if fields:
            yield reader.line_num, fields


def _frame(records: Sequence[Any], path: Path) -> pl.DataFrame:
    for row, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            kind = type(record).__name__
            raise BadInput(f"{path}: row {row} is a {kind}, not an object; write {{...}} a row")
    names = dict.fromkeys(name for record in records for name in record)
    return pl.DataFrame([_series(name, [r.get(name) for r in records]) for name in names])


def _series(name: str, values: list[Any]) -> pl.Series:
    """A column of one kind of scalar, or of lists of one, as such; anything else as objects."""
    kinds = {type(value) for value in values} - {type(None)}
    inner = {type(item) for value in values if isinstance(value, list) for item in value}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds != {dict} and _is_flat(inner)):
        try:
            return pl.Series(name, values, dtype=pl.Float64 if kinds == {int, float} else None)
        except (TypeError, OverflowError):
            pass  # whole numbers beyond what Polars holds
    return pl.Series(name, values, dtype=pl.Object)


def _is_flat(inner: set[type]) -> bool:
    return len(inner) <= 1 and not inner & {list, dict}
