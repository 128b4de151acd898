"""One race for the command line: on a server when there is one, else the plain call."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from alpacafarm_core.artifacts import Leaderboard
from alpacafarm_core.comparison import across, leads
from alpacafarm_core.errors import BadInput, Missing
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.lineage import ancestry
from alpacafarm_core.method import Method
from alpacafarm_core.setup import Setup
from alpacafarm_core.tally import points
from flows import leaderboard as flows
from flows.inspection import write_csv
from flows.reporting import kept
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
    rows = tables[0] if len(tables) == 1 else with_seeds(over_seeds(tables), boards)
    if out is not None:
        write_csv(rows, out)
    return {
        "leaderboard": rows.to_dicts(),
        "seconds": round(time.time() - started, 3),
        "cost_usd": sum(price(board) for board in boards),
        "key": boards[0].key,
        "keys": [board.key for board in boards],
        "folder": str(store().path(boards[0])),
        "reports": [str(page) for board in boards if (page := kept(store(), board))],
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
    flows.methods_named(names, setup)  # refused in our words before a server is asked
    call = flows.leaderboard if served else flows.leaderboard.fn
    return call(names, setup)


def over_seeds(tables: list[pl.DataFrame]) -> pl.DataFrame:
    """Means over seeds; errors as if seeds were all that is shared: see `with_seeds` for better."""
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


def with_seeds(rows: pl.DataFrame, boards: Sequence[Leaderboard]) -> pl.DataFrame:
    """The rows with errors of both levels, seeds and prompts, where every board has the model."""
    held = [_evaluations(board) for board in boards]
    errors = [row | _errors(row, held) for row in rows.to_dicts()]
    return pl.DataFrame(errors, schema=rows.schema)


def _evaluations(board: Leaderboard) -> dict[str, Evaluation]:
    settings = store().manifest(board).recipe.settings["evaluations"]
    return {model: Evaluation.model_validate(said) for model, said in settings.items()}


def _errors(row: dict[str, Any], held: Sequence[Mapping[str, Evaluation]]) -> dict[str, float]:
    """Errors of one model's row that the runs of all seeds can tell."""
    model = row["model"]
    found = {}
    if row["standard_error"] is not None:
        own = [_points(each[model]) for each in held]
        found["standard_error"] = across(own, "points").standard_error
    if row["paired_error"] is not None:
        ahead = [leads(_points(each[model]), _points(each["sft"]), "points") for each in held]
        found["paired_error"] = across(ahead, "points").standard_error
    if row["utility_paired_error"] is not None:
        ahead = [leads(_truth(each[model]), _truth(each["sft"]), "score") for each in held]
        found["utility_paired_error"] = across(ahead, "score").standard_error
    return found


def _points(judged: Evaluation) -> pl.DataFrame:
    return points(store().read(judged.preferences))


def _truth(judged: Evaluation) -> pl.DataFrame:
    if judged.truth is None:
        raise Missing("a board with utilities whose scores are not in its recipe; run it again")
    return store().read(judged.truth)


def _together(errors: pl.Expr) -> pl.Expr:
    """The error of a mean over seeds; null unless every seed has one."""
    return pl.when(errors.count() == pl.len()).then(errors.pow(2).sum().sqrt() / pl.len())
