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


def curves(rows: pl.DataFrame) -> bytes:
    """Win rate, people and true utility against KL, a column a measure; columns of Curves."""
    from matplotlib.figure import Figure

    shown = {
        "proxy": ("reward model", "proxy_error"),
        "win_rate": ("win rate by the judges, %", "win_error"),
        "human": ("win rate by people, %", "human_error"),
        "utility": ("true utility", "utility_error"),
    }
    figure = Figure(figsize=(4 * len(shown), 3.6), layout="constrained")
    for axes, (name, (title, error)) in zip(figure.subplots(1, 4), shown.items(), strict=True):
        for series in rows["series"].unique(maintain_order=True):
            own = rows.filter(pl.col("series") == series).sort("kl")
            axes.errorbar(
                own["kl"].to_list(),
                own[name].to_list(),
                yerr=own[error].fill_null(0).to_list(),
                marker="o",
                markersize=3,
                capsize=2,
                label=series,
            )
        axes.set(title=title, xlabel="KL from the SFT policy, nats a response")
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return _png(figure)


def ranks(rows: pl.DataFrame) -> bytes:
    """Each model's win rate in simulation against that among people; columns of Ranks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(
        rows["simulated"].to_list(),
        rows["human"].to_list(),
        xerr=rows["simulated_error"].fill_null(0).to_list(),
        yerr=rows["human_error"].fill_null(0).to_list(),
        fmt="o",
        color=BAR,
        capsize=2,
    )
    for model, across, up in rows.select("model", "simulated", "human").iter_rows():
        axes.annotate(model, (across, up), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="win rate in simulation, %", ylabel="win rate among people, %")
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
