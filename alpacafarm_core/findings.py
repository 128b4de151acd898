"""Tables drawn from judged pairs: models against each other, lengths, prices, samples.

Labels are rows of `Preferences` by model, all against the same reference; rates, differences and
errors are in percent (points).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core.tally import PROMPT, Paired, paired, points

Judged = Mapping[str, pl.DataFrame]


class Lengths(NamedTuple):
    """Characters of a model's answers, and how it fares where they are the longer ones."""

    mean: float | None
    median: float | None
    reference: float | None
    longer: float | None
    rate_longer: float | None
    rate_shorter: float | None


class Price(NamedTuple):
    """What labels took: `rows` of them, `bought` calls now and `kept` rows from the ledger."""

    rows: int
    bought: int
    kept: int
    dollars: float

    @property
    def per_1000(self) -> float | None:
        """Dollars for a thousand rows."""
        return 1000 * self.dollars / self.rows if self.rows else None


def pairwise(judged: Judged) -> dict[tuple[str, str], Paired]:
    """Every model minus every other one on the prompts that both were judged on."""
    own = {model: points(rows) for model, rows in judged.items()}
    names = list(own)
    found: dict[tuple[str, str], Paired] = {}
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            ahead = paired(own[one], own[other], "points")
            found[one, other] = ahead
            found[other, one] = ahead._replace(difference=_minus(ahead.difference))
    return found


def matrix(judged: Judged) -> list[dict[str, str]]:
    """The differences as rows of text, row minus column ± standard error; best first."""
    found = pairwise(judged)
    return [
        {"model": one} | {other: _said(found.get((one, other))) for other in judged}
        for one in judged
    ]


def lengths(rows: pl.DataFrame) -> Lengths:
    """Of the answers of one model beside its reference's."""
    sized = rows.select(
        own=pl.col("output_2").str.len_chars().cast(pl.Int64),
        reference=pl.col("output_1").str.len_chars().cast(pl.Int64),
        points=100 * (pl.col("preference") - 1),
    )
    longer = sized.filter(pl.col("own") > pl.col("reference"))
    shorter = sized.filter(pl.col("own") < pl.col("reference"))
    return Lengths(
        _number(sized["own"].mean()),
        _number(sized["own"].median()),
        _number(sized["reference"].mean()),
        100 * longer.height / sized.height if sized.height else None,
        _number(longer["points"].mean()),
        _number(shorter["points"].mean()),
    )


def price(rows: int, notes: Sequence[Mapping[str, Any]]) -> Price:
    """What several tables of labels took together, from the notes of their manifests."""
    return Price(
        rows,
        sum(int(each.get("calls_bought", 0)) for each in notes),
        sum(int(each.get("rows_from_ledger", 0)) for each in notes),
        float(sum(each.get("usd", 0.0) for each in notes)),
    )


def spread_out(judged: Judged, count: int) -> list[dict[str, dict[str, Any]]]:
    """So many prompts, evenly spread, each with the row of every model that answered it.

    Prompts are those of the first model; of several rows of one prompt the first is shown.
    """
    tables = list(judged.values())
    if not tables:
        return []
    prompts = tables[0].select(PROMPT).unique(maintain_order=True)
    chosen = prompts.gather_every(max(1, prompts.height // count)).head(count)
    found: list[dict[str, dict[str, Any]]] = [{} for _ in range(chosen.height)]
    places = chosen.with_row_index("place")
    for model, rows in judged.items():
        first = rows.join(places, on=PROMPT, nulls_equal=True).unique("place", keep="first")
        for row in first.to_dicts():
            found[row["place"]][model] = row
    return found


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _said(ahead: Paired | None) -> str:
    if ahead is None or ahead.difference is None:
        return ""
    error = "" if ahead.standard_error is None else f" ± {ahead.standard_error:.1f}"
    return f"{round(ahead.difference, 1) or 0.0:+.1f}{error}"  # no minus before a zero


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
