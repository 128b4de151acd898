"""Length control by hand, against its definition, and as AlpacaEval published it."""

import json
from math import log, sqrt
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpacafarm_core import files
from alpacafarm_core.errors import BadInput
from alpacafarm_core.length_control import (
    BASELINE,
    DRAWS,
    Calibration,
    Judged,
    _drawn,
    _rates_drawn,
    fitted,
    is_extreme,
    length_controlled,
)
from alpacafarm_core.logistic import Start, cross_validated, fit, fits, lasso, objective, rows_of
from flows.cli import main
from flows.controlling import Control, controlled, inputs
from flows.tallying import tallied
from tests.test_tally import SHARED

RATE = "length_controlled_winrate"


def one_term(*shares: float):
    """Rows with a single term, 1, so that a fit has an answer by hand."""
    return rows_of(np.ones((len(shares), 1)), np.array(shares), np.ones(len(shares)))


def some_rows(seed: int, n: int = 60):
    """Rows with three terms and graded shares."""
    rng = np.random.default_rng(seed)
    terms = np.stack([np.tanh(rng.normal(size=n)), rng.normal(size=n), np.ones(n)], axis=1)
    return rows_of(terms, rng.uniform(size=n), rng.uniform(0.1, 1, size=n))


def judged(n: int = 100, seed: int = 0) -> Judged:
    """A model that wins when it is longer."""
    rng = np.random.default_rng(seed)
    length = rng.normal(-100, 200, size=n)
    share = (rng.uniform(size=n) < 1 / (1 + np.exp(length / 150))).astype(float)
    return Judged(length, rng.normal(size=n), share, np.arange(n))


def pairs(**columns) -> pl.DataFrame:
    """Preferences for prompts a, b, c ... of model m against the baseline b."""
    n = len(columns["preference"])
    usual = {
        "instruction": [chr(ord("a") + i % 26) + "!" * (i // 26) for i in range(n)],
        "input": [""] * n, "generator_1": ["b"] * n, "generator_2": ["m"] * n,
        "output_1": ["long" * 5] * n, "output_2": ["x" * (i + 1) for i in range(n)],
    }  # fmt: skip
    return pl.DataFrame(usual | columns)


def test_one_parameter_by_hand():
    # 4 rows of mean 3/4: 4 sigmoid(theta) - 3 + 1/c = 0
    assert fit(one_term(1, 1, 1, 0), c=1e12)[0] == pytest.approx(log(3))
    assert fit(one_term(1, 1, 1, 0), c=2.0)[0] == pytest.approx(log(5 / 3))
    assert fit(one_term(0, 0, 0, 1), c=2.0)[0] == pytest.approx(-log(5 / 3))


def test_a_strong_penalty_leaves_exactly_nothing():
    assert fit(one_term(1, 1, 1, 0), c=1.0)[0] == 0
    assert fit(one_term(1, 1, 1, 0), c=1.01)[0] > 0


def test_a_model_that_always_wins_is_fitted_all_the_same():
    # 4 (1 - sigmoid(theta)) = 1/c
    assert fit(one_term(1, 1, 1, 1), c=1e4)[0] == pytest.approx(log(4e4 - 1))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.3, 1.0, 30.0, 1e4]))
def test_nothing_near_a_fit_is_lower(seed, c):
    rows = some_rows(seed)
    theta = fit(rows, c)
    least = objective(rows, theta, c)
    for step in np.random.default_rng(seed).normal(size=(20, 3)) * 1e-3:
        assert objective(rows, theta + step, c) >= least
    for place in np.eye(3) * 1e-4:
        assert min(objective(rows, theta + side * place, c) for side in (-1, 1)) >= least


def test_every_term_is_at_rest_or_held_at_zero():
    rows, c = some_rows(3), 2.0
    theta = fit(rows, c)
    chance = 1 / (1 + np.exp(-rows.terms @ theta))
    slope = (rows.weight * (chance - rows.share)) @ rows.terms
    held = theta == 0
    assert held.any() and not held.all()
    assert np.abs(slope[held]).max() < 1 / c
    assert slope[~held] == pytest.approx(-np.sign(theta[~held]) / c, abs=1e-9)


