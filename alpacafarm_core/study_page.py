"""The two studies as parts of a page: a ranking with its two boards, and over-optimisation."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from alpacafarm_core import board_page, charts
from alpacafarm_core.board_page import INTERVAL, WIDTH, samples
from alpacafarm_core.charts import Point
from alpacafarm_core.evidence import Evidence
from alpacafarm_core.markup import NOTHING, Figure, Markup, Section, figure, table, tag

MEASURES = {
    "proxy": "reward model",
    "win_rate": "win rate by the judges, %",
    "human": "win rate by people, %",
    "utility": "true utility",
}
PEAKS = "The x with the highest true utility, and where 95% of resampled sets of prompts put it."
ERRORS = {"proxy": "proxy_error", "win_rate": "win_error", "human": "human_error"}


def of_ranks(evidence: Evidence) -> list[Section]:
    """The two win rates of each model, how alike they rank, and both boards."""
    rows = [
        [
            row["model"],
            *(give for side in ("simulated", "human") for give in _rate(row, side)),
        ]
        for row in evidence.rows.to_dicts()
    ]
    dots = [
        Point(
            row["model"],
            row["simulated"],
            row["human"],
            WIDTH * (row["simulated_error"] or 0.0),
            WIDTH * (row["human_error"] or 0.0),
        )
        for row in evidence.rows.drop_nulls(["simulated", "human"]).to_dicts()
    ]
    columns = ["model", "simulated, %", "± SE", "among people, %", "± SE"]
    drawn = charts.scatter(dots, "win rate in simulation, %", "win rate among people, %", True)
    notes = evidence.manifest.notes
    parts = [Section("ranks", "Ranking", [table("Ranking", columns, rows), drawn, _noted(notes)])]
    for name, board in evidence.boards.items():
        parts += board_page.parts(board, f"{name}-", name.capitalize())
    return parts


def _rate(row: Mapping[str, Any], side: str) -> tuple[Figure, Figure]:
    return figure(row[side]), figure(row[f"{side}_error"])


def _noted(notes: Mapping[str, Any]) -> Markup:
    """What a study found, a line a finding."""
    items = [tag("li", f"{name.replace('_', ' ')}: {_told(held)}") for name, held in notes.items()]
    return tag("ul", *items, class_="plain") if items else NOTHING


def _told(held: Any) -> str:
    if isinstance(held, float):
        return f"{held:.3g}".replace("-", "\N{MINUS SIGN}")
    if isinstance(held, list | tuple):
        return ", ".join(
            f"({_told(each)})" if isinstance(each, list) else _told(each) for each in held
        )
    if isinstance(held, Mapping):
        return "; ".join(f"{name} {_told(each)}" for name, each in held.items())
    return str(held)


def of_curves(evidence: Evidence) -> list[Section]:
    """Each measure against the distance from the start, and win rate against the reward."""
    series = {
        str(rows["series"][0]): rows.to_dicts()
        for rows in evidence.rows.partition_by("series", maintain_order=True)
    }
    far = "KL from the start, nats"
    drawn = [
        tag("div", charts.lines(_line(series, "kl", name), far, title))
        for name, title in MEASURES.items()
    ]
    drawn.append(tag("div", charts.lines(_line(series, "proxy", "win_rate"), *_titles("proxy"))))
    shown = tag("div", *drawn, class_="many")
    peaks = evidence.manifest.notes.get("peaks", {})
    columns = ["series", "x", "KL, nats", *MEASURES.values()]
    rows = [
        [
            row["series"],
            Figure(f"{row['x']:g}"),
            figure(row["kl"], 2),
            *(_with_error(row, name) for name in MEASURES),
        ]
        for row in evidence.rows.to_dicts()
    ]
    told = tag("p", f"x is n, steps or beta. {INTERVAL}", class_="soft")
    return [
        Section("curves", "Curves", [charts.legend(series), shown, told]),
        Section(
            "peaks",
            "Where true utility peaks",
            [tag("p", PEAKS, class_="soft"), _noted(peaks)] if peaks else [],
        ),
        Section("points", "Points", [table("Points", columns, rows)]),
        Section("samples", "Samples", samples(_furthest(evidence))),
    ]


def _titles(x: str) -> tuple[str, str]:
    return f"{MEASURES[x]}, mean score", MEASURES["win_rate"]


def _line(series: Mapping[str, list[dict[str, Any]]], x: str, y: str) -> dict[str, list[Point]]:
    error = ERRORS.get(y, f"{y}_error")
    return {
        name: [
            Point(name, row[x], row[y], 0.0, WIDTH * (row[error] or 0.0))
            for row in rows
            if row[x] is not None and row[y] is not None
        ]
        for name, rows in series.items()
    }


def _with_error(row: Mapping[str, Any], name: str) -> Figure:
    error = row[ERRORS.get(name, f"{name}_error")]
    digits = 1 if row[name] is not None and MEASURES[name].endswith("%") else 3
    return Figure(f"{figure(row[name], digits)}{'' if error is None else f' ± {error:.{digits}f}'}")


def _furthest(evidence: Evidence) -> dict[str, pl.DataFrame]:
    """The judged answers of the last run of each series: those optimised the most."""
    runs = evidence.manifest.recipe.settings.get("runs", ())
    last = {run["series"]: f"{run['series']}, {run['x']:g}" for run in runs}
    held = {each.name: each.rows for each in evidence.labels}
    return {name: held[name] for name in last.values() if name in held}
