"""Tables for people, documents for scripts."""

import json
import sys
from collections.abc import Sequence
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
        print(
            f"look       alpacafarm show {document['key']} · alpacafarm lineage {document['key']}"
        )
        print("UI         make ui")


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
