"""Win rates by hand, and those that AlpacaEval published."""

import os
from math import sqrt
from pathlib import Path
from random import Random

import polars as pl
import pytest

from alpacafarm_core.artifacts import Leaderboard
from alpacafarm_core.errors import BadInput
from alpacafarm_core.tally import (
    CSV_COLUMNS,
    avg_length,
    board,
    by_source,
    paired,
    points,
    reference_digests,
    tally_file,
    tally_models,
    win_rate,
)
from flows.racing import over_seeds
from flows.tallying import tallied
from tasks.tally import charted

SHARED = Path(os.environ.get("ALPACAFARM_SHARED") or Path(__file__).parents[2] / "shared")


def judged(*preferences: float | None, output: str = "abc") -> pl.DataFrame:
    """Preferences for prompts a, b, c, ... at one US cent each."""
    prompts = [chr(ord("a") + i) for i in range(len(preferences))]
    return pl.DataFrame(
        {"instruction": prompts, "preference": preferences},
        schema={"instruction": pl.String, "preference": pl.Float64},
    ).with_columns(input=pl.lit(""), output_2=pl.lit(output), price=pl.lit(0.01))


def scored(*scores: float) -> pl.DataFrame:
    """A score for prompts a, b, c, ..."""
    return judged(*scores).select("instruction", "input", score="preference")


def test_wins_losses_and_a_tie_by_hand():
    found = win_rate([2, 2, 1, 1.5])
    assert found.win_rate == 62.5
    assert (found.n_wins, found.n_wins_base, found.n_draws, found.n_total) == (2, 1, 1, 4)
    assert found.discrete_win_rate == 62.5
    deviations = [37.5, 37.5, -62.5, -12.5]
    assert found.standard_error == pytest.approx(sqrt(sum(d * d for d in deviations) / 3 / 4))


def test_a_zero_is_an_old_tie():
    assert win_rate([2, 0]) == win_rate([2, 1.5])


def test_graded_preferences_move_the_win_rate_but_count_as_whole_wins():
    found = win_rate([1.25, 1.75, 1.75])
    assert found.win_rate == pytest.approx(100 * (0.25 + 0.75 + 0.75) / 3)
    assert found.discrete_win_rate == pytest.approx(200 / 3)


def test_missing_and_invalid_preferences_do_not_count():
    assert win_rate([2, None, -1, 3, 0.5, float("nan"), 1]) == win_rate([2, 1])


def test_no_valid_row_has_no_rate_and_one_row_no_error():
    assert win_rate([None]) == (None, None, 0, 0, 0, 0, None)
    assert win_rate([2]) == (100, None, 1, 0, 0, 1, 100)


def test_a_series_and_a_list_agree():
    assert win_rate(pl.Series([1, 2, 2])) == win_rate([1, 2, 2])


def test_length_counts_characters_not_bytes_and_is_truncated():
    assert avg_length(pl.Series(["é🙂", "abcd", "abc", "ab"])) == 2
    assert avg_length(pl.Series([], dtype=pl.String)) is None


def test_paired_difference_joins_on_the_prompt():
    a, b = points(judged(2, 1, 2)), points(judged(1, 1, 2, 2).reverse())
    found = paired(a, b, "points")
    assert found.n == 3
    assert found.difference == pytest.approx(100 / 3)
    assert found.standard_error == pytest.approx(100 / 3)


def test_paired_difference_tells_inputs_of_one_instruction_apart():
    a = judged(2, 1).with_columns(instruction=pl.lit("same"), input=pl.Series(["x", "y"]))
    assert paired(points(a), points(a.reverse()), "points").difference == 0


def test_several_rows_of_one_prompt_count_as_one():
    twice = pl.concat([points(judged(2)), points(judged(1))])
    assert paired(twice, points(judged(1)), "points") == (50.0, None, 1)


def test_the_board_measures_against_sft_and_puts_the_best_first():
    rows = board({"sft": (judged(1, 2), scored(0, 1)), "ppo": (judged(2, None), scored(2, 1))})
    assert rows.schema == pl.Schema(Leaderboard.columns)
    ppo, sft = rows.to_dicts()
    assert (ppo["model"], ppo["win_rate"], ppo["coverage"]) == ("ppo", 100, 50)
    assert ppo["win_rate_minus_sft"] == 100
    assert (ppo["utility"], ppo["utility_minus_sft"], ppo["utility_paired_error"]) == (1.5, 1, 1)
    assert ppo["price"] == pytest.approx(0.02)
    assert sft["win_rate_minus_sft"] is None
    assert sft["utility_minus_sft"] is None


