"""The plot of a training run."""

import polars as pl

from alpacafarm_core import plots

PNG = b"\x89PNG\r\n\x1a\n"


def size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels, as the file's header says."""
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


def test_a_run_has_a_panel_for_each_figure_three_side_by_side():
    history = pl.DataFrame({name: [0.5, 0.25, 0.125] for name in ("loss", "grad_norm", "kl")})
    three = plots.steps(history)
    four = plots.steps(history.with_columns(entropy=pl.lit(1.0)))
    assert three is not None and four is not None and three.startswith(PNG)
    assert size(four) == (size(three)[0], 2 * size(three)[1])


def test_what_is_no_figure_of_a_step_has_no_panel():
    bare = pl.DataFrame({"step": [0, 1], "rows": [8, 8], "seconds": [0.1, 0.1]})
    assert plots.steps(bare) is None
    assert plots.steps(pl.DataFrame()) is None
    loss = pl.DataFrame({"loss": [0.5, 0.4]})
    assert plots.steps(bare.hstack(loss)) == plots.steps(loss)


def test_long_runs_and_single_steps_are_drawn():
    for length in (1, 400):
        history = pl.DataFrame({"loss": [1 / (step + 1) for step in range(length)]})
        assert (plots.steps(history) or b"").startswith(PNG)


def test_figures_that_are_missing_at_some_steps_leave_gaps():
    history = pl.DataFrame({"loss": [0.5, None, float("nan"), 0.25]})
    assert (plots.steps(history) or b"").startswith(PNG)


def test_a_small_plot_is_the_same_in_fewer_bytes():
    history = pl.DataFrame({name: [0.5, 0.25, 0.125] for name in ("loss", "grad_norm", "kl")})
    whole = plots.steps(history)
    assert whole is not None
    less = plots.small(whole)
    assert less.startswith(PNG) and len(less) < len(whole) / 3
    assert size(less)[0] == plots.NARROW and size(less)[1] < size(whole)[1]