def test_the_lasso_finds_signs_that_were_guessed_wrong():
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(50, 3, 3))
    bend, pull = roots @ roots.transpose(0, 2, 1) + 0.01 * np.eye(3), rng.normal(size=(50, 3))
    with_guess = lasso(bend, pull, 0.3, np.sign(rng.normal(size=(50, 3))))
    without = lasso(bend, pull, 0.3, np.zeros((50, 3)), guesses=0)
    assert with_guess == pytest.approx(without, abs=1e-8)


def test_one_strength_after_the_other_is_as_from_the_start():
    rows = some_rows(5)
    path = fits(rows, rows.weight[None], [100.0, 1.0, 0.1], Start(np.zeros((1, 3)), 1e-7))
    for theta, c in zip(path, [100.0, 1.0, 0.1], strict=True):
        assert theta[0] == pytest.approx(fit(rows, c), abs=1e-9)


def test_what_cannot_be_told_in_advance_gets_the_strongest_penalty():
    rows = one_term(*[0.0] * 50, *[1.0] * 50)
    assert cross_validated(rows)[0] == pytest.approx(1e-4)


def test_a_clear_winner_gets_a_weak_penalty():
    rows = one_term(*[0.0] * 20, *[1.0] * 80)
    c, theta = cross_validated(rows)
    assert c > 1
    assert theta == pytest.approx(fit(rows, c))


def test_a_win_by_length_alone_is_none_at_equal_length():
    raw = 100 * judged(2000).share.mean()
    found = length_controlled(judged(2000)._replace(difficulty=None), c=1e4)
    assert raw > 60
    assert found.rate == pytest.approx(50, abs=3)
    assert found.standard_error == pytest.approx(
        0
    )  # without difficulties all rows predict the same
    assert found.low < 50 < found.high


def test_the_error_is_the_spread_of_predictions():
    model = fitted(judged(), c=1.0)
    chance = 1 / (1 + np.exp(-(model.own[:, 1] * model.theta[1] + model.theta[2])))
    found = length_controlled(judged(), c=1.0)
    assert found.rate == pytest.approx(100 * chance.mean())
    assert found.standard_error == pytest.approx(100 * chance.std(ddof=1) / sqrt(100))


def test_rows_without_a_judgement_are_predicted_but_not_fitted():
    rows = judged()
    share = rows.share.copy()
    share[:10] = np.nan
    model = fitted(rows._replace(share=share), c=1.0)
    assert (len(model.rows.share), len(model.chances())) == (90, 100)


def test_nothing_judged_has_no_rate_and_too_little_no_strength():
    nothing = judged()._replace(share=np.full(100, np.nan))
    assert length_controlled(nothing) is None
    with pytest.raises(BadInput, match="4 judged rows are too few to choose C; give --c"):
        length_controlled(judged(4))
    assert length_controlled(judged(4), c=1.0) is not None


def test_calibration_holds_the_length_and_not_the_rate():
    # Calibrated by rows in which length decides nothing, the length term shrinks.
    even = Calibration(np.linspace(-2, 2, 5000), np.zeros(5000), np.full(5000, 0.5))
    free, held = fitted(judged(), None, 10.0), fitted(judged(), even, 10.0)
    assert abs(held.theta[0]) < abs(free.theta[0]) / 2
    assert held.rows.weight[:5000] == pytest.approx(0.1)


def test_lengths_that_never_differ_say_nothing():
    same = judged()._replace(length=np.full(100, 7.0), difficulty=None)
    found = length_controlled(same, c=1e6)
    assert found.rate == pytest.approx(100 * same.share.mean(), abs=0.01)


def test_the_interval_is_that_of_whole_fits():
    model = fitted(judged(300, seed=2), c=2.0)
    quick = np.percentile(_rates_drawn(model), (2.5, 97.5))
    own, times = model.own, _drawn(300).astype(float)
    (theta,) = fits(model.rows, times, [2.0], Start(model.theta[None].repeat(DRAWS, 0), 1e-7))
    chance = 1 / (1 + np.exp(-theta[:, 1:] @ own[:, 1:].T))
    whole = np.percentile(100 * (times * chance).mean(axis=1), (2.5, 97.5))
    assert quick == pytest.approx(whole, abs=0.2)