def test_the_board_needs_neither_sft_nor_utility():
    (row,) = board({"dpo": (judged(2, 1), None)}).to_dicts()
    assert row["win_rate"] == 50
    assert row["win_rate_minus_sft"] is None
    assert row["utility"] is None


def test_a_board_of_tables_on_disk_is_that_of_frames_to_the_last_digit(tmp_path):
    random, entries, scanned = Random(0), {}, {}
    for model in ("sft", "ppo"):
        rows = pl.concat(
            [judged(*(1 + random.random() for _ in range(20)), output="ab" * n) for n in range(40)]
        ).with_columns(
            instruction=pl.Series([f"prompt {random.randrange(300)}" for _ in range(800)]),
            price=pl.Series([random.random() for _ in range(800)]),
        )
        scores = rows.select("instruction", "input", score="price")
        entries[model], folder = (rows, scores), tmp_path / model
        folder.mkdir()
        rows.write_parquet(folder / "rows", row_group_size=100)
        scores.write_parquet(folder / "scores", row_group_size=100)
        scanned[model] = (pl.scan_parquet(folder / "rows"), pl.scan_parquet(folder / "scores"))
    read = {model: tuple(side.collect() for side in sides) for model, sides in scanned.items()}
    assert board(scanned).equals(board(read))
    (ppo,) = board(entries).filter(pl.col("model") == "ppo").to_dicts()
    ahead = paired(points(entries["ppo"][0]), points(entries["sft"][0]), "points")
    found = (ppo["win_rate_minus_sft"], ppo["paired_error"])
    assert found == pytest.approx(ahead[:2], rel=1e-12)
    rate = win_rate(entries["ppo"][0]["preference"]).win_rate
    assert ppo["win_rate"] == pytest.approx(rate, rel=1e-12)
    assert ppo["avg_length"] == avg_length(entries["ppo"][0]["output_2"]) == 39


def test_models_without_a_judgement_come_last():
    rows = board({"mute": (judged(None), None), "dpo": (judged(1), None)})
    assert rows["model"].to_list() == ["dpo", "mute"]


def test_a_file_of_pairs_names_models_by_generator():
    pairs = judged(2, 1).with_columns(generator_2=pl.Series(["x", "y"]))
    rows = tally_file(pairs)
    assert rows.columns == CSV_COLUMNS
    assert rows["model"].to_list() == ["x", "y"]


def against(model: str, *references: str) -> pl.DataFrame:
    """Rows of a model that won against references for the prompts a, b, c, ..."""
    rows = judged(*[2.0] * len(references))
    return rows.with_columns(
        generator_2=pl.lit(model), output_1=pl.Series(references), dataset=pl.lit("koala")
    )


def test_coverage_is_the_share_of_rows_with_a_judgement():
    rows = judged(2, None, -1, 0).with_columns(generator_2=pl.lit("x"))
    assert tally_models(rows).select("n_total", "coverage").row(0) == (2, 50.0)


def test_sources_are_counted_apart():
    rows = against("x", "r", "s", "t").with_columns(
        dataset=pl.Series(["koala", "vicuna", ""]), preference=pl.Series([2.0, 1.0, 1.0])
    )
    found = by_source(rows).select("model", "dataset", "win_rate", "n_total").rows()
    assert found == [("x", "koala", 100, 1), ("x", "vicuna", 0, 1)]


def test_models_judged_against_the_same_references_share_a_digest():
    rows = pl.concat([against("x", "r", "s"), against("y", "r", "s").reverse()])
    found = reference_digests(rows)
    assert found["x"] == found["y"] != reference_digests(against("x", "r", "t"))["x"]


def test_a_merged_input_is_the_same_prompt():
    ours = against("x", "r").with_columns(input=pl.lit("i"))
    merged = against("y", "other").with_columns(instruction=pl.lit("a\n\ni"))
    with pytest.raises(BadInput):
        reference_digests(pl.concat([ours, merged]))


