"""Pairs of answers by their numbers: places, rejection sampling, and who wins how often."""

from itertools import product
from math import exp
from random import Random

import polars as pl
import pytest
from pydantic import ValidationError

from alpacafarm_core.artifacts import Comparisons, Ranked, Scores
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import digest
from alpacafarm_core.pairs import (
    accepted,
    compared,
    paired,
    probable,
    ranked,
    repeated,
    sampled,
    won,
)
from alpacafarm_core.settings import Ranking, Rejection, Winning
from tests.tiny import frame


def scored(*prompts: dict[str, float]) -> pl.DataFrame:
    """Answers and their scores, prompt by prompt; prompts are called a, b, and so on."""
    return frame(
        Scores,
        [
            {
                **{"instruction": name, "input": "", "dataset": "d", "output": answer},
                **{"output_ids": [ord(answer[0])], "tokenizer": "t", "generator": "g"},
                **{"sample_index": number, "score": score},
            }
            for name, answers in zip("abcdef", prompts, strict=False)
            for number, (answer, score) in enumerate(answers.items())
        ],
    )


def texts(pairs: pl.DataFrame) -> list[tuple[str, ...]]:
    return pairs.select("output_1", "output_2").rows()


FOUR = scored({"r3": 3.0, "r5": 5.0, "r2": 2.0, "r4": 4.0})


@pytest.mark.parametrize(
    ("loser", "expected", "gap"),
    [(-1, ("r5", "r2"), 3.0), (4, ("r5", "r2"), 3.0), (3, ("r5", "r3"), 2.0), (2, ("r5", "r4"), 1)],
)
def test_places_count_from_the_best_and_from_the_end(loser, expected, gap):
    pairs = ranked(FOUR, Ranking(rejected=loser))
    assert texts(pairs) == [expected]
    assert pairs["gap"].to_list() == [gap]
    assert pairs.schema == Ranked.columns


def test_a_pair_keeps_both_answers_tokens_and_is_labelled_for_the_first():
    row = ranked(FOUR, Ranking()).row(0, named=True)
    assert (row["output_1_ids"], row["output_2_ids"]) == ([ord("r")], [ord("r")])
    assert (row["preference"], row["status"], row["gold"], row["win_1"]) == (1.0, "ok", "", None)


def test_several_places_make_several_pairs():
    pairs = ranked(FOUR, Ranking(rejected=(-1, 3, 2)))
    assert texts(pairs) == [("r5", "r2"), ("r5", "r3"), ("r5", "r4")]


def test_a_pair_in_two_places_is_there_once_and_counted():
    rows, places = scored({"x": 3.0, "y": 2.0, "z": 1.0}), Ranking(rejected=(-1, 3, 2))
    assert texts(ranked(rows, places)) == [("x", "z"), ("x", "y")]
    assert repeated(rows, places) == 1
    assert repeated(FOUR, places) == repeated(rows, Ranking()) == repeated(rows, Rejection()) == 0


@pytest.mark.parametrize(
    ("places", "least"),
    [
        (Ranking(), 2),
        (Ranking(rejected=(-1, 3, 2)), 4),
        (Ranking(rejected=(2, 3)), 3),
        (Ranking(rejected=-2), 3),
        (Ranking(gold=1, chosen=2, rejected=-1), 3),
    ],
)
def test_so_many_answers_are_in_different_places(places, least):
    assert places.least == least


def test_the_gold_answer_is_a_third_one():
    pairs = ranked(FOUR, Ranking(gold=1, chosen=2, rejected=-1))
    assert pairs.select("gold", "output_1", "output_2").rows() == [("r5", "r4", "r2")]


def test_a_gold_answer_that_is_one_of_the_pair_leaves_the_prompt_out():
    with pytest.raises(BadInput, match="no prompt of 1 has answers in the places"):
        ranked(scored({"x": 1.0, "y": 2.0}), Ranking(gold=1, chosen=2, rejected=-1))


def test_equal_answers_have_one_place():
    rows = scored({"x": 3.0, "y": 2.0, "z": 1.0})
    again = rows.filter(output="x").with_columns(sample_index=pl.lit(3, dtype=pl.Int64))
    assert texts(ranked(pl.concat([rows, again]), Ranking(rejected=2))) == [("x", "y")]


def test_ties_are_in_the_order_of_a_hash_and_make_no_pair():
    rows = scored({"x": 1.0, "y": 1.0, "z": 0.0})
    first, second = sorted(["x", "y"], key=digest)
    assert texts(ranked(rows, Ranking())) == [(first, "z")]
    assert texts(ranked(rows, Ranking(chosen=2))) == [(second, "z")]
    with pytest.raises(BadInput, match="different numbers"):
        ranked(rows, Ranking(rejected=2))


