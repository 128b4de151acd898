"""Annotation files to leaderboard rows."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core import files
from alpacafarm_core.errors import BadInput
from alpacafarm_core.length_control import is_extreme
from alpacafarm_core.tally import CSV_COLUMNS, MODEL, by_source, reference_digests, tally_models
from flows.controlling import LC_COLUMNS, Control, controlled
from flows.printing import show_json, show_rows

SHOWN = [
    *("model", "win_rate", "standard_error", *LC_COLUMNS, "lc_c"),
    *("n_wins", "n_wins_base", "n_draws", "n_total", "coverage", "avg_length"),
]


class Tallied(NamedTuple):
    """One row a model, best first, and one for each of its sources."""

    rows: pl.DataFrame
    sources: pl.DataFrame

    def published(self) -> pl.DataFrame:
        """The columns of the published leaderboards, and those of length control if asked for."""
        controlled = [name for name in LC_COLUMNS if name in self.rows.columns]
        return self.rows.select(*CSV_COLUMNS, *controlled)


def tallied(paths: Sequence[Path], control: Control | None = None) -> Tallied:
    """Rows of all files; raises BadInput naming file, row and column, or models at odds."""
    pairs = pl.concat(_read(paths))
    digests = reference_digests(pairs)
    rows = tally_models(pairs)
    rows = rows.with_columns(reference=pl.Series([digests[model] for model in rows["model"]]))
    if control is not None:
        rows = rows.join(controlled(pairs, control), on="model", maintain_order="left")
        _warn(rows)
    return Tallied(rows, by_source(pairs))


def show(document: dict[str, Any], as_json: bool) -> None:
    """A board and its sources, as tables or as one JSON document."""
    if as_json:
        return show_json(document)
    rows = document["leaderboard"]
    names = [name for name in SHOWN if any(row.get(name) is not None for row in rows)]
    show_rows([{name: row[name] for name in names} for row in rows])
    if document["sources"]:
        show_rows(document["sources"])


def _read(paths: Sequence[Path]) -> Iterator[pl.DataFrame]:
    seen = dict[str, Path]()
    for path in paths:
        pairs = files.read(path, "preferences")
        if (pairs[MODEL] == "").all():  # names no model
            pairs = pairs.with_columns(pl.lit(path.stem).alias(MODEL))
        for model in pairs[MODEL].unique():
            if model in seen:
                raise BadInput(
                    f"model {model!r} stands in {seen[model]} and in {path}; give it once"
                )
            seen[model] = path
        yield pairs


def _warn(rows: pl.DataFrame) -> None:
    """Say where a fit moved a rate so far that it may have failed; without C there was none."""
    fits = rows.drop_nulls(["win_rate", LC_COLUMNS[0], "lc_c"])
    for model, raw, held in fits.select("model", "win_rate", LC_COLUMNS[0]).rows():
        if is_extreme(raw, held):
            logging.getLogger("alpacafarm").warning(
                f"{model}: length-controlled {held:.1f} % is far from the raw {raw:.1f} %; the fit "
                "may have failed: look at the lengths and at lc_low and lc_high"
            )
