"""Curves of over-optimisation: values by hand, and a peak that is where it was put."""

import numpy as np
import polars as pl
import pytest

from alpacafarm_core.curves import MEASURES, Point, best_of_points, peak, table
from alpacafarm_core.divergence import log_ratios
from alpacafarm_core.machine import Machine
from alpacafarm_core.plots import curves, ranks
from tests.tiny import preferences, tiny_model

HERE = Machine(device="cpu", precision="float32", engine="transformers", workers=1, apart="no")


def pool(**columns: list[float]) -> pl.DataFrame:
    """Samples of one prompt with the same measure everywhere but where it is given."""
    size = len(columns["proxy"])
    rows = {name: columns.get(name, [0.0] * size) for name in MEASURES}
    return pl.DataFrame({"instruction": ["p"] * size, "input": [""] * size, **rows})


def test_best_of_two_from_three_is_the_mean_over_its_subsets():
    points = best_of_points("s", pool(proxy=[1.0, 2.0, 3.0], utility=[0.0, 0.6, 0.3]), [1, 2, 3])
    found = [float(point.measures["utility"][0]) for point in points]
    # Of {1,2}, {1,3}, {2,3} the second sample wins one and the third two.
    assert found == pytest.approx([0.3, (0.6 + 0.3 + 0.3) / 3, 0.3])
    assert [round(point.kl, 3) for point in points] == [0.0, 0.193, 0.432]


def test_a_sample_nobody_judged_leaves_its_prompt_out_of_that_measure_alone():
    both = pl.concat(
        [
            pool(proxy=[1.0, 2.0], win_rate=[1.0, float("nan")], utility=[1.0, 1.0]),
            pool(proxy=[1.0, 2.0], win_rate=[0.0, 1.0]).with_columns(instruction=pl.lit("q")),
        ]
    )
    (row,) = table(best_of_points("s", both, [1])).to_dicts()
    assert row["win_rate"] == 50.0 and row["win_error"] is None
    assert row["utility"] == 0.5 and row["utility_error"] == pytest.approx(0.5)


def test_the_peak_is_found_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    points = [
        Point("s", x, x, {"utility": height + 0.1 * rng.normal(size=400)})
        for x, height in ((1.0, 0.5), (2.0, 0.6), (4.0, 0.7), (8.0, 0.6))
    ]
    assert peak(points) == (4.0, 4.0, 4.0)
    flat = [Point("s", x, x, {"utility": 0.1 * rng.normal(size=400)}) for x in (1.0, 2.0, 4.0)]
    found = peak(flat)
    assert found.low < found.high


def test_a_model_is_at_no_distance_from_itself_and_at_some_from_another(tmp_path):
    first, second = tiny_model(tmp_path / "a"), tiny_model(tmp_path / "b", seed=1)
    rows = preferences().select(
        "instruction", "input", output="output_1", output_ids="output_1_ids", tokenizer="tokenizer"
    )
    assert log_ratios((first, first), rows, HERE) == [0.0] * rows.height
    there, back = log_ratios((first, second), rows, HERE), log_ratios((second, first), rows, HERE)
    assert there == pytest.approx([-each for each in back], abs=1e-4) and any(there)


def test_plots_are_pictures():
    points = best_of_points("s", pool(proxy=[1.0, 2.0], utility=[0.1, 0.2]), [1, 2])
    sides = {"simulated": [1.0], "simulated_error": [0.1], "human": [2.0], "human_error": [None]}
    board = pl.DataFrame({"model": ["m"], **sides}, schema_overrides={"human_error": pl.Float64})
    for picture in (curves(table(points)), ranks(board)):
        assert picture.startswith(b"\x89PNG")
