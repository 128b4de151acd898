"""Tracing: which rows of all that an artifact came from made one row of it.

Rows belong together when they are about the same instruction and input, and, where both have
answers, when they share one. A row of a leaderboard belongs to the labels of its model. Weights are
named, not entered: every row they learned from had a part in them (`lineage` without a row).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core.artifacts import Artifact, Leaderboard, Preferences, Scores, Table
from alpacafarm_core.errors import BadInput
from alpacafarm_core.lineage import receipt
from alpacafarm_core.store import Manifest, Store

PROMPT = ["instruction", "input"]
ANSWERS = ("output", "output_1", "output_2", "gold", "response")


class Trace(NamedTuple):
    """An artifact on the way to a row, and the numbers of its rows that had a part, from 0.

    `rows` is None for weights, and for tables that share no prompt with what was made of them.
    """

    made: Manifest
    rows: list[int] | None


def traced(store: Store, artifact: Artifact, row: int) -> list[Trace]:
    """The row itself last, inputs before what they made.

    Raises BadInput for weights and for a row that is not there.
    """
    if not isinstance(artifact, Table):
        raise BadInput(f"{artifact.folder} has no rows; ask for its lineage without --row")
    height = store.manifest(artifact).rows or 0
    if not 0 <= row < height:
        raise BadInput(f"{artifact.folder} has rows 0 to {height - 1}, and no row {row}")
    found: dict[str, set[int] | None] = {}
    order: list[str] = []
    _follow(store, artifact, {row}, found, order)
    return [
        Trace(store.manifest(receipt(folder)), None if rows is None else sorted(rows))
        for folder in order
        for rows in [found[folder]]
    ]


def rows_of(store: Store, trace: Trace, most: int) -> list[dict[str, Any]]:
    """The first rows of a trace, with their numbers as `row` and without lists of ids."""
    if not trace.rows:
        return []
    rows = store.read(trace.made.artifact)[trace.rows[:most]].to_dicts()  # type: ignore[arg-type]
    return [
        {"row": at, **{name: held for name, held in row.items() if not isinstance(held, list)}}
        for at, row in zip(trace.rows, rows, strict=False)
    ]


def _follow(
    store: Store,
    artifact: Artifact,
    rows: set[int],
    found: dict[str, set[int] | None],
    order: list[str],
) -> None:
    """Note the rows of an artifact, and those of its inputs that they come from."""
    known = found.get(artifact.folder)
    fresh = rows - (known or set())
    if artifact.folder in found and not fresh:
        return
    found[artifact.folder] = (known or set()) | rows
    theirs = _rows(store, artifact, fresh)
    for source in _sources(store.manifest(artifact), theirs):
        if not store.has(source):
            continue
        if not isinstance(source, Table) or (matching := _matching(store, source, theirs)) is None:
            _name(source, found, order)
        else:
            _follow(store, source, matching, found, order)
    if artifact.folder not in order:
        order.append(artifact.folder)


def _name(source: Artifact, found: dict[str, set[int] | None], order: list[str]) -> None:
    if source.folder not in found:
        found[source.folder] = None
        order.append(source.folder)


def _sources(made: Manifest, rows: pl.DataFrame) -> Iterable[Artifact]:
    """The inputs of an artifact; of a leaderboard those of the rows' models alone."""
    if made.kind == Leaderboard.kind:
        evaluations = made.recipe.settings["evaluations"]
        parts = [evaluations[model] for model in rows["model"] if model in evaluations]
        folders = [
            f"{kind}/{held[part]['key']}"
            for held in parts
            for part, kind in (("preferences", Preferences.kind), ("truth", Scores.kind))
            if held.get(part)
        ]
    else:
        folders = [folder for inputs in made.recipe.inputs.values() for folder in inputs]
    return [receipt(folder) for folder in dict.fromkeys(folders)]


def _rows(store: Store, table: Artifact, numbers: set[int]) -> pl.DataFrame:
    assert isinstance(table, Table)
    return store.read(table)[sorted(numbers)]


def _matching(store: Store, source: Table, rows: pl.DataFrame) -> set[int] | None:
    """Numbers of the source's rows that these rows come from; None where that cannot be told."""
    given = store.read(source).with_row_index("_row")
    if "model" in rows.columns:
        return set(given["_row"])
    if not {*PROMPT} <= {*rows.columns} or not {*PROMPT} <= {*given.columns}:
        return None
    same = given.join(rows.select(PROMPT).unique(), on=PROMPT, how="semi", maintain_order="left")
    answers = [name for name in ANSWERS if name in rows.columns]
    theirs = [name for name in ANSWERS if name in given.columns]
    if answers and theirs:
        known = {text for name in answers for text in rows[name] if text}
        shared = same.filter(pl.any_horizontal(pl.col(name).is_in(list(known)) for name in theirs))
        same = shared if shared.height else same
    return set(same["_row"])
