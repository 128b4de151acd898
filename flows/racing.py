"""One race for the command line: on a server when there is one, else the plain call."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from alpacafarm_core.artifacts import Leaderboard
from alpacafarm_core.errors import BadInput
from alpacafarm_core.lineage import ancestry
from alpacafarm_core.method import Method
from alpacafarm_core.setup import Setup
from flows import leaderboard as flows
from flows.inspection import write_csv
from tasks.stage import store


def race(
    methods: Sequence[str] | Sequence[Method], setups: Sequence[Setup], out: Path | None = None
) -> dict[str, Any]:
    """The JSON document of a race: rows, seconds, what its judgements cost when they were bought,
    and the board's key.
    """
    if out is not None and not out.absolute().parent.is_dir():
        raise BadInput(f"no folder {out.absolute().parent} for {out.name}; choose another --out")
    started = time.time()
    boards = [_board(methods, setup) for setup in setups]
    tables = [store().read(board) for board in boards]
    rows = tables[0] if len(tables) == 1 else over_seeds(tables)
    if out is not None:
        write_csv(rows, out)
    return {
        "leaderboard": rows.to_dicts(),
        "seconds": round(time.time() - started, 3),
        "cost_usd": sum(price(board) for board in boards),
        "key": boards[0].key,
        "keys": [board.key for board in boards],
        "folder": str(store().path(boards[0])),
    }


def price(board: Leaderboard) -> float:
    """Dollars of every judgement a board rests on, those of its training labels included."""
    return float(sum(made.notes.get("usd", 0.0) for made in ancestry(store(), board)))


def _board(methods: Sequence[str] | Sequence[Method], setup: Setup) -> Leaderboard:
    served = bool(os.environ.get("PREFECT_API_URL"))
    first = methods[0]
    if isinstance(first, Method):
        return flows.run(first, setup) if served else flows.run.fn(first, setup)
    names = [str(name) for name in methods]
    call = flows.leaderboard if served else flows.leaderboard.fn
    return call(names, setup)


def over_seeds(tables: list[pl.DataFrame]) -> pl.DataFrame:
    """Means over seeds; errors are of the mean: root of summed squares over the number of seeds."""
    rows = pl.concat(tables)
    errors = [name for name in rows.columns if name.endswith("error")]
    counts = [n for n, kind in rows.schema.items() if kind.is_integer() and n != "avg_length"]
    means = [n for n, kind in rows.schema.items() if n not in {"model", *errors, *counts}]
    together = rows.group_by("model").agg(
        *(pl.col(name).mean() for name in means),
        *(pl.col(name).sum() for name in counts),
        *(_together(pl.col(name)).alias(name) for name in errors),
    )
    return together.select(rows.columns).sort("win_rate", descending=True, nulls_last=True)


def _together(errors: pl.Expr) -> pl.Expr:
    """The error of a mean over seeds; null unless every seed has one."""
    return pl.when(errors.count() == pl.len()).then(errors.pow(2).sum().sqrt() / pl.len())
