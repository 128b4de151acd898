"""Files of length control, and rates as AlpacaEval published them."""

import json
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core import files
from alpacafarm_core.errors import BadInput
from alpacafarm_core.length_control import BASELINE, is_extreme
from flows.cli import main
from flows.controlling import Control, controlled, inputs
from flows.tallying import tallied
from tests.test_tally import SHARED

RATE = "length_controlled_winrate"


def pairs(**columns) -> pl.DataFrame:
    """Preferences for prompts a, b, c ... of model m against the baseline b."""
    n = len(columns["preference"])
    usual = {
        "instruction": [chr(ord("a") + i % 26) + "!" * (i // 26) for i in range(n)],
        "input": [""] * n, "generator_1": ["b"] * n, "generator_2": ["m"] * n,
        "output_1": ["long" * 5] * n, "output_2": ["x" * (i + 1) for i in range(n)],
    }  # fmt: skip
    return pl.DataFrame(usual | columns)


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
        (Control("minimal", calibration), "minimal does not use --calibration .*; leave it out"),
        (Control("minimal", None, difficulty), "minimal does not use --difficulty"),
        (Control("noreg", calibration, difficulty), "noreg does not use --calibration .* or use"),
    ]:
        with pytest.raises(BadInput, match=said):
            controlled(rows, control)


def test_instructions_in_another_order_are_not_taken_by_position(lc_files, caplog):
    rows = files.read(lc_files["m.parquet"], "preferences")
    listed, calibration = lc_files["instructions.csv"], lc_files["calibration.csv"]
    control = Control("v1", calibration, listed, 1.0)
    caplog.set_level("WARNING", "alpacafarm")
    asked = inputs(rows, control)[0]["m"]
    assert "instructions.csv has no column 'index': row i takes the difficulty" in caplog.text
    shuffled = pl.read_csv(listed).with_row_index().sample(fraction=1.0, shuffle=True, seed=1)
    shuffled.write_csv(listed)
    assert inputs(rows, control)[0]["m"].difficulty.sum() == asked.difficulty.sum()
    shuffled.drop("index").write_csv(listed)
    with pytest.raises(BadInput, match=r"judged rows are not in its order: row .* add 'index'"):
        inputs(rows, control)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("index", "0.5", "row 3, column 'index': '0.5' is not a whole number from 0"),
        ("index", "1e300", "row 3, column 'index': '1e300' is not a whole number"),
        ("index", "-1", "row 3, column 'index': '-1' is not a whole number"),
        ("instruction_difficulty", "1e200", "row 3, column .*: '1e200' is beyond 1e.06"),
        ("instruction_difficulty", "0.7", "two values of 'instruction_difficulty' for index 2"),
        ("preference", "2", "row 3, column 'preference': '2' is not from 0 to 1"),
    ],
)
def test_a_calibration_with_a_wrong_number_is_refused(lc_files, column, value, said):
    rows = files.read(lc_files["m.parquet"], "preferences")
    path = lc_files["calibration.csv"]
    held = pl.read_csv(path, infer_schema=False)
    held[2, column] = value
    held[0, "preference"] = ""  # rows are counted as in the file, whichever are left out
    held.write_csv(path)
    with pytest.raises(BadInput, match=said):
        inputs(rows, Control("v1", path, lc_files["instructions.csv"]))


def test_an_index_that_the_calibration_lacks_is_refused(lc_files):
    rows = files.read(lc_files["m.parquet"], "preferences")
    path = lc_files["calibration.csv"]
    pl.read_csv(path).filter(pl.col("index") < 5).write_csv(path)
    with pytest.raises(BadInput, match=r"row 6, column 'index': 5 has no difficulty in"):
        inputs(rows, Control("v1", path, lc_files["instructions.csv"]))


def test_a_calibration_without_a_judged_row_is_refused(lc_files):
    rows = files.read(lc_files["m.parquet"], "preferences")
    path = lc_files["calibration.csv"]
    pl.read_csv(path).with_columns(preference=pl.lit("")).write_csv(path)
    with pytest.raises(BadInput, match=r"no row has a 'preference'.* or use --lc noreg"):
        inputs(rows, Control("v1", path, lc_files["difficulty.csv"]))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"input": pl.lit(5)}, "row 1, column 'input': Int32, not text"),
        ({"instruction": pl.lit(None, pl.String)}, "row 1, column 'instruction': None is missing"),
        ({"instruction_difficulty": pl.lit(-1e200)}, "row 1, column .* -1e.200 is beyond 1e.06"),
    ],
)
def test_a_difficulty_file_with_a_wrong_column_is_refused(lc_files, tmp_path, changed, said):
    rows = files.read(lc_files["m.parquet"], "preferences")
    path = tmp_path / "wrong.parquet"
    pl.read_csv(lc_files["difficulty.csv"]).with_columns(**changed).write_parquet(path)
    with pytest.raises(BadInput, match=said):
        inputs(rows, Control("noreg", None, path))


def test_a_file_that_names_no_model_is_called_by_its_own_name(tmp_path, caplog):
    path = tmp_path / "mine.parquet"
    pairs(preference=[2.0, 1.0]).drop("generator_2").write_parquet(path)
    assert tallied([path]).rows["model"].to_list() == ["mine"]


def test_a_baseline_against_itself_is_not_warned_of(tmp_path, caplog):
    path = tmp_path / "b.parquet"
    pairs(preference=[1.0] * 9 + [2.0], generator_2=["b"] * 10).write_parquet(path)
    caplog.set_level("WARNING", "alpacafarm")
    board = tallied([path], Control("minimal", c=1.0)).rows
    assert is_extreme(board["win_rate"][0], board[RATE][0])
    assert caplog.text == ""


def test_a_calibration_out_of_range_is_refused_and_an_empty_one_left_out(lc_files):
    path, rows = lc_files["calibration.csv"], files.read(lc_files["m.parquet"], "preferences")
    control = Control("v1", path, lc_files["difficulty.csv"], 1.0)
    path.write_text(path.read_text().replace("0,0.3,1.0", "0,,1.0"))
    _, calibration = inputs(rows, control)
    assert len(calibration.share) == 14
    path.write_text(path.read_text().replace("0.7", "1.7"))
    with pytest.raises(BadInput, match=r"row 2, column .preference.: .1.7. is not from 0 to 1"):
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
