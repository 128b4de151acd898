"""Comparisons by hand: paired differences, intervals, places, seeds, and the command."""

from itertools import product
from math import sqrt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from alpacafarm_core.artifacts import Leaderboard, Preferences
from alpacafarm_core.comparison import (
    FLIPS,
    Interval,
    across,
    bootstrap,
    detectable,
    differences,
    paired,
    points_per_dollar,
    ranks,
    sign_flip,
    student,
    two_level,
)
from alpacafarm_core.errors import BadInput
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.recipe import Recipe, key_of
from alpacafarm_core.store import Made
from alpacafarm_core.tally import board
from flows import comparing
from flows.cli import app, main
from flows.racing import over_seeds, with_seeds


def judged(*preferences: float | None, model: str = "mine", price: float = 0.01) -> pl.DataFrame:
    """Labels for prompts 0, 1, 2, ... against one reference."""
    rows = pl.DataFrame({"preference": preferences}, schema={"preference": pl.Float64})
    return rows.with_columns(
        instruction=pl.int_range(pl.len()).cast(pl.String),
        input=pl.lit(""),
        output_1=pl.lit("theirs"),
        output_2=pl.lit("ours"),
        generator_2=pl.lit(model),
        annotator=pl.lit("judge"),
        price=pl.lit(price),
    )


def run_of(*values: float) -> pl.DataFrame:
    """One seed's values for prompts 0, 1, 2, ..."""
    frame = judged(*values).select("instruction", "input")
    return frame.with_columns(points=pl.Series(values, dtype=pl.Float64))


def test_a_difference_by_hand():
    found = paired(judged(2, 2, 1, 1.5), judged(1, 2, 1, 1))
    assert found.difference == 37.5  # of 100, 0, 0 and 50
    assert found.standard_error == pytest.approx(sqrt((62.5**2 + 2 * 37.5**2 + 12.5**2) / 3 / 4))
    assert found.interval.high - 37.5 == pytest.approx(3.182446 * found.standard_error)
    assert found.n == 4


def test_only_prompts_with_a_label_in_both_count():
    assert differences(judged(2, None, 1), judged(1, 1)).rows() == [("0", "", 100.0)]
    with pytest.raises(BadInput, match=r"1 prompts .* at least two"):
        paired(judged(2, None, 1), judged(1, 1))


def test_several_labels_of_a_prompt_count_as_one():
    twice = pl.concat([judged(2, 2), judged(1, 2)])
    assert differences(twice, judged(1, 1))["points"].to_list() == [50.0, 100.0]


def test_exchanging_the_models_turns_the_difference_round():
    one, other = judged(2, 2, 1, 2, 1.5, 2), judged(1, 2, 2, 1, 1, 1)
    there, back = paired(one, other), paired(other, one)
    assert back.difference == -there.difference
    assert back.p_value == there.p_value
    assert back.interval == pytest.approx((-there.interval.high, -there.interval.low))


def test_signs_of_five_equal_wins_agree_once_in_sixteen():
    assert sign_flip(np.array([100.0] * 5 + [0.0] * 800)) == pytest.approx(2 / 32, abs=0.008)


def test_flipping_agrees_with_all_flips_of_graded_differences():
    values = np.array([90.0, -20.0, 50.0, 35.0, 35.0, -5.0, 60.0, 10.0])
    sums = [abs(np.dot(signs, values)) for signs in product((-1, 1), repeat=8)]
    exact = np.mean(np.array(sums) >= abs(values.sum()) - 1e-9)
    assert sign_flip(values) == pytest.approx(exact, abs=0.008)


def test_no_difference_is_never_found_and_a_p_value_is_never_zero():
    assert sign_flip(np.zeros(9)) == 1
    assert sign_flip(np.full(805, 100.0)) == 1 / (1 + FLIPS)


def test_equal_models_are_told_apart_once_in_twenty():
    values = np.random.default_rng(0).choice([-100.0, 0.0, 50.0, 100.0, -50.0], (300, 100))
    found = [sign_flip(each, seed) <= 0.05 for seed, each in enumerate(values)]
    assert 0.02 < np.mean(found) < 0.09


def test_a_bootstrap_of_two_values_is_a_binomial():
    found = bootstrap(np.array([0.0, 100.0] * 200))
    assert found == pytest.approx((50 - 1.96 * 2.5, 50 + 1.96 * 2.5), abs=0.6)
    assert bootstrap(np.full(9, 7.0)) == pytest.approx((7, 7))
    assert bootstrap(np.arange(9.0), seed=1) == bootstrap(np.arange(9.0), seed=1)