def test_rows_of_one_instruction_are_drawn_together():
    once = judged(100)
    twice = Judged(*(None if each is None else each.repeat(2) for each in once))
    wide, narrow = (length_controlled(rows, c=1e4) for rows in (once, twice))
    assert narrow.high - narrow.low == pytest.approx(wide.high - wide.low, rel=0.02)


@pytest.mark.parametrize(
    ("raw", "held", "extreme"),
    [(20, 9.9, True), (20, 10.1, False), (50, 37.4, True), (50, 37.6, False), (50, 62.6, True)],
)
def test_a_rate_is_extreme_by_ten_points_and_a_quarter_of_the_way(raw, held, extreme):
    assert is_extreme(raw, held) is extreme


def test_a_baseline_against_itself_is_even_by_definition():
    found = controlled(pairs(preference=[2.0, 1.0], generator_2=["b", "b"]), Control("minimal"))
    assert found.row(0) == ("b", *BASELINE) == ("b", 50, 0, 50, 50, None)


def test_the_order_of_rows_does_not_matter():
    rows = pairs(preference=[2.0, 1.0, 1.0, 2.0, 1.5, 2.0, 2.0, None] * 8)
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=1)
    assert controlled(rows, Control("minimal")).equals(controlled(shuffled, Control("minimal")))


@pytest.fixture
def lc_files(tmp_path) -> dict[str, Path]:
    """Calibration and difficulties of the prompts a to h."""
    prompts = list("abcdefgh")
    hard = [i / 4 - 1 for i in range(8)]
    made = pl.DataFrame({"instruction": prompts, "instruction_difficulty": hard})
    made.write_csv(tmp_path / "difficulty.csv")
    made.select("instruction").write_csv(tmp_path / "instructions.csv")
    gamed = pl.DataFrame({"index": list(range(8)) * 2, "preference": [0.3, 0.7] * 8,
        "std_delta_len": [1.0, -1.0] * 8, "instruction_difficulty": hard * 2,
        "not_gamed_baseline": [False] * 16})  # fmt: skip
    gamed.write_csv(tmp_path / "calibration.csv")
    pairs(preference=[2.0, 1.0, 2.0, 2.0, 1.0, 2.0, 1.5, 1.0]).write_parquet(tmp_path / "m.parquet")
    return {name: tmp_path / name for name in ("difficulty.csv", "calibration.csv",
        "instructions.csv", "m.parquet", "out.csv")}  # fmt: skip


def test_difficulties_can_stand_in_the_calibration_by_index(lc_files):
    rows = files.read(lc_files["m.parquet"], "preferences")
    control = Control("v1", lc_files["calibration.csv"], lc_files["difficulty.csv"], 1.0)
    by_index = control._replace(difficulty=lc_files["instructions.csv"])
    assert controlled(rows, control).equals(controlled(rows, by_index))
    judged_rows, calibration = inputs(rows, control)
    assert judged_rows["m"].difficulty.tolist() == [i / 4 - 1 for i in range(8)]
    assert len(calibration.share) == 16


def test_what_is_missing_or_wrong_is_named_with_the_mend(lc_files, tmp_path):
    rows = files.read(lc_files["m.parquet"], "preferences")
    calibration, difficulty = lc_files["calibration.csv"], lc_files["difficulty.csv"]
    broken = tmp_path / "broken.csv"
    broken.write_text("instruction,instruction_difficulty\na,hard\n")
    short = tmp_path / "short.csv"
    short.write_text("instruction,instruction_difficulty\na,1\nb,2\n")
    twice = tmp_path / "twice.csv"
    twice.write_text("instruction,instruction_difficulty\na,1\na,2\n")
    for control, said in [
        (Control("v1", None, difficulty), "--lc v1 needs --calibration"),
        (Control("noreg"), "--lc noreg needs --difficulty"),
        (Control("noreg", None, lc_files["instructions.csv"]), "or give --calibration"),
        (Control("noreg", None, calibration), "no column 'instruction'"),
        (Control("v1", difficulty, difficulty), "no column 'preference'"),
        (Control("noreg", None, broken), "row 1, column 'instruction_difficulty': 'hard'"),
        (Control("noreg", None, short), "6 instructions have no difficulty, first 'c'"),
        (Control("noreg", None, twice), "two difficulties for 'a'"),
        (Control("minimal", c=0.0), "--c 0.0 is not above 0"),
    ]:
        with pytest.raises(BadInput, match=said):
            controlled(rows, control)


