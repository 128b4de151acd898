"""The built-in world: its facts, instructions, utility and writers."""

from collections import Counter
from random import Random
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpacafarm_core.world.asking import FAMILIES
from alpacafarm_core.world.facts import TABLES, categories, column, phrases, things, worded
from alpacafarm_core.world.instructions import SOURCES, SPLITS, draw, instructions, split_of
from alpacafarm_core.world.reading import WORD, lexicon
from alpacafarm_core.world.tasks import WISHES, Question
from alpacafarm_core.world.understanding import understand
from alpacafarm_core.world.utility import NOTHING, Terms, terms, total, utility
from alpacafarm_core.world.writers import (
    DEMONSTRATOR_SKILL,
    REFERENCE_SKILL,
    STRONG_SKILL,
    WEAK_SKILL,
    write,
)

LIST = "List two birds."
GOOD = "Two birds are the owl and the hen. The owl eats meat. The hen lives on a farm."
TEXT = (
    "Anna is a nurse in Rome. She likes tennis and buys tea on Monday. "
    "Tom is a vet in Oslo. He likes rowing and buys milk on Friday."
)


def average(skill: float, size: int = 300) -> float:
    """Mean utility of a writer on validation instructions."""
    rows = instructions("val", size, seed=1)
    return mean(utility(i, x, write(i, x, skill, 1)) for i, x in texts(rows))


def texts(rows: list[dict[str, str]]) -> list[tuple[str, str]]:
    """Instruction and input of each row."""
    return [(row["instruction"], row["input"]) for row in rows]


# facts


def test_every_thing_has_a_value_for_every_phrase_of_its_table():
    for table in TABLES:
        for thing in things(table).values():
            assert set(thing.facts) == set(phrases(table))
            assert all(thing.facts.values())


def test_a_phrase_takes_the_preposition_of_its_place_and_the_article_of_its_word():
    assert worded("lives {}", "farm") == "lives on a farm"
    assert worded("is a {}", "insect") == "is an insect"


def test_categories_are_unique_and_have_members():
    names = [category.among for category in categories()]
    assert len(names) == len(set(names))
    assert all(len(category.members) >= 3 for category in categories())


def test_the_world_has_fewer_than_a_thousand_words():
    assert len(lexicon()) < 1000


# instructions


@pytest.mark.parametrize("size", [0, 1, 7, 805])
def test_a_split_has_the_size_asked_for_and_no_row_twice(size):
    rows = instructions("eval", size)
    assert len(rows) == len(set(texts(rows))) == size


def test_the_805_come_from_the_sources_of_the_805():
    assert Counter(row["dataset"] for row in instructions("eval", 805)) == SOURCES


def test_about_a_quarter_has_an_input_and_only_selfinstruct_does():
    rows = instructions("preference", 2000)
    with_input = [row for row in rows if row["input"]]
    assert 0.2 < len(with_input) / len(rows) < 0.3
    assert {row["dataset"] for row in with_input} == {"selfinstruct"}


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    assert instructions("sft", 50, seed=3) == instructions("sft", 50, seed=3)
    assert instructions("sft", 50, seed=3) != instructions("sft", 50, seed=4)


def test_a_smaller_split_is_the_beginning_of_a_larger_one():
    assert instructions("sft", 200)[:60] == instructions("sft", 60)


def test_splits_are_disjoint_by_content_whatever_the_seed():
    contents = {
        split: {_content(row) for seed in (0, 1) for row in instructions(split, 600, seed)}
        for split in SPLITS
    }
    for one in SPLITS:
        for other in SPLITS:
            assert one == other or not contents[one] & contents[other]


def _content(row: dict[str, str]) -> tuple[str, str, str, str]:
    """What a row asks: family, wish, input, and the gaps that its phrasing fills in."""
    task = understand(row["instruction"], row["input"])
    assert task is not None
    return task.family, task.wish, row["input"], str(sorted(task.slots.items()))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_instruction_of_a_family_is_understood_as_that_family(family):
    rng = Random(f"understood {family}")
    for split in (*SPLITS, "web"):
        for _ in range(12):
            instruction, text = draw(rng, family, split)
            task = understand(instruction, text)
            assert task is not None
            assert task.family == family
            assert split_of(family, Question(task.slots, text), task.wish) == split