@pytest.mark.parametrize(
    ("freedom", "alpha", "table"),
    [(1, 0.05, 12.7062), (2, 0.05, 4.3027), (2, 0.01, 9.9248), (5, 0.1, 2.0150), (10, 0.05, 2.2281),
     (804, 0.05, 1.9629)],
)  # fmt: skip
def test_students_quantiles_are_those_of_the_tables(freedom, alpha, table):
    assert student(freedom, alpha) == pytest.approx(table, abs=1e-4)


def test_three_seeds_that_differ_count_as_three():
    runs = [run_of(*[base] * 50) for base in (0.0, 3.0, 6.0)]
    found = across(runs, "points")
    assert (found.mean, found.seeds, found.n) == (3.0, 3, 50)
    assert found.standard_error == pytest.approx(3 / sqrt(3))
    assert found.interval == pytest.approx((3 - 4.302653 * sqrt(3), 3 + 4.302653 * sqrt(3)))


def test_seeds_that_agree_leave_the_spread_of_prompts():
    runs = [run_of(0.0, 10.0, 20.0)] * 3
    found = across(runs, "points")
    assert found.standard_error == pytest.approx(10 / sqrt(3))
    assert found.interval.high == pytest.approx(10 + 4.302653 * 10 / sqrt(3))


def test_prompts_that_a_seed_lacks_do_not_count():
    assert across([run_of(1, 2, 9), run_of(3, 4)], "points")[:1] == (2.5,)
    with pytest.raises(BadInput, match="1 seeds with 2 prompts"):
        across([run_of(1, 2)], "points")


def test_three_seeds_keep_their_error_rate_where_rows_as_one_do_not():
    generator = np.random.default_rng(0)
    missed = 0
    for _ in range(300):
        table = generator.normal(0, 2, (3, 1)) + generator.normal(0, 20, (3, 100))
        low, high = two_level(table).interval
        missed += not low <= 0 <= high
    assert missed / 300 < 0.08


def test_places_are_ranges_where_intervals_overlap():
    found = ranks({"a": Interval(60, 70), "b": Interval(52, 61), "c": Interval(50, 55),
                   "d": Interval(10, 20)})  # fmt: skip
    assert {name: str(place) for name, place in found.items()} == {
        "a": "1-2", "b": "1-3", "c": "2-3", "d": "4"
    }  # fmt: skip


def test_what_805_prompts_can_detect():
    assert detectable(805, sd=50) == pytest.approx(2.8016 * 50 / sqrt(805), abs=1e-3)
    assert detectable(4 * 805, sd=50) == pytest.approx(detectable(805, sd=50) / 2)


def test_points_for_each_dollar():
    assert points_per_dollar(6.0, 3.0) == 2.0
    assert points_per_dollar(6.0, 0.0) is None


def written(folder: Path, name: str, *rows: pl.DataFrame) -> str:
    path = folder / f"{name}.parquet"
    pl.concat(rows).write_parquet(path)
    return str(path)


def test_two_files_are_compared_and_the_better_one_named(tmp_path, capsys):
    good = written(tmp_path, "good", judged(*[2] * 20, model="dpo", price=0.02))
    poor = written(tmp_path, "poor", judged(*[1] * 15, *[2] * 5, model="sft"))
    document = comparing.compared(good, poor, 0.05, None)
    assert document["verdict"] == "first"
    assert (document["first"], document["second"], document["difference"]) == ("dpo", "sft", 75)
    assert document["cost_usd"] == pytest.approx([0.4, 0.2])
    assert document["points_per_dollar"] == pytest.approx(75 / 0.2)
    main(["compare", poor, good])
    said = capsys.readouterr().out
    assert said.startswith("dpo is better than sft (n = 20, p = 0.000")
    assert "difference  -75.00 points" in said


def test_models_alike_are_not_told_apart(tmp_path, capsys):
    both = written(tmp_path, "both", judged(2, 1, 2, 1, model="a"), judged(1, 2, 1, 2, model="b"))
    comparing.show(comparing.compared(f"{both}:a", f"{both}:b", 0.05, None))
    said = capsys.readouterr().out
    assert "a and b are not told apart" in said and "detectable" in said
    with pytest.raises(BadInput, match=r"holds 2 models \(a, b, ...\); give FILE:MODEL"):
        comparing.side(both, None)
    with pytest.raises(BadInput, match="no model 'c', only a, b"):
        comparing.side(f"{both}:c", None)


