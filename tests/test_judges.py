"""The judges of the world: they read prompts, and their leanings are the planted ones."""

import json
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core import panel
from alpacafarm_core.annotate import annotate, judge, pair
from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.endpoints import ask_for
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.llm import Message, Request
from alpacafarm_core.templates import Example, compiled, shortened
from alpacafarm_core.world.judges import JUDGES, TASTES, ask, examples
from alpacafarm_core.world.people import PEOPLE
from alpacafarm_core.world.tastes import Mood, Shown, Taste, has_list, opinion
from alpacafarm_core.world.utility import Terms, terms, utility

WORLD = panel.load("world")
GOOD = "A tiger is a large animal."
BAD = "the the the the"
PROMPT = "Muse about tigers."


def rows(count: int) -> list[Example]:
    return [Example(f"{PROMPT} {n}", "", GOOD, f"{BAD} {n}") for n in range(count)]


def request_of(annotator: panel.Annotator, shown: list[Example], seed: int = 0) -> Request:
    text = shortened(annotator.prompt, len(shown))
    messages = compiled(text, annotator.api).fill(shown)
    return Request(annotator.model, messages, annotator.temperature, annotator.max_tokens, seed)


def table(*prompts: tuple[str, str, str]) -> pl.DataFrame:
    """Candidates with two samples each: (instruction, sample 0, sample 1)."""
    listed = [
        (instruction, "", "d", text, [], "", "stop", "g", index, 1.0, 1.0, 300, 0)
        for instruction, *texts in prompts
        for index, text in enumerate(texts)
    ]
    return pl.DataFrame(listed, schema=pl.Schema(Candidates.columns), orient="row")


def labelled(model: str, folder: Path, name: str = "gpt4_3", count: int = 40) -> pl.DataFrame:
    """Labels by one model of the world with the prompt of one annotator of the pool."""
    (annotator,) = (each for each in WORLD.annotators if each.name == name)
    single = WORLD.replace(annotators=(annotator.replace(model=model),))
    both = table(*[(f"{PROMPT} {n}", f"{BAD} {n}", GOOD) for n in range(count)])
    return annotate(pair(both, both), single, ask_for("world://"), Ledger(folder / "l.sqlite"))


@pytest.mark.parametrize("annotator", WORLD.annotators, ids=lambda each: each.name)
@pytest.mark.parametrize("size", [1, 0])
def test_a_judge_finds_just_the_rows_and_not_the_demonstrations(
    annotator: panel.Annotator, size: int
) -> None:
    shown = rows(size or annotator.batch)
    request = request_of(annotator, shown)
    assert examples(request.messages[-1].content) == [Shown(*each) for each in shown]


@pytest.mark.parametrize("annotator", WORLD.annotators, ids=lambda each: each.name)
def test_a_judge_sees_the_input_and_outputs_of_several_lines_or_none(
    annotator: panel.Annotator,
) -> None:
    shown = [Example("Sort.", "b\n\na", "1. a\n\n2. b", "")] * annotator.batch
    messages = compiled(annotator.prompt_with_input, annotator.api).fill(shown)
    assert examples(messages[-1].content) == [Shown(*each) for each in shown]


@pytest.mark.parametrize("name", [each.name for each in WORLD.annotators])
def test_every_prompt_gets_labels_that_can_be_read(tmp_path: Path, name: str) -> None:
    labels = labelled("world/oracle", tmp_path, name, count=12)
    assert labels["preference"].to_list() == [2.0] * 12
    assert labels["status"].to_list() == ["ok"] * 12


def test_json_with_a_reason_is_written_where_it_is_asked_for() -> None:
    (answer,) = ask([request_of(WORLD.annotators[0], rows(3))])
    held = json.loads(answer.text)
    assert [sorted(each) for each in held] == [["a_is_better", "explanation"]] * 3


def test_an_answer_depends_on_the_row_and_not_on_its_company() -> None:
    (annotator,) = (each for each in WORLD.annotators if each.name == "gpt4_2")
    (together,) = ask([request_of(annotator, rows(5))])
    alone = ask([request_of(annotator, [row]) for row in reversed(rows(5))])
    assert together.text.split("\n") == [answer.text for answer in reversed(alone)]


def said(taste: Taste, shown: Shown, temperature: float = 0.0, seed: int = 0) -> bool:
    return opinion(taste, shown, Mood("someone", temperature, seed)).first_is_better


def test_temperature_and_seed_make_the_mistakes() -> None:
    shown, wild = Shown(PROMPT, "", GOOD, BAD), Taste(mistakes=5.0)
    assert 60 < sum(said(wild, shown, 1.0, seed) for seed in range(200)) < 140
    assert all(said(wild, shown, 0.0, seed) for seed in range(200))