def test_the_order_of_the_rows_changes_no_pair():
    rows = scored({"x": 1.0, "y": 1.0, "z": 0.0}, {"u": 0.1, "v": 0.2, "w": 0.3})
    for seed in range(5):
        shuffled = rows.sample(fraction=1.0, shuffle=True, seed=seed)
        rejections = (Rejection(keep=2), Rejection(), Rejection(copies=False))
        for ranking in (Ranking(), Ranking(rejected=2, chosen=-1), *rejections):
            try:
                expected = paired(rows, ranking).sort("instruction")
            except BadInput:
                continue
            assert paired(shuffled, ranking).sort("instruction").equals(expected)
        assert texts(won(compared(shuffled), Winning()).sort("instruction")) == texts(
            won(compared(rows), Winning()).sort("instruction")
        )


@pytest.mark.parametrize("places", [{"chosen": 0}, {"rejected": 1}, {"rejected": (2, 2)}])
def test_places_that_make_no_sense_are_refused(places):
    with pytest.raises(ValidationError, match="places differ and count from 1"):
        Ranking(**places)


def test_of_two_answers_with_rewards_0_and_1_as_many_are_accepted_as_the_optimal_policy_gives():
    scores = [0.0, 1.0] * 20_000
    kept = accepted(scores, Rejection(keep=20_000, beta=1.0), Random(0))
    better = sum(scores[at] for at in kept) / len(kept)
    assert better == pytest.approx(exp(1) / (1 + exp(1)), abs=0.01)  # 0.7311


def drawn_often(*answers: str, prompts: int = 1500) -> pl.DataFrame:
    """Eight answers of these to each of many prompts, drawn evenly; the last one has reward 1."""
    coins, columns = Random(1), list(Scores.columns)
    rows = [
        {"instruction": str(prompt), "sample_index": number, "output": coins.choice(answers)}
        for prompt in range(prompts)
        for number in range(8)
    ]
    made = frame(Scores, [{"input": "", **row} for row in rows])
    worth = pl.when(pl.col("output") == answers[-1]).then(1.0).otherwise(0.0)
    return made.with_columns(score=worth).select(columns)


def kept_of(rows: pl.DataFrame, rejection: Rejection) -> list[str]:
    """Answers that came to be in a pair, and the ones paired with their like, in no order."""
    numbered = rows.with_columns(score=pl.col("score") + 1e-9 * pl.col("sample_index"))
    return [text for pair in texts(sampled(numbered, rejection)) for text in pair]


@pytest.mark.parametrize("answers", [("x", "y"), ("y", "x")])
def test_pairs_are_distributed_as_the_optimal_policy_whatever_the_answers_are_called(answers):
    kept = kept_of(drawn_often(*answers), Rejection(keep=2, beta=1.0))
    assert len(kept) == 2 * 1500
    assert kept.count(answers[-1]) / len(kept) == pytest.approx(exp(1) / (1 + exp(1)), abs=0.02)


def test_a_text_has_another_place_in_every_prompt_and_with_every_seed():
    rows = scored(*[{name: float(n) for n, name in enumerate("pqrstu")}] * 6)
    flat = Rejection(keep=2, beta=1e9)
    assert len(set(texts(sampled(rows, flat)))) > 3
    assert texts(sampled(rows, flat)) != texts(sampled(rows, flat.replace(seed=1)))


def test_without_copies_an_answer_is_kept_once():
    kept = kept_of(drawn_often("x", "y", prompts=20), Rejection(keep=8, copies=False))
    assert kept.count("x") == kept.count("y") == 20


def test_the_best_is_always_accepted_and_none_twice():
    for seed in range(20):
        kept = accepted([0.0, 5.0, 1.0, 2.0], Rejection(keep=3, beta=0.1), Random(seed))
        assert kept[0] == 1 and len(set(kept)) == 3
    assert sorted(accepted([0.0, 5.0], Rejection(keep=8), Random(0))) == [0, 1]


def test_accepted_answers_are_paired_as_they_come_with_the_better_one_first():
    rows = scored({name: float(number) for number, name in enumerate("pqrstu")})
    pairs = sampled(rows, Rejection(keep=4, beta=1e9))
    assert pairs.height == 2 and (pairs["gap"] > 0).all()
    drawn = {tuple(texts(sampled(rows, Rejection(keep=4, beta=2, seed=n)))) for n in range(5)}
    assert len(drawn) > 1


def test_accepted_answers_without_a_gap_are_refused():
    with pytest.raises(BadInput, match="no two accepted answers of 1 prompts differ"):
        sampled(scored({"x": 1.0, "y": 1.0}), Rejection())


