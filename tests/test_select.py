"""Selection by rule, and pairs of known order."""

from random import Random

import polars as pl
import pytest

from alpacafarm_core.artifacts import Candidates, Demonstrations, Instructions, Preferences
from alpacafarm_core.errors import BadInput, TrainingFailed
from alpacafarm_core.select import finite, prefer, prefer_in_parts, select, shared, united
from alpacafarm_core.settings import Rule


def table(kind, **columns):
    """Rows of a kind with everything not given left empty."""
    height = max(len(held) for held in columns.values())
    rows = {n: columns.get(n, [None] * height) for n in kind.columns}
    return pl.DataFrame(rows, schema=kind.columns, strict=False)


PAIRS = table(
    Preferences,
    instruction=["a", "b", "c", "d"],
    input=[""] * 4,
    output_1=["a1", "b1", "c1", "d1"],
    output_2=["a2", "b2", "c2", "d2"],
    output_1_ids=[[1]] * 4,
    output_2_ids=[[2]] * 4,
    preference=[1.0, 2.0, 1.5, None],
)


def test_chosen_keeps_the_preferred_answer_with_its_tokens_and_drops_ties():
    kept = select(PAIRS, Rule(keep="chosen"))
    assert kept["output"].to_list() == ["a1", "b2"]
    assert kept["output_ids"].to_list() == [[1], [2]]
    assert kept.columns == list(Demonstrations.columns)


def test_best_keeps_the_top_score_and_the_earlier_of_equals():
    scored = table(
        Candidates,
        instruction=["a", "a", "b", "b"],
        input=[""] * 4,
        output=["x", "y", "z", "w"],
    ).with_columns(score=pl.Series([0.1, 0.9, 0.5, 0.5]))
    kept = select(scored, Rule(keep="best")).sort("instruction")
    assert kept["output"].to_list() == ["y", "z"]


def test_nothing_left_is_refused():
    with pytest.raises(BadInput, match="keeps none of 1 rows"):
        select(PAIRS.slice(2, 1), Rule(keep="chosen"))


def test_shares_have_all_prompts_and_none_in_common_and_keep_a_prompt_whole():
    prompts = table(Instructions, instruction=[*"abcadeb"], input=[""] * 7)
    shares = [shared(prompts, number, 2)["instruction"].to_list() for number in (1, 2)]
    assert shares == [["a", "c", "a", "e"], ["b", "d", "b"]]
    assert shared(prompts, 1, 1).equals(prompts)


@pytest.mark.parametrize("number", [0, 3])
def test_a_share_that_is_not_there_is_refused(number):
    prompts = table(Instructions, instruction=["a", "b"], input=["", ""])
    with pytest.raises(BadInput, match=f"no share {number} of 2"):
        shared(prompts, number, 2)


@pytest.mark.parametrize("number", [1, 2])
def test_more_shares_than_prompts_are_refused_from_the_first_on(number):
    prompts = table(Instructions, instruction=["a", "a"], input=["", ""])
    with pytest.raises(BadInput, match="2 shares of 1 different prompts"):
        shared(prompts, number, 2)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
def test_a_score_that_is_no_finite_number_is_refused_with_row_and_judge(score):
    parts = [pl.DataFrame({"score": each}) for each in ([1.0, 2.0], [3.0, score, 4.0])]
    assert [rows.height for rows in finite(parts[:1], "judge/a")] == [2]
    with pytest.raises(TrainingFailed, match="row 3: judge/a gives the score"):
        list(finite(parts, "judge/a"))


def test_prefer_puts_the_demonstration_first_and_keeps_tokens_of_one_tokenizer():
    gold = table(
        Demonstrations,
        instruction=["a", "z"],
        input=["", ""],
        output=["gold", "none"],
        output_ids=[[7], []],
        tokenizer=["t", ""],
    )
    own = table(
        Candidates,
        instruction=["a", "a"],
        input=["", ""],
        output=["x", "y"],
        output_ids=[[1], [2]],
        tokenizer=["t", "other"],
    )
    pairs = prefer(gold, own)
    assert pairs.select("output_1", "output_2").rows() == [("gold", "x"), ("gold", "y")]
    assert pairs["output_1_ids"].to_list() == [[7], []]
    assert pairs["output_2_ids"].to_list() == [[1], []]
    with pytest.raises(BadInput, match="no prompt is in both"):
        prefer(gold.slice(1, 1), own)


def test_pairs_made_in_parts_are_those_made_at_once_in_the_same_order():
    random = Random(0)
    asked, answered = ([random.randrange(30) for _ in range(90)] for _ in range(2))
    gold = table(
        Demonstrations,
        instruction=[f"p{number}" for number in asked],
        input=["", "x"] * 45,
        output=[f"gold {row}" for row in range(90)],
        output_ids=[[row] for row in range(90)],
        tokenizer=["t", "t", "other"] * 30,
    )
    own = table(
        Candidates,
        instruction=[f"p{number}" for number in answered],
        input=["x", ""] * 45,
        output=[f"own {row}" for row in range(90)],
        output_ids=[[row, row] for row in range(90)],
        tokenizer=["t"] * 90,
    )
    whole = prefer(gold, own)
    for part in (1, 7, 1000):
        parts = list(prefer_in_parts(gold.lazy(), own.lazy(), part))
        assert pl.concat(parts).equals(whole)
        assert (len(parts) == 1) == (part == 1000)


def test_parts_of_nothing_are_refused_too():
    gold = table(Demonstrations, instruction=["a"], input=[""], output=["gold"])
    own = table(Candidates, instruction=["b"], input=[""], output=["x"])
    with pytest.raises(BadInput, match="no prompt is in both"):
        list(prefer_in_parts(gold.lazy(), own.lazy()))


def labelled(names: str, tokenizer: str = "t", annotator: str = "judge") -> pl.DataFrame:
    """A pair for each letter, its first output preferred."""
    filled = {"input": "", "annotator": annotator, "tokenizer": tokenizer, "preference": 1.0}
    return table(
        Preferences,
        instruction=[*names],
        output_1=[name.upper() for name in names],
        output_2=["worse"] * len(names),
        **{name: [held] * len(names) for name, held in filled.items()},
    )


def test_united_tables_are_one_below_the_other_and_no_label_is_there_twice():
    one, two = labelled("ab"), labelled("bc")
    rows = united([one, two])
    assert rows["instruction"].to_list() == ["a", "b", "c"]
    assert united([one, one]).equals(united([one, one.clear()])) and united([one]).equals(one)


def test_rows_of_one_table_all_stay_and_another_annotators_label_is_another():
    twice = labelled("aa")
    assert united([twice, labelled("a")]).equals(twice)
    assert united([twice, labelled("a", annotator="spg")]).height == 3


def test_pairs_without_a_label_are_the_same_too():
    undecided = labelled("a").with_columns(preference=pl.lit(None, dtype=pl.Float64))
    assert united([undecided, undecided]).height == 1
    assert united([undecided, labelled("a")]).height == 2


def test_ids_of_two_tokenizers_are_refused_and_texts_without_ids_are_not():
    with pytest.raises(BadInput, match="different tokenizers, t and u, cannot be united"):
        united([labelled("a"), labelled("b", tokenizer="u")])
    assert united([labelled("a"), labelled("b", tokenizer="")]).height == 2
