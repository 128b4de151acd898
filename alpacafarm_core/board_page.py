"""A leaderboard as parts of a page: board, pairwise matrix, reward, length, samples.

Every number of the board leads to the artifact it was counted from.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from alpacafarm_core import charts, exhibits
from alpacafarm_core.charts import Point
from alpacafarm_core.comparison import Interval, ranks
from alpacafarm_core.evidence import Evidence
from alpacafarm_core.findings import lengths, pairwise, spread_out
from alpacafarm_core.markup import (
    NOTHING,
    Figure,
    Markup,
    Section,
    around,
    figure,
    give_or_take,
    link,
    more,
    table,
    tag,
)
from alpacafarm_core.tally import Paired

WIDTH = 1.96  # standard errors on each side of a 95% interval
SAMPLES = 8
PLACE = "Models whose intervals overlap share their places."
INTERVAL = "Bars are 95% intervals, 1.96 standard errors on each side."


def parts(evidence: Evidence, prefix: str = "", title: str = "") -> list[Section]:
    """Everything about one leaderboard; inside a ranking its anchors and headings carry a name."""
    judged = evidence.judged()
    named = f"{title}: " if title else ""
    return [
        Section(f"{prefix}board", f"{named}Board", [_board(evidence), _rates(evidence.rows)]),
        Section(f"{prefix}pairwise", f"{named}Pairwise", [_pairwise(judged)]),
        Section(f"{prefix}reward", f"{named}Reward and win rate", _rewards(evidence)),
        Section(f"{prefix}length", f"{named}Length", _lengths(evidence.rows, judged)),
        Section(f"{prefix}samples", f"{named}Samples", samples(judged)),
    ]


def _board(evidence: Evidence) -> Markup:
    columns = ["model", "place", "win rate, % ± SE", "95% interval", "wins", "losses", "draws"]
    columns += ["judged, %", "vs SFT ± paired SE", "utility", "chars", "US $"]
    places = _places(evidence.rows)
    rows = [
        _board_row(row, places.get(row["model"], ""), evidence) for row in evidence.rows.to_dicts()
    ]
    return table("Board", columns, rows)


def _places(rows: pl.DataFrame) -> dict[str, str]:
    """The places that each model's interval allows, such as 1-3; none without an interval."""
    known = rows.drop_nulls(["win_rate", "standard_error"]).to_dicts()
    ends = {row["model"]: _ends(row["win_rate"], row["standard_error"]) for row in known}
    return {model: str(place) for model, place in ranks(ends).items()}


def _board_row(row: Mapping[str, Any], place: str, evidence: Evidence) -> list[Any]:
    """A model's numbers, each leading to what it was counted from."""
    settings = evidence.manifest.recipe.settings.get("evaluations", {}).get(row["model"], {})
    labels, truth = (
        exhibits.anchor(f"{kind}/{settings[name]['key']}", evidence.lineage)
        if settings.get(name)
        else None
        for kind, name in (("preferences", "preferences"), ("scores", "truth"))
    )
    rate, error = row["win_rate"], row["standard_error"]
    ends = "" if rate is None or error is None else _interval(rate, error)
    counted = [figure(row[name], 0) for name in ("n_wins", "n_wins_base", "n_draws")]
    return [
        row["model"],
        Figure(place),
        Figure(link(around(rate, error), labels)),
        Figure(ends),
        *counted,
        figure(row["coverage"]),
        give_or_take(row["win_rate_minus_sft"], row["paired_error"]),
        Figure(link(figure(row["utility"], 3), truth)),
        figure(row["avg_length"], 0),
        Figure(link(figure(row["price"], 2), labels)),
    ]


def _ends(rate: float, error: float) -> Interval:
    return Interval(max(0.0, rate - WIDTH * error), min(100.0, rate + WIDTH * error))


def _interval(rate: float, error: float) -> str:
    return "{:.1f} to {:.1f}".format(*_ends(rate, error))


def _rates(rows: pl.DataFrame) -> Markup:
    held = rows.filter(pl.col("win_rate").is_not_null()).to_dicts()
    dots = [
        Point(row["model"], row["win_rate"], 0.0, WIDTH * (row["standard_error"] or 0.0))
        for row in held
    ]
    drawn = charts.intervals(dots, "win rate against the reference, %", 50.0)
    told = (
        f"{INTERVAL} {PLACE} The dashed line is the reference. A number leads to what it came from."
    )
    return Markup(drawn + tag("p", told, class_="soft"))


def _pairwise(judged: Mapping[str, pl.DataFrame]) -> Markup:
    if len(judged) < 2:
        return NOTHING
    found = pairwise(judged)
    rows = [[one, *(_ahead(found.get((one, other))) for other in judged)] for one in judged]
    prompts = sorted({each.n for each in found.values()})
    counts = " to ".join(f"{n:,}" for n in dict.fromkeys([prompts[0], prompts[-1]]))
    told = (
        f"Win rate of the row minus that of the column, points ± standard error, on the {counts} "
        "prompts that both were judged on. In bold: more than 1.96 standard errors from 0; of "
        f"{len(found) // 2} pairs, one in twenty is so by chance."
    )
    return Markup(tag("p", told) + table("Pairwise differences", ["", *judged], rows))


