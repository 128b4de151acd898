"""Criticism: feedback and scores as they were said, and tens that are not to be believed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core.assessors import Assessor, Assessors, Sheet
from alpacafarm_core.critique import criticise, doubtful, repair, repair_of
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.llm import Answer, Request
from alpacafarm_core.rate import rate
from alpacafarm_core.ratings import Critiques, Ratings
from tests.test_rate import Fake, answers, ledger, raters  # noqa: F401

CRITIC = "Feedback, please.\nI: {instruction}{principle}\nA: {output}\n"
AGAIN = "Score, please.\nI: {instruction}\nA: {output}\nF: {critique}\n"


def critics(retries: int = 1) -> Assessors:
    sheets = {
        "critique": Sheet(prompt=CRITIC),
        "repair": Sheet(prompt=AGAIN, form="bare", max_tokens=1),
    }
    judge = Assessor(name="tutor", model="fake", sheets=sheets, price_per_1k_tokens=1.0)
    return Assessors(name="tutors", assessors=(judge,), retries=retries)


class Tutor:
    """Gives a score by a rule on the answer; says another when asked again."""

    def __init__(self, score: Callable[[str], object], again: object = 6) -> None:
        self.score, self.again = score, again
        self.requests: list[Request] = []

    def __call__(self, requests: Sequence[Request]) -> list[Answer]:
        self.requests += requests
        return [
            Answer(self.said(request.messages[-1].content), "stop", 9, 1, 0.0)
            for request in requests
        ]

    def said(self, text: str) -> str:
        if text.startswith("Score"):
            return str(self.again)
        output = text.split("A: ")[1].split("\n")[0]
        return (
            f"Feedback: {output} could be better.\n\nSee how.\nOverall score: {self.score(output)}"
        )


def marked(mark: int, held: Ledger, prompts: int = 1) -> pl.DataFrame:
    """Ratings in which every answer has this mean."""

    def rule(shown: Sequence[str]) -> str:
        return "\n".join(f"### Answer {n}\nRating: {mark}" for n, _ in enumerate(shown, start=1))

    return rate(answers(prompts), raters("honesty"), Fake(rule), held).rows


@pytest.mark.parametrize(
    ("overall", "mean", "what"),
    [
        (10, 2.0, "lowered"),
        (10, 1.0, "lowered"),
        (10, 2.01, "asked"),
        (10, 4.0, "asked"),
        (10, 4.01, "kept"),
        (10, None, "asked"),
        (9, 1.0, "kept"),
        (1, 5.0, "kept"),
        (None, 1.0, "unread"),
    ],
)
def test_the_rule_of_repair(overall: int | None, mean: float | None, what: str) -> None:
    assert repair_of(overall, mean) == what


def test_every_answer_has_its_own_feedback_and_score(ledger: Ledger) -> None:  # noqa: F811
    tutor = Tutor(lambda output: int(output[-1]) + 3)
    rows = criticise(answers(3), critics().but("critique"), tutor, ledger).rows
    assert rows.schema == pl.Schema(Critiques.columns)
    assert rows["overall"].to_list() == [3, 4, 5, 6] * 3
    assert rows["critique"][1] == "0-1 could be better.\n\nSee how."
    assert set(rows["status"]) == {"ok"} and rows["price"].sum() == pytest.approx(0.12)


def test_the_first_line_of_a_principle_is_told_in_a_note(ledger: Ledger) -> None:  # noqa: F811
    told = answers(1, each=1).with_columns(
        principle=pl.lit("Say how sure you are.\nFor example: I am 90% sure.")
    )
    tutor = Tutor(lambda _: 5)
    rows = criticise(told, critics().but("critique"), tutor, ledger).rows
    text = tutor.requests[0].messages[-1].content
    assert "I: do 0\n\nWhoever answered had been told: Say how sure you are.\nA:" in text
    assert "90%" not in text and rows["principle"][0].startswith("Say how sure")
    bare = Tutor(lambda _: 5)
    criticise(answers(1, each=1), critics().but("critique"), bare, ledger)
    assert "I: do 0\nA:" in bare.requests[0].messages[-1].content


def test_a_score_that_cannot_be_read_is_none_and_its_feedback_is_kept(ledger: Ledger) -> None:  # noqa: F811
    rows = criticise(answers(1), critics().but("critique"), Tutor(lambda _: "high"), ledger).rows
    assert rows["overall"].null_count() == 4 and set(rows["status"]) == {"unparsable"}
    assert "could be better" in rows["critique"][0]
    assert ledger.counts().rows == 8  # each was asked twice


@pytest.mark.parametrize(
    ("score", "mark", "overall", "what", "calls"),
    [
        (10, 1, 1, "lowered", 0),
        (10, 3, 6, "asked", 4),
        (10, 5, 10, "kept", 0),
        (9, 1, 9, "kept", 0),
    ],
)
def test_tens_are_lowered_asked_again_or_kept(
    ledger: Ledger,  # noqa: F811
    score: int,
    mark: int,
    overall: int,
    what: str,
    calls: int,
) -> None:
    ratings, tutor = marked(mark, ledger), Tutor(lambda _: score)
    critiques = criticise(ratings, critics().but("critique"), tutor, ledger).rows
    mended = repair(ratings, critiques, critics().but("repair"), tutor, ledger)
    assert mended.rows.schema == pl.Schema(Ratings.columns)
    assert mended.rows["overall"].to_list() == [overall] * 4
    assert mended.rows["repaired"].to_list() == [what] * 4
    assert mended.rows["critique"].to_list() == critiques["critique"].to_list()
    assert mended.spending.calls == calls
    assert mended.rows["price"].sum() == pytest.approx(ledger.counts().price)


def test_who_cannot_be_read_the_second_time_has_no_score(ledger: Ledger) -> None:  # noqa: F811
    ratings, tutor = marked(3, ledger), Tutor(lambda _: 10, again="many")
    critiques = criticise(ratings, critics().but("critique"), tutor, ledger).rows
    rows = repair(ratings, critiques, critics().but("repair"), tutor, ledger).rows
    assert rows["overall"].null_count() == 4 and set(rows["repaired"]) == {"unread"}


def test_tables_about_other_answers_are_refused_with_the_row(ledger: Ledger) -> None:  # noqa: F811
    ratings, tutor = marked(3, ledger), Tutor(lambda _: 10)
    critiques = criticise(ratings, critics().but("critique"), tutor, ledger).rows
    with pytest.raises(BadInput, match="row 1 is another answer in each"):
        doubtful(ratings, critiques.reverse(), critics())
    with pytest.raises(BadInput, match="4 ratings and 3 critiques"):
        doubtful(ratings, critiques.head(3), critics())
    assert doubtful(ratings, critiques, critics())[3][1] == 3


def test_the_same_answer_twice_is_criticised_once_and_paid_once(tmp_path: Path) -> None:
    held, tutor = Ledger(tmp_path / "l.sqlite"), Tutor(lambda _: 4)
    twice = pl.concat([answers(1, each=1)] * 2)
    rows = criticise(twice, critics().but("critique"), tutor, held).rows
    assert len(tutor.requests) == 1
    assert rows["overall"].to_list() == [4, 4] and rows["tokens"].to_list() == [10, 0]
    held.close()


def test_a_score_without_the_feedback_that_was_asked_for_is_no_score(ledger: Ledger) -> None:  # noqa: F811
    def terse(requests: Sequence[Request]) -> list[Answer]:
        return [Answer("Overall score: 7", "stop", 9, 1, 0.0) for _ in requests]

    found = criticise(answers(1), critics(retries=0), terse, ledger).rows
    assert found["status"].unique().to_list() == ["unparsable"]
    assert found["overall"].to_list() == [None] * 4


def test_a_number_at_which_an_answer_was_cut_is_no_score(ledger: Ledger) -> None:  # noqa: F811
    def cut(requests: Sequence[Request]) -> list[Answer]:
        return [Answer("Feedback: Fine.\nOverall score: 1", "length", 9, 1, 0.0) for _ in requests]

    found = criticise(answers(1), critics(retries=0), cut, ledger).rows
    assert found["overall"].to_list() == [None] * 4
    assert found["status"].unique().to_list() == ["unparsable"]
