"""What differs between two artifacts: recipes, what they were made from, rows.

Rows are the same row when they have the same instruction and input (the same model on a board);
of several rows of one prompt the first is held against the first.
"""

from collections import Counter, deque
from collections.abc import Iterator
from math import isclose
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core.artifacts import Artifact, Table
from alpacafarm_core.errors import BadInput
from alpacafarm_core.lineage import changes, receipt
from alpacafarm_core.store import Store

NAMED = ("model", "instruction", "input")
Row = dict[str, Any]


class Difference(NamedTuple):
    """Rows only in the second and only in the first table, rows that changed, and how many did not.

    A changed row is what names it, with `columns`: each that changed, before and after.
    """

    added: list[Row]
    removed: list[Row]
    changed: list[Row]
    same: int


def differing(before: pl.DataFrame, after: pl.DataFrame, tolerance: float = 0.0) -> Difference:
    """How two tables differ, row by row; numbers may be apart by this share of their size."""
    old, new = dict(_keyed(before)), dict(_keyed(after))
    pairs = [(old[key], new[key]) for key in old if key in new]
    changed = [
        _names(row) | {"columns": columns}
        for row, now in pairs
        if (columns := _columns(row, now, tolerance))
    ]
    return Difference(
        [_names(new[key]) for key in new if key not in old],
        [_names(old[key]) for key in old if key not in new],
        changed,
        len(pairs) - len(changed),
    )


def compared(store: Store, before: Artifact, after: Artifact, shown: int) -> dict[str, Any]:
    """All that differs, as one document: recipes, code, files, and rows with `shown` of each sort.

    Raises BadInput where the two are not of one kind, Missing or Damaged.
    """
    if before.kind != after.kind:
        raise BadInput(
            f"{before.folder} and {after.folder} are of two kinds; give two keys of one kind"
        )
    old, new = store.manifest(before), store.manifest(after)
    return {
        "first": before.folder,
        "second": after.folder,
        "recipe": changes(old.recipe, new.recipe),
        "causes": causes(store, before, after),
        "packages": _apart(old.packages, new.packages),
        "commit": _apart({"commit": old.commit}, {"commit": new.commit}),
        "files": _apart(old.files, new.files),
        "rows": _rows_apart(store, before, after, shown),
    }


def causes(store: Store, before: Artifact, after: Artifact) -> list[str]:
    """What differs in the recipes of all that two artifacts were made from, nearest first.

    An input that has been forgotten is left out; inputs that differ are not named but entered,
    unless two stages made them.
    """
    found, seen = dict[str, None](), set[tuple[str, str]]()
    waiting = deque(_inputs(store, before, after))
    while waiting:
        old, new = waiting.popleft()
        if (old.folder, new.folder) in seen or not (store.has(old) and store.has(new)):
            continue
        seen.add((old.folder, new.folder))
        recipes = [store.manifest(each).recipe for each in (old, new)]
        if recipes[0].stage != recipes[1].stage:
            found[f"{recipes[0].stage} -> {recipes[1].stage}"] = None
            continue
        told = (line for line in changes(*recipes) if not line.startswith("inputs"))
        found |= dict.fromkeys(f"{recipes[1].stage}: {line}" for line in told)
        waiting.extend(_inputs(store, old, new))
    return list(found)


def _inputs(store: Store, before: Artifact, after: Artifact) -> Iterator[tuple[Artifact, Artifact]]:
    """Inputs of the same name and kind that differ."""
    old, new = (store.manifest(each).recipe.inputs for each in (before, after))
    for name in old:
        for one, other in zip(old[name], new.get(name, []), strict=False):
            if one != other and one.split("/")[0] == other.split("/")[0]:
                yield receipt(one), receipt(other)


def _apart(before: dict[str, str], after: dict[str, str]) -> dict[str, list[str | None]]:
    names = dict.fromkeys([*before, *after])
    return {
        name: [before.get(name), after.get(name)]
        for name in names
        if before.get(name) != after.get(name)
    }


def _rows_apart(
    store: Store, before: Artifact, after: Artifact, shown: int
) -> dict[str, Any] | None:
    """Counts of rows and the first few of each sort; None for weights, which have no rows."""
    if not isinstance(before, Table) or not isinstance(after, Table):
        return None
    found = differing(store.read(before), store.read(after))
    sorts = ("added", "removed", "changed")
    columns = Counter(name for row in found.changed for name in row["columns"])
    return {
        **{sort: len(getattr(found, sort)) for sort in sorts},
        "same": found.same,
        "columns": dict(columns.most_common()),
        "shown": {sort: getattr(found, sort)[:shown] for sort in sorts},
    }


def _keyed(rows: pl.DataFrame) -> Iterator[tuple[tuple[Any, ...], Row]]:
    count: Counter[tuple[Any, ...]] = Counter()
    for row in rows.to_dicts():
        key = tuple(_names(row).values())
        count[key] += 1
        yield (*key, count[key]), row


def _names(row: Row) -> Row:
    return {name: row[name] for name in NAMED if name in row}


def _columns(before: Row, after: Row, tolerance: float) -> dict[str, list[Any]]:
    names = dict.fromkeys([*before, *after])
    return {
        name: [before.get(name), after.get(name)]
        for name in names
        if not _equal(before.get(name), after.get(name), tolerance)
    }


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return isclose(one, other, rel_tol=tolerance)
    return bool(one == other)
