"""Clusters of answers that say the same, and the pairs that agreement makes of them."""

import time
from itertools import pairwise, permutations

import polars as pl
import pytest

import tasks
from alpacafarm_core.agreeing import acceptance, agreed, sides
from alpacafarm_core.artifacts import Clusters, Ranked, Scores
from alpacafarm_core.clustering import (
    Agreement,
    Canonical,
    Exact,
    Overlap,
    asking,
    clustered,
    grouping,
    in_step,
    normal,
    overlap,
)
from alpacafarm_core.errors import BadInput
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.store import Made
from alpacafarm_core.world.meaning import meaning
from tests.paper_farm import numbered
from tests.tiny import frame


def scored(*prompts: str, dataset: str = "d") -> pl.DataFrame:
    """Answers of one letter, prompt by prompt; the n-th answer to a prompt scores n."""
    return frame(
        Scores,
        [
            {
                **{"instruction": name, "input": "", "dataset": dataset, "output": answer},
                **{"output_ids": [ord(answer[0])], "tokenizer": "t", "generator": "g"},
                **{"sample_index": number, "score": float(number)},
            }
            for name, answers in zip("abcdef", prompts, strict=False)
            for number, answer in enumerate(answers.split())
        ],
    )


def exactly(*prompts: str) -> pl.DataFrame:
    return clustered(scored(*prompts), asking(Exact()))


def groups(answers: str, equal) -> list[int]:
    """The clusters that the greedy rule finds where `equal` says of two letters."""
    (found,) = in_step([grouping(list(answers))], lambda asked: [equal(*two) for _, two in asked])
    return found


WORKED = "A A A B B C A A D B"


def test_answers_join_the_first_cluster_whose_first_member_they_equal():
    rows = exactly(WORKED)
    assert rows["cluster"].to_list() == [0, 0, 0, 1, 1, 2, 0, 0, 3, 1]
    assert rows["confidence"].to_list() == [0.5] * 10
    assert rows.schema == Clusters.columns


def test_each_prompt_has_clusters_of_its_own_and_rows_keep_their_order():
    rows = exactly("A B A", "B B A")
    mixed = rows.sort("output", maintain_order=True).select(list(Scores.columns))
    again = clustered(mixed, asking(Exact()))
    assert rows["cluster"].to_list() == [0, 1, 0, 0, 0, 1]
    assert again.sort("instruction", "sample_index").equals(rows)
    assert again["output"].to_list() == mixed["output"].to_list()


def test_for_an_equivalence_the_order_of_the_answers_changes_no_partition():
    def parts(answers):
        found = groups(answers, lambda one, two: one.lower() == two.lower())
        placed = list(zip(found, answers, strict=True))
        return {frozenset(each for at, each in placed if at == group) for group in found}

    assert len({frozenset(parts("".join(order))) for order in permutations("AaBbC")}) == 1


def test_where_equality_does_not_carry_over_the_first_member_decides():
    alike = {frozenset("AB"), frozenset("BC")}
    assert groups("ABC", lambda *two: frozenset(two) in alike) == [0, 0, 1]
    assert groups("BAC", lambda *two: frozenset(two) in alike) == [0, 0, 0]


def test_equal_texts_are_asked_about_once_and_open_questions_of_all_prompts_together():
    batches: list[list[str]] = []

    def ask(asked):
        batches.append(["".join((one.first, one.other)) for one in asked])
        return [False for _ in asked]

    clustered(scored("A A B A B C", "X Y"), ask)
    assert batches == [["AB", "XY"], ["AC"], ["BC"]]


def test_texts_are_equal_whatever_their_case_and_marks():
    assert normal("It is  PARIS!\n") == normal("it is, Paris") == "it is paris"
    assert exactly("Paris paris! Rome")["cluster"].to_list() == [0, 0, 1]


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ("The apple is red.", "a RED apple", 1.0),
        ("red apple", "red pear", 1 / 3),
        ("it is", "it was", 1 / 3),
        ("", "!", 1.0),
        ("", "red", 0.0),
    ],
)
def test_overlap_is_of_content_words_and_of_all_where_there_are_no_others(one, other, share):
    assert overlap(one, other) == overlap(other, one) == pytest.approx(share)


def test_a_higher_threshold_of_overlap_splits_what_a_lower_one_joins():
    rows = scored("A B").with_columns(output=pl.Series(["red apple", "red pear"]))
    for threshold, expected in ((0.3, [0, 0]), (0.34, [0, 1])):
        found = clustered(rows, asking(Overlap(threshold=threshold)))
        assert found["cluster"].to_list() == expected


SUM = "What is 7 plus 5?"


def test_in_the_world_answers_are_equal_that_say_the_same_right_or_wrong():
    answers = ["The answer is 12.", "It is 12.", "13.", "The answer is 13.", "Hello there."]
    rows = pl.concat([scored("A")] * len(answers)).with_columns(
        instruction=pl.lit(SUM),
        output=pl.Series(answers),
        sample_index=pl.Series(range(len(answers)), dtype=pl.Int64),
    )
    found = clustered(rows, asking(Canonical()))
    assert found["cluster"].to_list() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("instruction", "given", "one", "other", "same"),
    [
        ("Sort these words.", "cake, bee", "Bee, cake.", "The order is bee, then cake.", True),
        ("Sort these words.", "cake, bee", "bee, cake", "cake, bee", False),
        ("Pick out the foods.", "milk, cat, lime", "Milk and lime.", "lime, milk", True),
        ("Pick out the foods.", "milk, cat, lime", "Milk and lime.", "Milk, lime and cat.", False),
        ("Blorp the fnord.", "", "One way.", "one way", True),
        ("Blorp the fnord.", "", "One way.", "Another way.", False),
    ],
)
def test_order_counts_where_it_was_asked_for_and_words_where_nothing_is_understood(
    instruction, given, one, other, same
):
    meanings = [meaning(instruction, given, output) for output in (one, other)]
    assert (meanings[0] == meanings[1]) == same