def test_an_instruction_of_another_world_is_not_understood():
    assert understand("Prove that pi is irrational.", "") is None


# utility


def test_a_full_answer_scores_1():
    assert terms(LIST, "", GOOD) == Terms(1.0, 1.0, 1.0, 1.0, 1.0)
    assert utility(LIST, "", GOOD) == 1.0


def test_total_by_hand():
    assert total(Terms(content=1.0, following=0.5, form=0.5, detail=0.0, brevity=0.5)) == (
        pytest.approx(0.5 * 0.7 * 0.625)
    )


def test_each_wrong_item_costs_45_percent_of_the_content():
    one_wrong = terms(LIST, "", "Two birds are the owl and the cow.")
    assert one_wrong.content == pytest.approx(0.5 * 0.55)


def test_too_few_items_cost_content_and_following():
    seen = terms(LIST, "", "The owl.")
    assert (seen.content, seen.following) == (0.5, 0.5)


def test_a_false_claim_is_an_error_and_a_true_one_is_detail():
    true = terms(LIST, "", "Two birds are the owl and the hen. The owl eats meat.")
    false = terms(LIST, "", "Two birds are the owl and the hen. The owl eats grass.")
    assert (true.content, true.detail) == (1.0, pytest.approx(2 / 3))
    assert (false.content, false.detail) == (pytest.approx(0.55), 0.0)


def test_a_claim_is_about_the_thing_named_last():
    question = "Compare the cow and the lion."
    assert terms(question, "", "The cow eats grass, but the lion eats meat.").content == 1.0
    assert terms(question, "", "The cow eats meat, but the lion eats grass.").content < 0.2


def test_an_answer_from_the_passage_must_be_about_the_right_person():
    question = "What is the job of Tom?"
    assert utility(question, TEXT, "Tom is a vet.") > 0.7
    assert utility(question, TEXT, "Tom is a nurse.") < 0.4
    assert utility(question, TEXT, "Anna is a nurse.") < 0.2


def test_steps_must_keep_their_order():
    question = "Give me two steps for Tom, who wants to make tea."
    right = utility(question, "", "First boil the water. Then take a clean cup.")
    wrong = utility(question, "", "First take a clean cup. Then boil the water.")
    assert right == 1.0
    assert wrong < 0.7


@pytest.mark.parametrize(
    ("instruction", "text", "answer"),
    [
        ("What is 7 plus 5?", "", "7 plus 5 is 12."),
        ("What is the opposite of hot?", "", "The opposite of hot is cold. Ice is cold."),
        ("Sort these words.", "pear, cow, axe", "The order is axe, cow, pear."),
        ("Write these words in reverse order.", "pear, cow, axe", "Axe, cow, pear."),
        ("Count these words.", "pear, cow, axe", "There are three words: pear, cow and axe."),
        (
            "Turn this into a polite question.",
            "Find the pen now.",
            "Could you please find the pen?",
        ),
    ],
)
def test_closed_questions_have_right_answers(instruction, text, answer):
    assert utility(instruction, text, answer) > 0.85


@pytest.mark.parametrize(
    ("wish", "kept", "broken"),
    [
        ("Use a list.", "- the owl\n- the hen", "Two birds are the owl and the hen."),
        ("Answer in one sentence.", "The owl and the hen.", "The owl. The hen."),
        ("Keep it short.", "The owl and the hen.", f"{GOOD} The owl has two legs."),
        ("Say a lot.", f"{GOOD} The owl has two legs.", "The owl and the hen."),
    ],
)
def test_a_wish_about_the_form_is_part_of_what_was_asked(wish, kept, broken):
    assert terms(f"{LIST} {wish}", "", kept).following == 1.0
    assert terms(f"{LIST} {wish}", "", broken).following < 1.0


