"""Best over worst: numbers by hand, ties, prompts for testing."""

import polars as pl
import pytest

from alpacafarm_core.artifacts import Ranked, Scores
from alpacafarm_core.errors import BadInput
from alpacafarm_core.opposing import Opposing, opposed
from tests.tiny import frame

ALL = Opposing(held_out=0.0)


def scored(**scores: list[float]) -> pl.DataFrame:
    """Answers a, b, c ... to each prompt, in that order."""
    rows = [
        {"instruction": prompt, "input": "", "output": "abcdef"[at], "score": score,
         "generator": "policy", "tokenizer": "t"}
        for prompt, held in scores.items()
        for at, score in enumerate(held)
    ]  # fmt: skip
    return frame(Scores, rows)


def pairs(rows: pl.DataFrame, opposing: Opposing = ALL) -> list[tuple[str, str, str]]:
    made = opposed(rows, opposing)
    assert dict(made.schema) == Ranked.columns
    return made.select("instruction", "output_1", "output_2").rows()


def test_the_best_of_five_stands_over_the_worst():
    assert pairs(scored(p=[0.1, 0.9, 0.4, -0.2, 0.3])) == [("p", "b", "d")]
    assert opposed(scored(p=[0.1, 0.9, -0.2]), ALL)["gap"].to_list() == pytest.approx([1.1])


def test_of_equal_scores_the_first_answer_counts():
    assert pairs(scored(p=[1.0, 2.0, 2.0, 0.0, 0.0])) == [("p", "b", "d")]


def test_answers_that_all_score_the_same_make_no_pair():
    assert pairs(scored(p=[1.0, 1.0, 1.0], q=[0.0, 1.0])) == [("q", "b", "a")]
    with pytest.raises(BadInput, match="none of 1 prompts in the train part"):
        opposed(scored(p=[1.0, 1.0]), ALL)


def test_a_share_of_the_prompts_is_for_testing_and_is_in_no_other_part():
    rows = scored(**{f"p{number}": [0.0, 1.0] for number in range(2000)})
    split = Opposing()
    train, test = (
        {prompt for prompt, _, _ in pairs(rows, split.replace(part=part))}
        for part in ("train", "test")
    )
    assert not train & test and len(train | test) == 2000
    assert 20 <= len(test) <= 60  # 2 in 100
    assert test != {prompt for prompt, _, _ in pairs(rows, split.replace(part="test", seed=1))}