def matrix(*rows: tuple[float, ...]) -> pl.DataFrame:
    """Comparisons of one prompt's answers, called by their numbers."""
    k = range(len(rows))
    return frame(
        Comparisons,
        [
            {
                **{"instruction": "a", "input": "", "output": str(i), "sample_index": i},
                **{"index": i, "rival": j, "logit": float(rows[i][j])},
            }
            for i, j in product(k, k)
        ],
    )


def wins(comparisons: pl.DataFrame, **how: str) -> dict[str, float]:
    """How probably the best and the worst answer win, by their text."""
    (row,) = won(comparisons, Winning(**how)).rows(named=True)
    return {row["output_1"]: row["win_1"], row["output_2"]: row["win_2"]}


THREE = matrix((0, 1, 2), (-0.8, 0, 0.5), (-2.2, -0.3, 0))
FIVE = compared(scored({"p": 1.0, "q": 0.2, "r": -0.5, "s": 0.7, "t": -1.4}))


def test_every_answer_is_compared_with_every_answer_by_the_difference_of_scores():
    rows = compared(scored({"x": 1.0, "y": 3.0}))
    assert rows.select("output", "rival", "logit").rows() == [
        ("x", 0, 0.0),
        ("x", 1, -2.0),
        ("y", 0, 2.0),
        ("y", 1, 0.0),
    ]
    assert rows.schema == Comparisons.columns


def test_win_probabilities_of_a_matrix_by_hand():
    assert wins(THREE) == pytest.approx({"0": 0.795559, "2": 0.244511}, abs=5e-7)
    pairwise = wins(THREE, probability="pairwise")
    assert pairwise == pytest.approx({"0": 0.700618, "2": 0.336803}, abs=5e-7)
    assert won(THREE, Winning())["gap"].to_list() == pytest.approx([2 + 5 / 3])


@pytest.mark.parametrize(
    ("comparisons", "probability", "expected"),
    [
        (THREE, "aggregated", [0.795559, 0.459930, 0.244511]),
        (THREE, "pairwise", [0.700618, 0.462579, 0.336803]),
        (FIVE, "aggregated", [0.784417, 0.539988, 0.337313, 0.697491, 0.140791]),
        (FIVE, "pairwise", [0.699764, 0.537554, 0.391332, 0.641489, 0.229860]),
    ],
)
def test_all_answers_together_win_half_of_the_time(comparisons, probability, expected):
    told = probable(comparisons, Winning(probability=probability))
    found = told.unique("index", maintain_order=True)["win"].to_list()
    assert found == pytest.approx(expected, abs=5e-7)
    assert sum(found) == pytest.approx(len(expected) / 2)


def test_win_probabilities_of_five_answers_with_a_score_each():
    assert wins(FIVE) == pytest.approx({"p": 0.784417, "t": 0.140791}, abs=5e-7)
    pairwise = wins(FIVE, probability="pairwise")
    assert pairwise == pytest.approx({"p": 0.699764, "t": 0.229860}, abs=5e-7)


@pytest.mark.parametrize("probability", ["aggregated", "pairwise"])
def test_wins_lie_half_a_comparison_from_none_and_all(probability):
    told = wins(
        compared(scored({name: 50.0 * n for n, name in enumerate("pqrst")})),
        probability=probability,
    )
    assert told == pytest.approx({"t": 0.9, "p": 0.1})
    two = wins(compared(scored({"x": 0.3, "y": 0.0})), probability=probability)
    assert sum(two.values()) == pytest.approx(1.0)  # K / 2


def test_aggregation_counts_points_so_who_beats_all_others_may_come_second():
    b_wins = matrix((0, 0.4, 0.4), (-0.4, 0, 6), (-0.4, -6, 0))
    assert list(wins(b_wins)) == ["1", "2"]
    assert won(b_wins, Winning())["gap"].to_list() == pytest.approx([3.7333333 + 4.2666667])


def test_against_its_rival_alone_an_answer_wins_with_the_probability_of_that_pair():
    sharp = 1 / (1 + exp(-2 * 2.4))
    assert wins(FIVE, against="rival") == pytest.approx({"p": sharp, "t": 1 - sharp})
    true = 1 / (1 + exp(-2.4))
    pair = wins(FIVE, against="rival", probability="pairwise")
    assert pair == pytest.approx({"p": true, "t": 1 - true})


def test_answers_that_are_all_tied_make_no_pair():
    with pytest.raises(BadInput, match="none of 1 prompts differ"):
        won(compared(scored({"x": 1.0, "y": 1.0})), Winning())


def test_comparisons_and_scores_are_not_mistaken_for_each_other():
    with pytest.raises(BadInput, match="answers by winning need comparisons"):
        paired(FOUR, Winning())
    with pytest.raises(BadInput, match="answers by ranking need scores"):
        paired(FIVE, Ranking())
