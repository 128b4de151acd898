"""What changed: the page that closes a refresh.

It says which files brought which rows, what their labels took, and what became of the board.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core.artifacts import Changes
from alpacafarm_core.comparison import Comparison, paired
from alpacafarm_core.difference import differing
from alpacafarm_core.errors import BadInput
from alpacafarm_core.store import Manifest

SHOWN = ("win_rate", "standard_error", "win_rate_minus_sft", "paired_error", "utility")
LEFT_OUT = ("known", "evaluated", "alike")


class Board(NamedTuple):
    """A leaderboard: its folder, its rows, and the labels of the refreshed model."""

    folder: str
    rows: pl.DataFrame
    labels: pl.DataFrame


def row_of(landed: Manifest, fresh: Manifest, labels: Manifest) -> dict[str, Any]:
    """What a file brought, columns of Changes, by the manifests of its tables."""
    counts = ("known", "relabelled", "evaluated", "alike")
    return {
        "file": landed.notes.get("file", ""),
        "digest": landed.recipe.settings["file"]["digest"],
        "landed": landed.made,
        "rows": landed.rows,
        "new": fresh.rows,
        **{name: fresh.notes[name] for name in counts},
        "bought": labels.notes["rows_bought"],
        "from_ledger": labels.notes["rows_from_ledger"],
        "usd": labels.notes["usd_bought"],
        "why": "",
    }


def table(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows with the columns of Changes; what a row lacks is null."""
    return pl.DataFrame(list(rows), schema=Changes.columns, orient="row")


def report(dataset: str, files: pl.DataFrame, model: str, boards: tuple[Board, Board]) -> str:
    """The page as Markdown; boards before and after."""
    recent = files.filter(pl.col("is_recent"), pl.col("why") == "")
    unusable = files.filter(pl.col("why") != "")
    before, after = boards
    parts = [
        f"## What changed in {dataset}",
        summed(recent),
        _files(recent),
        *(f"- not used: {_cell(row['why'])}" for row in unusable.to_dicts()),
        f"### {model} before and after",
        _boards(before.rows, after.rows),
        compared(model, before.labels, after.labels),
        f"`alpacafarm diff {before.folder} {after.folder}` says the same of the boards.",
    ]
    return "\n\n".join(part for part in parts if part)


def summed(recent: pl.DataFrame) -> str:
    """What landed, in a sentence."""
    if recent.is_empty():
        return "Nothing new landed."
    total = recent.select(pl.col("new", *LEFT_OUT, "bought", "from_ledger", "usd").sum()).row(
        0, named=True
    )
    left = sum(total[name] for name in LEFT_OUT)
    return (
        f"{recent.height} files landed with {total['new']} new rows; {left} were left out. Labels "
        f"of {total['bought']} rows were bought for ${total['usd']:.4f}, {total['from_ledger']} "
        "came from the ledger."
    )


def _files(recent: pl.DataFrame) -> str:
    names = ("file", "rows", "new", "known", "relabelled", "evaluated", "alike", "bought")
    return drawn(recent.select(*names, "from_ledger", "usd").to_dicts()) if recent.height else ""


def _boards(before: pl.DataFrame, after: pl.DataFrame) -> str:
    """A row for each model and figure that moved."""
    found = differing(before, after)
    lines = [
        {"model": row["model"], "figure": name, "before": old, "after": new}
        for row in found.changed
        for name, (old, new) in row["columns"].items()
        if name in SHOWN
    ]
    gone = [row["model"] for row in found.removed]
    came = [row["model"] for row in found.added]
    said = [f"{found.same} of {after.height} models have the same row as before."]
    said += [f"New: {', '.join(came)}."] if came else []
    said += [f"Gone: {', '.join(gone)}."] if gone else []
    return "\n\n".join([*([drawn(lines)] if lines else []), " ".join(said)])


def compared(model: str, before: pl.DataFrame, after: pl.DataFrame) -> str:
    """Whether the model is better than it was, prompt by prompt."""
    try:
        found = paired(after, before)
    except BadInput:
        return "Fewer than two prompts were judged both times: no comparison."
    if found.difference == 0 and found.standard_error == 0:
        return f"{model} fares the same on each of {found.n} prompts."
    return _verdict(model, found)


def _verdict(model: str, found: Comparison) -> str:
    low, high = found.interval
    told = "better" if found.difference > 0 else "worse"
    verdict = f"{model} is {told} than it was" if found.p_value <= 0.05 else "not told apart"
    return (
        f"{found.difference:+.2f} points ± {found.standard_error:.2f} SE, from {low:+.2f} to "
        f"{high:+.2f} (95%), on {found.n} prompts, p = {found.p_value:.4f}: {verdict}."
    )


def drawn(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(held) for held in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(held: Any) -> str:
    if held is None:
        return ""
    text = f"{held:.4g}" if isinstance(held, float) else str(held)
    return " ".join(text.replace("|", "\\|").split())
