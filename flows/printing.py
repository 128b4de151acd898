"""Tables for people, documents for scripts."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

BOARD = (
    ("model", "model"),
    ("win_rate", "win rate %"),
    ("standard_error", "± SE"),
    ("n_wins", "wins"),
    ("n_wins_base", "losses"),
    ("n_draws", "draws"),
    ("coverage", "judged %"),
    ("win_rate_minus_sft", "vs SFT"),
    ("paired_error", "± paired"),
    ("utility", "utility"),
    ("avg_length", "chars"),
    ("price", "$"),
)


PLAN = ("stage", "artifact", "rows", "calls", "tokens", "usd_low", "usd_high", "seconds")


def show_board(document: dict[str, Any], as_json: bool) -> None:
    """A leaderboard, as a table and its cost, or as one JSON document."""
    if as_json:
        return show_json(document)
    rows = document["leaderboard"]
    known = [(name, title) for name, title in BOARD if any(r.get(name) is not None for r in rows)]
    show_rows([{title: row.get(name) for name, title in known} for row in rows])
    print(f"{document['seconds']:.1f} s · ${document['cost_usd']:.2f} of judgements, all told")
    if document.get("folder"):
        print(f"artifacts  {document['folder']}  (rows.parquet, leaderboard.csv, leaderboard.png)")
        for page in document.get("reports", ()):
            print(f"report     {page}")
        print(
            f"look       alpacafarm show {document['key']} · alpacafarm lineage {document['key']}"
        )
        print("UI         make ui")


def show_labelling(document: dict[str, Any], out: Path) -> None:
    """What labelling a file took, and what is missing."""
    per_thousand = 1000 * document["cost_usd"] / max(1, document["bought"])
    print(
        f"{document['rows']} rows, {100 * document['coverage']:.1f}% labelled: "
        f"{document['bought']} bought in {document['calls']} calls for "
        f"${document['cost_usd']:.2f} (${per_thousand:.2f} per 1000), "
        f"{document['from_ledger']} known before, {document['seconds']:.1f} s"
    )
    if "verdict" in document:
        low, high = document["interval"]
        said = {"undecided": "output_1 and output_2 are not told apart"}
        asked = f"{document['asked']} of {document['total']} pairs"
        print(
            said.get(document["verdict"], f"output_2 is {document['verdict']} than output_1")
            + f": {document['difference']:+.1f} points ({low:+.1f} to {high:+.1f}), after {asked}, "
            f"{document['calls_saved']} calls saved"
        )
    print(f"labels  {out}")


def show_plan(document: dict[str, Any]) -> None:
    """The stages still to do, what they would buy, and the sum."""
    todo = [line for line in document["stages"] if line["state"] == "to do"]
    show_rows([{name: line[name] for name in PLAN} for line in todo])
    print(f"{len(document['stages']) - len(todo)} stages cached, {len(todo)} to do")
    print(
        f"{document['calls']} calls, about {document['tokens']} tokens: "
        f"${document['usd_low']:.2f} to ${document['usd_high']:.2f}"
    )
    if document.get("unpriced"):
        print(f"not in it: {', '.join(document['unpriced'])}, whose rows cannot be told ahead")
    if "detectable" in document:
        print(f"two models can be told apart from {document['detectable']:.1f} points on, at most")
    if document.get("budget") is not None:
        fits = document["usd_high"] <= document["budget"] and not document.get("unpriced")
        print(f"{'within' if fits else 'perhaps over'} the budget of ${document['budget']:.2f}")


def show_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Rows as a table; numbers to the right, long texts cut, brackets as they stand."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table(box=None, header_style="bold")
    for name in rows[0] if rows else ():
        number = isinstance(rows[0][name], int | float)
        table.add_column(Text(name), justify="right" if number else "left", overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(_cell(held)) for held in row.values()))
    console.print(table)


def show_json(document: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=1, default=str, allow_nan=False))


def _cell(held: Any) -> str:
    if held is None:
        return ""
    if isinstance(held, float):
        return f"{held:.3f}" if abs(held) < 1 else f"{held:.1f}"
    text = str(held).replace("\n", "⏎")
    return text if len(text) <= 80 else text[:79] + "…"