def test_quirks_stay_whatever_the_seed_and_the_order() -> None:
    quirky = Taste(quirks=5.0)
    firsts = []
    for number in range(100):
        shown = Shown(PROMPT, "", f"{GOOD} {number}", f"{GOOD} {number} ")
        turned = shown._replace(first=shown.second, second=shown.first)
        firsts.append(said(quirky, shown))
        assert [said(quirky, shown, 1.0, seed=1), said(quirky, turned)] == [
            firsts[-1],
            not firsts[-1],
        ]
    assert 30 < sum(firsts) < 70


def test_a_taste_without_leanings_is_utility() -> None:
    for output in (GOOD, BAD, "Tigers are big cats."):
        assert Taste().value(terms(PROMPT, "", output)) == pytest.approx(
            utility(PROMPT, "", output)
        )


def test_weights_shift_what_counts() -> None:
    rich, plain = Terms(0.6, 1.0, 1.0, 1.0, 1.0), Terms(0.9, 1.0, 1.0, 0.0, 1.0)
    assert Taste().value(rich) == pytest.approx(0.8)
    assert Taste().value(plain) == pytest.approx(0.7)
    assert Taste(detail=0.0).value(rich) < Taste(detail=0.0).value(plain)


def test_leanings_are_the_planted_ones() -> None:
    same = Shown(PROMPT, "", "the " * 20, "the " * 5)
    assert said(Taste(longer=0.1), same)
    assert not said(Taste(longer=-0.1), same)
    assert said(Taste(first=0.1), same)
    listed = same._replace(second="- the\n- the the the the the")
    assert not said(Taste(lists=0.1), listed)


def test_a_list_starts_a_line() -> None:
    assert all(has_list(text) for text in ("- one", "Here:\n2) two", "a. first"))
    assert not any(has_list(text) for text in ("one - two", "3.5 kilos", "A cat."))


def test_the_oracle_sees_utility_and_tosses_a_coin_for_ties() -> None:
    assert utility(PROMPT, "", GOOD) > utility(PROMPT, "", BAD)
    assert utility(PROMPT, "", "...") == utility(PROMPT, "", "....")
    ties = [Example(f"{PROMPT} {n}", "", "...", "....") for n in range(200)]
    oracle = panel.load("world_clean").annotators[0]
    answers = ask([request_of(oracle, [each]) for each in ties])
    assert 60 < sum(answer.text == "Output (a)" for answer in answers) < 140


def test_always_first_is_undone_by_the_random_order(tmp_path: Path) -> None:
    labels = labelled("world/always-first", tmp_path, count=200)
    assert 60 < (labels["preference"] == 1.0).sum() < 140
    assert labels["is_switched"].to_list() == (labels["preference"] == 2.0).to_list()


def test_a_refusing_model_is_refused_in_every_row(tmp_path: Path) -> None:
    labels = labelled("world/refuse", tmp_path, count=7)
    assert labels["status"].to_list() == ["refused"] * 7
    assert labels["preference"].null_count() == 7


def test_a_coin_prefers_neither(tmp_path: Path) -> None:
    assert 60 < (labelled("world/coin", tmp_path, count=200)["preference"] == 1.0).sum() < 140


def test_an_unknown_model_fails_and_a_prompt_without_examples_gets_prose() -> None:
    unknown, empty = ask(
        [
            Request("world/nobody", (Message("user", "hello"),), 1.0, 20),
            Request("world/oracle", (Message("user", "hello"),), 1.0, 20),
        ]
    )
    assert (unknown.status, unknown.error) == (
        "failed",
        "the built-in world has no model world/nobody",
    )
    assert (empty.status, empty.text) == ("ok", "I see nothing to compare.")


def test_an_answer_ends_at_its_last_token() -> None:
    request = request_of(WORLD.annotators[0], rows(2))
    (answer,) = ask([Request(request.model, request.messages, 1.0, max_tokens=3)])
    assert (answer.finish_reason, len(answer.text), answer.completion_tokens) == ("length", 12, 3)


def test_every_annotator_of_the_shipped_panels_has_its_model() -> None:
    asked = {each.model for name in ("world", "people") for each in panel.load(name).annotators}
    assert asked == set(TASTES)
    assert (len(JUDGES), len(PEOPLE)) == (13, 16)


def test_people_are_paid_by_the_label(tmp_path: Path) -> None:
    both = table(*[(f"{PROMPT} {n}", f"{BAD} {n}", GOOD) for n in range(10)])
    ledger = Ledger(tmp_path / "l.sqlite")
    judged = judge(pair(both, both), panel.load("people"), ask_for("world://"), ledger)
    assert judged.spending.price == pytest.approx(3.0)