def _ahead(ahead: Paired | None) -> Figure:
    if ahead is None or ahead.difference is None:
        return Figure("")
    shown = give_or_take(ahead.difference, ahead.standard_error)
    if ahead.standard_error is None or abs(ahead.difference) <= WIDTH * ahead.standard_error:
        return shown
    return Figure(tag("span", shown, class_=f"clear {'up' if ahead.difference > 0 else 'down'}"))


def _rewards(evidence: Evidence) -> list[Markup]:
    """Win rate against each reward model's mean, and against the truth where it is known."""
    rates = {row["model"]: row for row in evidence.rows.to_dicts() if row["win_rate"] is not None}
    held: list[Markup] = []
    for judge, scores in evidence.scores.items():
        dots = [
            Point(
                model,
                rated.mean,
                rates[model]["win_rate"],
                WIDTH * (rated.standard_error or 0.0),
                WIDTH * (rates[model]["standard_error"] or 0.0),
            )
            for model, rated in scores.items()
            if model in rates
        ]
        rows = [[model, figure(rated.mean, 3), rated.folder] for model, rated in scores.items()]
        title = tag("h3", "Mean score of ", tag("code", judge))
        columns = ["model", "mean score", "scores"]
        drawn = charts.scatter(dots, "mean score", "win rate, %")
        held.append(tag("div", title, drawn, table("Scores", columns, rows)))
    known = [
        Point(model, row["utility"], row["win_rate"], 0.0, WIDTH * (row["standard_error"] or 0.0))
        for model, row in rates.items()
        if row["utility"] is not None
    ]
    if known:
        title = tag("h3", "True utility, which the built-in world knows")
        held.append(tag("div", title, charts.scatter(known, "true utility", "win rate, %")))
    if not held:
        return []
    told = "" if evidence.scores else " No reward model has scored these answers."
    return [tag("p", INTERVAL + told, class_="soft"), tag("div", *held, class_="many")]


def _lengths(board: pl.DataFrame, judged: Mapping[str, pl.DataFrame]) -> list[Markup]:
    found = {model: lengths(rows) for model, rows in judged.items()}
    if not found:
        return []
    rates = {row["model"]: row for row in board.to_dicts()}
    rows = [[model, *(figure(value) for value in each)] for model, each in found.items()]
    columns = ["model", "mean chars", "median", "reference's mean", "longer than it, %"]
    columns += ["win rate where longer, %", "win rate where shorter, %"]
    dots = [
        Point(model, each.mean, rate, 0.0, WIDTH * (rates[model]["standard_error"] or 0.0))
        for model, each in found.items()
        if each.mean is not None and (rate := rates[model]["win_rate"]) is not None
    ]
    return [
        table("Lengths", columns, rows),
        charts.scatter(dots, "mean length of the answers, characters", "win rate, %"),
    ]


def samples(judged: Mapping[str, pl.DataFrame]) -> list[Markup]:
    """Some prompts with every answer, what the judge of it said, and how it was asked."""
    chosen = [rows for rows in spread_out(judged, SAMPLES) if rows]
    shown = [_sample(rows, place == 0) for place, rows in enumerate(chosen)]
    told = (
        "Prompts evenly spread over those judged; each answer beside the reference's. A judge "
        "that is asked about several pairs in one call answers them together, and its words are "
        "shown as they came."
    )
    return [tag("p", told, class_="soft"), *shown] if shown else []


def _sample(rows: Mapping[str, Mapping[str, Any]], opened: bool) -> Markup:
    first = next(iter(rows.values()))
    given = tag("p", first["input"], class_="said") if first["input"] else NOTHING
    reference = tag(
        "div", tag("strong", "the reference"), tag("p", first["output_1"], class_="said"),
        class_="answer",
    )  # fmt: skip
    answers = [_answer(model, row, opened) for model, row in rows.items()]
    return tag(
        "div",
        tag("p", tag("strong", first["instruction"]), class_="said"),
        given,
        tag("div", reference, *answers, class_="many"),
        class_="sample",
    )


def _answer(model: str, row: Mapping[str, Any], opened: bool) -> Markup:
    said, way = _verdict(row)
    words = row["raw_completion"]
    return tag(
        "div",
        tag("strong", model), " ", tag("span", said, class_=way),
        tag("p", row["output_2"], class_="said"),
        more(_asked(row), tag("pre", words, class_="said"), opened=opened)
        if words
        else tag("p", _asked(row), class_="soft"),
        class_="answer",
    )  # fmt: skip


def _asked(row: Mapping[str, Any]) -> str:
    """Who judged, and what was shown first."""
    if row["output_1"] == row["output_2"]:
        return "equal answers; no judge was asked"
    if row["is_noisy"]:
        return "a coin decided; no judge was asked"
    first = "this answer" if row["is_switched"] else "the reference"
    return f"judge {row['annotator']}, {first} first"


def _verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    preference = row["preference"]
    if preference is None:
        return f"no label ({row['status']})", "soft"
    if preference == 1.5:
        return "a tie", "soft"
    return ("better", "up") if preference > 1.5 else ("worse", "down")