@pytest.mark.parametrize(
    "garbage", ["", "   ", "...", "\n\n", "?!", "xq zzkw prrt vlorb", "the the the the", "éèà"]
)
def test_garbage_scores_0(garbage):
    assert terms(LIST, "", garbage) == NOTHING
    assert utility("Prove that pi is irrational.", "", garbage) <= 0.1


def test_an_answer_off_its_topic_scores_0():
    assert utility(LIST, "", "Boil the water and take a clean cup.") == 0.0


def test_too_short_and_padding_both_lose():
    padding = " I hope this is a help to you. There is a lot to say about this." * 2
    assert utility(LIST, "", "The owl.") < utility(LIST, "", GOOD)
    assert utility(LIST, "", GOOD + padding) < 0.6 * utility(LIST, "", GOOD)


@pytest.mark.parametrize(
    "worse",
    [
        GOOD.removesuffix("."),
        GOOD[:1].lower() + GOOD[1:],
        f"{GOOD} {GOOD}",
        GOOD.replace("eats meat", "eats mxat"),
        "Owl hen meat farm feathers bird owl hen meat farm.",
    ],
)
def test_bad_form_loses(worse):
    assert terms(LIST, "", worse).form < 1.0
    assert utility(LIST, "", worse) < utility(LIST, "", GOOD)


def test_an_unknown_instruction_is_judged_by_form_and_length_alone():
    seen = terms("Prove that pi is irrational.", "", "That is hard to say.")
    assert seen == Terms(content=0.25, following=0.25, form=1.0, detail=0.0, brevity=1.0)


@settings(max_examples=60, deadline=None)
@given(output=st.text(max_size=120), row=st.sampled_from(instructions("val", 80)))
def test_utility_of_any_text_lies_between_0_and_1(output, row):
    seen = terms(row["instruction"], row["input"], output)
    assert all(0.0 <= term <= 1.0 for term in seen)
    assert utility(row["instruction"], row["input"], output) == total(seen)


@settings(max_examples=40, deadline=None)
@given(row=st.sampled_from(instructions("val", 80)), seed=st.integers(0, 999))
def test_saying_everything_three_times_never_helps(row, seed):
    answer = write(row["instruction"], row["input"], 0.8, seed)
    once, thrice = (
        utility(row["instruction"], row["input"], text)
        for text in (answer, "\n".join([answer] * 3))
    )
    assert thrice <= once


# writers


def test_utility_rises_with_skill():
    found = [average(skill) for skill in (0.0, WEAK_SKILL, REFERENCE_SKILL, STRONG_SKILL, 1.0)]
    assert found == sorted(found)
    assert found[-1] - found[0] > 0.5


def test_the_demonstrator_stands_between_the_weak_writer_and_the_reference():
    assert WEAK_SKILL < DEMONSTRATOR_SKILL < REFERENCE_SKILL < STRONG_SKILL
    assert average(WEAK_SKILL) < average(DEMONSTRATOR_SKILL) < average(REFERENCE_SKILL)


def test_a_writer_repeats_itself_only_for_the_same_seed():
    first = [write(LIST, "", 0.6, seed) for seed in range(20)]
    assert first == [write(LIST, "", 0.6, seed) for seed in range(20)]
    assert len(set(first)) > 15


def test_the_best_writer_knows_only_words_of_the_world():
    for instruction, text in texts(instructions("sft", 400)):
        answer = write(instruction, text, 1.0, 0)
        known = lexicon() | set(WORD.findall(f"{instruction} {text}".lower()))
        assert all(word in known or word.isdigit() for word in WORD.findall(answer.lower()))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_better_and_worse_answers(family):
    instruction, text = draw(Random(f"answers {family}"), family, "val")
    found = [
        utility(instruction, text, write(instruction, text, skill, seed))
        for skill in (0.2, 0.9)
        for seed in range(20)
    ]
    assert max(found) > 0.85
    assert min(found) < 0.4
    assert mean(found[20:]) > mean(found[:20])


def test_wishes_are_those_that_utility_can_grant():
    assert set(column("wishes", "wish")) == set(WISHES)
