"""One row and all the rows that made it, printed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alpacafarm_core.artifacts import Artifact
    from alpacafarm_core.store import Store

SHOWN = 3
"""Rows shown of each artifact; the numbers of all are in the JSON."""


def show_trace(store: "Store", artifact: "Artifact", row: int, as_json: bool) -> None:
    """Which rows of what an artifact came from made one row of it, in the order of making."""
    from alpacafarm_core.tracing import rows_of, traced
    from flows.printing import show_json, show_rows

    found = [(trace, rows_of(store, trace, SHOWN)) for trace in traced(store, artifact, row)]
    if as_json:
        return show_json(
            [
                {
                    "artifact": trace.made.artifact.folder,
                    "stage": trace.made.recipe.stage,
                    "rows": trace.rows,
                    "shown": shown,
                }
                for trace, shown in found
            ]
        )
    for trace, shown in found:
        print(f"{trace.made.artifact.folder}  {trace.made.recipe.stage}  {_counted(trace.rows)}")
        show_rows([_short(each) for each in shown])


def _counted(rows: list[int] | None) -> str:
    return "" if rows is None else f"{len(rows)} row{'' if len(rows) == 1 else 's'}"


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """What tells rows apart at a glance: texts, who wrote and judged them, seeds and labels."""
    names = (
        *("row", "model", "instruction", "output", "output_1", "output_2", "generator", "seed"),
        *("annotator", "preference", "score", "win_rate", "price"),
    )
    return {name: row[name] for name in names if name in row}