def test_a_model_judged_against_other_references_is_refused():
    rows = [against("x", "r", "s"), against("y", "r", "s"), against("odd", "r", "other")]
    with pytest.raises(BadInput, match=r"'odd' .* than 'x' .* the output_1 of 1 prompts differ"):
        reference_digests(pl.concat(rows))


def test_a_model_with_two_references_for_a_prompt_is_refused():
    with pytest.raises(BadInput, match="'x' was judged against more than one output_1 on 1 of"):
        reference_digests(pl.concat([against("x", "r", "s"), against("x", "t").head(1)]))


def test_a_board_has_one_writer_of_references():
    rows = pl.concat([against("x", "r"), against("y", "r")])
    rows = rows.with_columns(generator_1=pl.Series(["davinci", "gpt4"]))
    with pytest.raises(BadInput, match="'x' was judged against 'davinci' and 'y' against 'gpt4'"):
        reference_digests(rows)


def test_a_copy_of_a_row_adds_no_knowledge_and_is_refused():
    rows = against("x", "r", "s").with_columns(output_2=pl.lit("t"), annotator=pl.lit("one"))
    other = rows.with_columns(annotator=pl.lit("two"))
    assert reference_digests(pl.concat([rows, other])) == reference_digests(rows)
    with pytest.raises(BadInput, match="rows 2 and 3 of model 'x' are the same pair"):
        reference_digests(pl.concat([rows, rows.tail(1)]))


def test_prompts_that_only_one_model_has_are_no_difference():
    digests = reference_digests(pl.concat([against("x", "r", "s"), against("y", "r")]))
    assert len(set(digests.values())) == 2


def test_an_error_over_seeds_needs_one_of_every_seed():
    rows = {"model": ["sft", "sft"], "win_rate": [40.0, 50.0], "n_wins": [4, 5]}
    first = pl.DataFrame({**rows, "paired_error": [3.0, 4.0], "utility_paired_error": [1.0, None]})
    (row,) = over_seeds([first[:1], first[1:]]).to_dicts()
    assert row == {"model": "sft", "win_rate": 45.0, "n_wins": 9, "paired_error": 2.5,
                   "utility_paired_error": None}  # fmt: skip


def test_a_model_in_two_files_is_refused(tmp_path):
    for name in ("a", "b"):
        pl.DataFrame(
            {"instruction": ["i"], "output_1": ["x"], "output_2": ["y"], "preference": [2.0],
             "generator_2": ["same"]}
        ).write_parquet(tmp_path / f"{name}.parquet")  # fmt: skip
    with pytest.raises(BadInput, match=r"model 'same' stands in .*a.parquet and .*b.parquet"):
        tallied([tmp_path / "a.parquet", tmp_path / "b.parquet"])


def test_files_are_tallied_together_with_the_digest_of_their_reference(tmp_path):
    for model in ("a", "b"):
        against(model, "r", "s").write_parquet(tmp_path / f"{model}.parquet")
    found = tallied([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert found.rows["reference"].n_unique() == 1
    assert found.published().columns == CSV_COLUMNS
    assert found.sources.select("model", "dataset").rows() == [("a", "koala"), ("b", "koala")]


def test_a_chart_has_a_bar_for_every_model_that_was_judged():
    rows = [{"model": "sft", "win_rate": 45.36}, {"model": "none", "win_rate": None}]
    drawn = charted(rows)
    assert '  x-axis ["sft"]' in drawn and "  bar [45.4]" in drawn


def test_published_leaderboards_are_reproduced():
    if not (SHARED / "data").is_dir():
        pytest.skip("no shared/data beside the project and ALPACAFARM_SHARED not set")
    published = pl.read_csv(SHARED / "data" / "published_leaderboard.csv").sort("model")
    ours = tally_file(pl.read_parquet(SHARED / "data" / "gpt4_judged_pairs.parquet")).sort("model")
    exact = ["model", "n_wins", "n_wins_base", "n_draws", "n_total", "avg_length"]
    assert ours.select(exact).rows() == published.select(exact).rows()
    for name in ("win_rate", "standard_error", "discrete_win_rate"):
        assert ours[name].to_list() == pytest.approx(published[name].to_list(), abs=1e-9)