def test_another_reference_is_another_game(tmp_path):
    ours = judged(2, 1, 2)
    other = ours.with_columns(output_1=pl.lit("someone else's"))
    with pytest.raises(BadInput, match="different references on 3 of 3 prompts"):
        comparing.refuse_unlike(comparing.Side("a", ours, 0.0), comparing.Side("b", other, 0.0))


def test_no_interval_is_given_where_there_is_nothing_to_tell_one_from(tmp_path, capsys):
    won = written(tmp_path, "won", judged(*[2] * 5, model="a"))
    lost = written(tmp_path, "lost", judged(*[1] * 5, model="b"))
    document = comparing.compared(won, lost, 0.05, None)
    assert document["verdict"] == "undecided" and document["difference"] == 100
    assert [document[name] for name in ("interval", "bootstrap", "detectable")] == [None] * 3
    comparing.show(document)
    assert "unknown: all prompts gave the same difference" in capsys.readouterr().out
    mixed = written(tmp_path, "mixed", judged(2, 1, 2, 1.5, 2, model="c"))
    document = comparing.compared(mixed, lost, 0.001, None)
    assert document["bootstrap"] is None and document["interval"] is not None
    comparing.show(document)
    assert "(99.9%)" in capsys.readouterr().out


def test_keys_of_the_store_are_compared_with_what_their_judgements_cost(store, tmp_path):
    kept = [taken(tmp_path, store, f"{model}", preference) for model, preference in
            (("dpo", 2.0), ("sft", 1.0))]  # fmt: skip
    document = comparing.compared(*kept, 0.05, store.root)
    assert (document["first"], document["n"]) == ("dpo", 6)
    with pytest.raises(BadInput, match="no file"):
        comparing.side("nothing.json", store.root)


def taken(folder: Path, store, model: str, preference: float) -> str:
    """Import labels into the store; their key."""
    path = written(folder, model, judged(*[preference] * 6, model=model))
    before = {artifact.key for artifact in store.receipts("preferences")}
    main(["import", path, "--as", "preferences", "--store", str(store.root), "--json"])
    (key,) = {a.key for a in store.receipts("preferences")} - before
    return key


def test_a_race_over_seeds_counts_seeds_as_draws(store):
    boards = [board_of(store, seed, wins) for seed, wins in enumerate((2, 4, 9))]
    tables = [store.read(board) for board in boards]
    rows = with_seeds(over_seeds(tables), boards)
    assert rows.columns == list(Leaderboard.columns)
    (dpo,) = rows.filter(pl.col("model") == "dpo").to_dicts()
    assert dpo["win_rate"] == 50 and dpo["win_rate_minus_sft"] == 50
    runs = [run_of(*[100.0] * wins, *[0.0] * (10 - wins)) for wins in (2, 4, 9)]
    assert dpo["standard_error"] == pytest.approx(across(runs, "points").standard_error)
    assert dpo["paired_error"] == dpo["standard_error"] > 100 * sqrt(0.13 / 3)


def board_of(store, seed: int, wins: int) -> Leaderboard:
    """A board on which sft never wins and dpo wins on the first prompts."""
    labels = {"dpo": judged(*[2] * wins, *[1] * (10 - wins)), "sft": judged(*[1] * 10)}
    held = {
        model: Evaluation(preferences=kept(store, rows, f"{seed}{model}"))
        for model, rows in labels.items()
    }
    rows = board({model: (store.read(each.preferences), None) for model, each in held.items()})
    arguments = {"evaluations": held}
    artifact = Leaderboard(key=key_of("tally", 1, arguments))
    store.write(artifact, Made(rows), Recipe.of("tally", 1, arguments), 0.0)
    return artifact


def kept(store, rows: pl.DataFrame, name: str) -> Preferences:
    artifact = Preferences(key=key_of("made_up", 1, {"name": name}))
    missing = [pl.lit(None, kind).alias(column) for column, kind in Preferences.columns.items()
               if column not in rows.columns]  # fmt: skip
    whole = rows.with_columns(missing).select(list(Preferences.columns))
    store.write(artifact, Made(whole), Recipe.of("made_up", 1, {"name": name}), 0.0)
    return artifact


def test_the_command_is_registered():
    assert "compare" in {command.callback.__name__ for command in app.registered_commands}
    assert set(Preferences.columns) >= {"generator_2", "price", "annotator"}