def test_a_calibration_out_of_range_is_refused_and_an_empty_one_left_out(lc_files):
    path, rows = lc_files["calibration.csv"], files.read(lc_files["m.parquet"], "preferences")
    control = Control("v1", path, lc_files["difficulty.csv"], 1.0)
    path.write_text(path.read_text().replace("0,0.3,1.0", "0,,1.0"))
    _, calibration = inputs(rows, control)
    assert len(calibration.share) == 14
    path.write_text(path.read_text().replace("0.7", "1.7"))
    with pytest.raises(BadInput, match="a preference is not from 0 to 1"):
        controlled(rows, control)


def test_too_few_rows_name_their_model(lc_files):
    rows = files.read(lc_files["m.parquet"], "preferences").head(3)
    with pytest.raises(BadInput, match="model 'm': 3 judged rows"):
        controlled(rows, Control("minimal"))


def test_the_command_writes_the_published_columns_and_says_c(lc_files, capsys):
    words = ["tally", str(lc_files["m.parquet"]), "--lc", "v1", "--c", "1", "--json"]
    words += ["--calibration", str(lc_files["calibration.csv"]), "--out", str(lc_files["out.csv"])]
    main([*words, "--difficulty", str(lc_files["difficulty.csv"])])
    (row,) = json.loads(capsys.readouterr().out)["leaderboard"]
    assert row["lc_low"] <= row[RATE] <= row["lc_high"]
    assert (row["lc_c"], row["coverage"]) == (1.0, 100.0)
    (line,) = pl.read_csv(lc_files["out.csv"]).to_dicts()
    assert list(line)[-4:] == [RATE, "lc_standard_error", "lc_low", "lc_high"]
    assert line[RATE] == row[RATE]


def test_options_of_length_control_alone_are_refused(lc_files, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["tally", str(lc_files["m.parquet"]), "--c", "1"])
    assert "need --lc" in capsys.readouterr().err


def test_an_extreme_rate_is_warned_of(tmp_path, caplog):
    rows = pairs(preference=[1.0] * 30 + [2.0] * 30)  # every win is a longer one
    rows = rows.with_columns(output_2=pl.Series(["x"] * 25 + ["x" * 99] * 35))
    rows.write_parquet(tmp_path / "m.parquet")
    caplog.set_level("WARNING", "alpacafarm")
    board = tallied([tmp_path / "m.parquet"], Control("minimal", c=1e4)).rows
    said = "is far from the raw" in caplog.text
    assert said is is_extreme(board["win_rate"][0], board[RATE][0]) is True


@pytest.fixture(scope="module")
def published():
    """Shared pairs and the control that AlpacaEval publishes."""
    data = SHARED / "data"
    if not data.is_dir():
        pytest.skip("no shared/data beside the project and ALPACAFARM_SHARED not set")
    rows = files.read(data / "gpt4_judged_pairs.parquet", "preferences")
    calibration = data / "lc_calibration_df_gamed.csv"
    return rows, Control("v1", calibration, data / "instruction_difficulty.parquet")


def test_published_rates_are_met_up_to_the_choice_of_c(published):
    rows, control = published
    ours = dict(controlled(rows, control).select("model", RATE).rows())
    theirs = pl.read_csv(SHARED / "data" / "published_leaderboard.csv")
    for model, rate in theirs.select("model", RATE).rows():
        assert ours[model] == pytest.approx(rate, abs=0.4), model


def test_published_rates_are_met_at_their_c(published):
    rows, control = published
    at = {c: dict(controlled(rows, control._replace(c=c)).select("model", RATE).rows())
          for c in (0.3593813663804626, 2.782559402207126)}  # fmt: skip
    theirs = pl.read_csv(SHARED / "data" / "published_leaderboard.csv")
    for model, rate in theirs.select("model", RATE).rows():
        assert min(abs(found[model] - rate) for found in at.values()) < 0.021, model


def test_shuffled_shared_rows_give_the_same_rates(published):
    rows, control = published
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=3)
    a, b = (controlled(each, control).sort("model") for each in (rows, shuffled))
    assert a[RATE].to_list() == pytest.approx(b[RATE].to_list(), abs=1e-9)
    assert a["lc_c"].to_list() == b["lc_c"].to_list()
