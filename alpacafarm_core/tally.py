"""Preferences to numbers: win rates, paired differences, the board.

A preference runs from 1 (the baseline, `output_1`) to 2 (the model, `output_2`); preference minus 1
is the chance that the model is better. Rates, differences and errors are in percent (points).
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import NamedTuple

import polars as pl

from alpacafarm_core.artifacts import Leaderboard

PROMPT = ["instruction", "input"]
OLD_TIE = 0.0  # how AlpacaFarm and early AlpacaEval files write a tie
CSV_COLUMNS = [
    "model",
    "win_rate",
    "standard_error",
    "n_wins",
    "n_wins_base",
    "n_draws",
    "n_total",
    "avg_length",
    "discrete_win_rate",
]


class WinRate(NamedTuple):
    """Win rate of the model; rates are None without a valid row, the error with fewer than two."""

    win_rate: float | None
    standard_error: float | None
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    discrete_win_rate: float | None


class Paired(NamedTuple):
    """Mean difference over the `n` prompts that both sides have, and its standard error."""

    difference: float | None
    standard_error: float | None
    n: int


Entry = tuple[pl.DataFrame, pl.DataFrame | None]
"""What is known of one model: rows of `Preferences`, and perhaps a true `score` per prompt."""

NO_PAIRS = Paired(None, None, 0)


def win_rate(preferences: pl.Series | Sequence[float | None]) -> WinRate:
    """Count and average preferences; those missing or outside 1 to 2 do not count."""
    shares = _shares(preferences)
    n, n_wins, n_draws = len(shares), int((shares > 0.5).sum()), int((shares == 0.5).sum())
    mean, error = _mean_and_error(shares * 100)
    return WinRate(
        win_rate=mean,
        standard_error=error,
        n_wins=n_wins,
        n_wins_base=n - n_wins - n_draws,
        n_draws=n_draws,
        n_total=n,
        discrete_win_rate=100 * (n_wins + n_draws / 2) / n if n else None,
    )


def avg_length(outputs: pl.Series) -> int | None:
    """Mean length of the outputs in characters (code points), truncated to a whole number."""
    mean = outputs.fill_null("").str.len_chars().mean()
    return int(mean) if isinstance(mean, float) else None


def paired(a: pl.DataFrame, b: pl.DataFrame, value: str) -> Paired:
    """Mean of `a[value] - b[value]` over the prompts in both.

    Frames of instruction, input and `value`. Several rows of one prompt are averaged first, so that
    a prompt counts once.
    """
    joined = _per_prompt(a, value).join(_per_prompt(b, value), on=PROMPT, suffix="_b")
    difference, error = _mean_and_error(joined[value] - joined[f"{value}_b"])
    return Paired(difference, error, joined.height)


def points(preferences: pl.DataFrame) -> pl.DataFrame:
    """The valid rows as instruction, input and `points`: 0 for the baseline, 100 for the model."""
    shared = preferences.with_columns(points=100 * (_tie_as_half(pl.col("preference")) - 1))
    return shared.filter(pl.col("points").is_between(0, 100)).select(*PROMPT, "points")


def board(entries: Mapping[str, Entry]) -> pl.DataFrame:
    """One row a model with the columns of `Leaderboard`, best first.

    Coverage is the share of rows with a valid preference. What is measured against the model called
    "sft" is null for that model and where there is none.
    """
    sft = entries.get("sft")
    rows = [_row(name, entry, None if name == "sft" else sft) for name, entry in entries.items()]
    frame = pl.DataFrame(rows, schema=Leaderboard.columns)
    return frame.sort("win_rate", "model", descending=[True, False], nulls_last=True)


def tally_file(pairs: pl.DataFrame) -> pl.DataFrame:
    """Rows of the published leaderboards, best first, for every model in a file of judged pairs.

    The model is the one that `generator_2` names.
    """
    groups = pairs.partition_by("generator_2", maintain_order=True)
    rows = [_counts(str(group["generator_2"][0]), group) for group in groups]
    schema = {name: Leaderboard.columns[name] for name in CSV_COLUMNS}
    frame = pl.DataFrame(rows, schema=schema)
    return frame.sort("win_rate", "model", descending=[True, False], nulls_last=True)


def _tie_as_half(preference: pl.Expr) -> pl.Expr:
    return pl.when(preference == OLD_TIE).then(1.5).otherwise(preference)


def _shares(preferences: pl.Series | Sequence[float | None]) -> pl.Series:
    """Valid preferences as the chance, 0 to 1, that the model is better."""
    frame = pl.DataFrame({"preference": pl.Series(preferences, dtype=pl.Float64)})
    shares = frame.select(share=_tie_as_half(pl.col("preference")) - 1)["share"]
    return shares.filter(shares.is_between(0, 1))


def _mean_and_error(values: pl.Series) -> tuple[float | None, float | None]:
    mean, spread = values.mean(), values.std()
    if not isinstance(mean, float):
        return None, None
    return mean, spread / sqrt(len(values)) if isinstance(spread, float) else None


def _per_prompt(frame: pl.DataFrame, value: str) -> pl.DataFrame:
    valid = frame.drop_nulls(value)
    return valid.group_by(PROMPT, maintain_order=True).agg(pl.col(value).mean())


def _counts(name: str, preferences: pl.DataFrame) -> dict[str, object]:
    counted = win_rate(preferences["preference"])._asdict()
    return {"model": name, **counted, "avg_length": avg_length(preferences["output_2"])}


def _row(name: str, entry: Entry, sft: Entry | None) -> dict[str, object]:
    rows, scores = entry
    sft_rows, sft_scores = sft or (None, None)
    own = points(rows)
    ahead = NO_PAIRS if sft_rows is None else paired(own, points(sft_rows), "points")
    return {
        **_counts(name, rows),
        "coverage": 100 * own.height / rows.height if rows.height else None,
        "win_rate_minus_sft": ahead.difference,
        "paired_error": ahead.standard_error,
        **_utility(scores, sft_scores),
        "price": rows["price"].sum(),
    }


def _utility(own: pl.DataFrame | None, sft: pl.DataFrame | None) -> dict[str, object]:
    ahead = NO_PAIRS if own is None or sft is None else paired(own, sft, "score")
    return {
        "utility": None if own is None else own["score"].mean(),
        "utility_minus_sft": ahead.difference,
        "utility_paired_error": ahead.standard_error,
    }
