"""Rows laid as a table's class declares them."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from alpacafarm_core import parts
from alpacafarm_core.artifacts import Artifact, Table
from alpacafarm_core.errors import BadInput


def laid(
    artifact: Artifact, content: pl.DataFrame | Iterator[pl.DataFrame] | Path, file: Path
) -> int | None:
    """Write the rows of a table; how many there are, None for a folder. Raises BadInput."""
    if isinstance(content, Path):
        return None
    if not isinstance(artifact, Table):
        raise BadInput(f"{artifact.kind} is not a table; its stage must hand over a folder")
    if isinstance(content, pl.DataFrame):
        rows = in_columns(content, artifact)
        rows.write_parquet(file)
        return rows.height
    each = (in_columns(part, artifact) for part in content)
    return parts.lay(each, artifact.columns, file)


def in_columns(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    """The rows with exactly the table's columns and types; raises BadInput naming the column."""
    expected = table.columns
    missing = [name for name in expected if name not in rows.columns]
    extra = [name for name in rows.columns if name not in expected]
    if missing or extra:
        raise BadInput(f"{table.kind} rows lack columns {missing} and have unknown {extra}")
    try:
        return rows.select(pl.col(name).cast(kind) for name, kind in expected.items())
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"{table.kind} rows do not fit their column types: {error}") from error


def types(artifact: Artifact) -> dict[str, str]:
    """Column types of a table by name; none of what is no table."""
    held = artifact.columns if isinstance(artifact, Table) else {}
    return {name: str(kind) for name, kind in held.items()}
