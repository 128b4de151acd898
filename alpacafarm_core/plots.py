"""Plots, as PNG bytes."""

import io
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAR, REFERENCE = "#3f6fb0", "#b04a3f"


def leaderboard(board: pl.DataFrame) -> bytes:
    """Win rate of each model with its standard error, best on top; columns of Leaderboard."""
    from matplotlib.figure import Figure

    rows = board.filter(pl.col("win_rate").is_not_null()).sort("win_rate")
    figure = Figure(figsize=(7, 1.2 + 0.42 * rows.height), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        rows["model"].to_list(),
        rows["win_rate"].to_list(),
        xerr=rows["standard_error"].fill_null(0).to_list(),
        color=BAR,
        ecolor="black",
        capsize=3,
    )
    for place, (rate, error) in enumerate(rows.select("win_rate", "standard_error").iter_rows()):
        axes.text(rate + (error or 0) + 1, place, f"{rate:.1f}", va="center")
    axes.axvline(50, color=REFERENCE, linestyle="--", linewidth=1, label="the reference")
    axes.set(xlabel="win rate against the reference, % (bars: standard error)", xlim=(0, 100))
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
