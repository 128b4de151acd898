"""Plots, as PNG bytes."""

import io
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR, REFERENCE, FAINT = "#3f6fb0", "#b04a3f", "#b9cbe4"

STEPS = {
    "loss": "loss",
    "reward": "reward",
    "accuracy": "accuracy",
    "margin": "margin, chosen over rejected",
    "kl": "KL from the reference, nats a response",
    "kl_coef": "KL coefficient",
    "entropy": "entropy, nats a token",
    "length": "length, tokens",
    "eos_rate": "share that ended",
    "clip_fraction": "share of ratios clipped",
    "explained_variance": "explained variance of the critic",
    "policy_loss": "policy loss",
    "value_loss": "value loss",
    "gap_mean": "gap of sampler and trainer, nats a token",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
    "tokens_per_second": "tokens/s",
}
"""Figures of a training step that are drawn, in order, with their titles."""

ACROSS, SMOOTHED = 3, 40
"""Panels side by side, and steps from which a running mean is drawn over the figures."""

COLOURS, NARROW = 16, 840
"""Of a small plot, and its width in pixels."""

SMOOTH = ("kl_coef", "learning_rate")
"""Figures without noise."""


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


def steps(history: pl.DataFrame) -> bytes | None:
    """Each figure of STEPS over the steps of a training run, a panel each; None without any."""
    from matplotlib.figure import Figure

    known = [name for name in STEPS if name in history.columns]
    if not known or history.is_empty():
        return None
    down = -(-len(known) // ACROSS)
    figure = Figure(figsize=(3.3 * ACROSS, 2 * down), layout="constrained")
    panels = figure.subplots(down, ACROSS, squeeze=False).flatten()
    for axes, name in zip(panels, known, strict=False):
        _step_by_step(axes, history[name])
        axes.set_title(STEPS[name], fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(known) :]:
        axes.set_visible(False)
    figure.supxlabel("step", fontsize=9)
    return _png(figure)


def small(picture: bytes) -> bytes:
    """A plot in few colours and narrower, a fifth of its bytes: for a page in a database."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as plot:
        narrow = plot.convert("RGB")
        narrow.thumbnail((NARROW, plot.height))
        narrow.quantize(COLOURS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _step_by_step(axes: "Axes", figures: pl.Series) -> None:
    """One figure over the steps; of many steps, their running mean over the figures."""
    from matplotlib.ticker import MaxNLocator

    at, is_long = range(1, len(figures) + 1), len(figures) >= SMOOTHED
    is_noisy = is_long and figures.name not in SMOOTH
    color, marker = FAINT if is_noisy else BAR, "" if is_long else "."
    axes.plot(at, figures.to_list(), linewidth=1.2, color=color, marker=marker)
    if is_noisy:
        mean = figures.rolling_mean(len(figures) // 10, min_samples=1, center=True)
        axes.plot(at, mean.to_list(), color=BAR, linewidth=1.6)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