def pairs_of(answers: str, **settings) -> list[tuple[str, str, float]]:
    made = agreed(exactly(answers), Agreement(**settings))
    assert made.schema == Ranked.columns
    return made.select("output_1", "output_2", "gap").rows()


def test_what_most_answers_say_wins_over_an_answer_outside():
    drawn = {pair for seed in range(40) for pair in pairs_of(WORKED, seed=seed)}
    assert drawn == {("A", loser, 0.5) for loser in "BCD"}
    assert pairs_of(WORKED, gamma=0.51) == []


def test_the_loser_is_any_sample_outside_so_that_copies_count():
    rows = exactly(WORKED)
    many = [rows.with_columns(instruction=pl.lit(f"prompt {number}")) for number in range(600)]
    drawn = agreed(pl.concat(many), Agreement())["output_2"].to_list()
    shares = {loser: drawn.count(loser) / 600 for loser in "BCD"}
    assert shares == pytest.approx({"B": 0.6, "C": 0.2, "D": 0.2}, abs=0.06)


def test_the_best_by_score_of_the_largest_cluster_is_chosen_or_any_of_it():
    rows = exactly("x X B x B").with_columns(score=pl.Series([1.0, 3.0, 9.0, 2.0, 8.0]))
    assert agreed(rows, Agreement())["output_1"].to_list() == ["X"]
    one_of = [agreed(rows, Agreement(winner="random", seed=seed)) for seed in range(60)]
    drawn = [made["output_1"].item() for made in one_of]
    assert set(drawn) == {"x", "X"} and 30 < drawn.count("x") < 50


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_answers_that_are_all_equal_give_no_pair(gamma):
    assert pairs_of("A A A", gamma=gamma) == []


def test_answers_that_are_all_different_give_one_only_where_little_agreement_will_do():
    assert pairs_of("A B C D", gamma=0.26) == []
    ((chosen, _, share),) = pairs_of("A B C D", gamma=0.25)
    assert (chosen, share) == ("D", 0.25)


def test_of_clusters_of_equal_size_the_higher_mean_score_counts_then_the_first():
    assert sides([0, 1, 0, 1], [1.0, 2.0, 1.0, 0.5]) == ([1, 3], [0, 2])
    assert sides([0, 1, 0, 1], [1.0, 1.0, 1.0, 1.0]) == ([0, 2], [1, 3])


def test_more_agreement_asked_for_keeps_some_of_the_same_pairs():
    rows = exactly("A A A A B", "A A B B C", "A A A B C", "A B C D E", "A A A A A")
    kept = [
        set(
            agreed(rows, Agreement(gamma=gamma))
            .select("instruction", "output_1", "output_2")
            .rows()
        )
        for gamma in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.01)
    ]
    assert [len(each) for each in kept] == [4, 4, 3, 2, 1, 0, 0]
    assert all(more >= less for more, less in pairwise(kept))


def test_pairs_are_told_apart_from_those_of_judges_and_know_no_label_but_the_first():
    made = agreed(exactly(WORKED), Agreement())
    assert made.select("annotator", "preference", "status", "is_noisy").rows() == [
        ("spg", 1.0, "ok", False)
    ]
    assert made["output_1_ids"].to_list() == [[ord("A")]]


def test_the_same_pairs_are_drawn_whatever_the_order_of_rows():
    rows = exactly(WORKED, "A B B")
    turned = rows.sort("output", "instruction", descending=True)
    pairs = [agreed(each, Agreement(gamma=0.1)).sort("instruction") for each in (rows, turned)]
    assert pairs[0].equals(pairs[1])


def test_scores_that_are_no_clusters_are_refused():
    with pytest.raises(BadInput, match="cluster the scored answers first"):
        agreed(scored("A B"), Agreement())


def test_how_many_prompts_gave_a_pair_is_noted_by_dataset():
    rows = [scored("A A B", "A B C"), scored("A A A", "B B A", dataset="e")]
    rows[1] = rows[1].with_columns(instruction=pl.col("instruction") + "e")
    clusters = clustered(pl.concat(rows), asking(Exact()))
    noted = acceptance(clusters, agreed(clusters, Agreement()))
    assert noted == {
        "accepted": {"d": 0.5, "e": 0.5},
        "agreement": {"d": 0.5, "e": pytest.approx(5 / 6)},
    }


def test_the_stages_from_scores_to_pairs(store):
    answered = Scores(key=numbered(0xC1))
    rows = scored(WORKED, "A B C")
    store.write(answered, Made(rows), Recipe.of("made", 1, {}), time.time())
    clusters = tasks.cluster(answered, Exact())
    pairs = tasks.rank(clusters, Agreement())
    assert store.read(clusters).equals(clustered(rows, asking(Exact())))
    assert store.read(pairs)["output_1"].to_list() == ["A"]
    assert store.manifest(pairs).notes["accepted"] == {"d": 0.5}
    both = tasks.unite((pairs, pairs))
    assert store.read(both).height == 1
    assert store.read(tasks.rank(clusters, Agreement(gamma=2.0))).is_empty()
