"""The self-test of assessors: sound panels pass, others are refused before a call is paid."""

from collections.abc import Sequence
from typing import Any

import pytest

from alpacafarm_core import assessing, proving
from alpacafarm_core.assessors import SHEETS, Assessors, Purpose, load, shipped
from alpacafarm_core.errors import JudgeFailed
from alpacafarm_core.proving import check, trial
from alpacafarm_core.sheets import Reading

WORLD = load("world", "rating").but("honesty")


def with_sheet(**changes: object) -> Assessors:
    (judge,) = WORLD.assessors
    return WORLD.replace(
        name="own",
        assessors=(judge.replace(sheets={"honesty": judge.sheets["honesty"].replace(**changes)}),),
    )


@pytest.mark.parametrize("purpose", SHEETS)
@pytest.mark.parametrize("name", shipped())
def test_shipped_panels_pass(name: str, purpose: Purpose) -> None:
    report = trial(load(name, purpose))
    assert (report.recovered, report.mended, report.refused) == (1.0, 1.0, 1.0)
    assert purpose != "rating" or 0.1 < report.first < 0.4


@pytest.mark.parametrize("changes", [{"order": "fixed"}, {"retries": 0}, {"seed": 7}])
def test_every_way_to_ask_passes(changes: dict[str, object]) -> None:
    assert trial(WORLD.replace(**changes)).recovered == 1.0


def test_a_panel_is_tested_once() -> None:
    assert check(WORLD) is check(WORLD)


def test_texts_that_do_not_reach_the_judge_once_are_found() -> None:
    plain = with_sheet(prompt="{instruction} {outputs}")
    assert trial(plain).recovered == 1.0
    own = proving._Trial(plain, "honesty")
    own.questions = [q._replace(outputs=(q.outputs[0],) * 4) for q in own.questions]
    with pytest.raises(JudgeFailed, match="4 planted texts are not in the request once"):
        own.report()


def refused(panel: Assessors = WORLD) -> str:
    with pytest.raises(JudgeFailed) as error:
        trial(panel)
    assert "nothing was bought" in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_an_order_that_is_not_undone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = assessing.Office.question

    def ordered(self: Any, *asked: Any) -> assessing.Question:
        question = real(self, *asked)
        return question._replace(order=tuple(range(len(question.order))))

    monkeypatch.setattr(assessing.Office, "question", ordered)
    assert "came back as meant" in refused()


def test_an_order_that_is_no_even_draw_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assessing.Random, "shuffle", lambda self, listed: None)
    assert "is shown first 48 of 48 times, expected" in refused()


def test_a_reader_that_guesses_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def guessing(text: str, form: str, blanks: Sequence[Any], size: int) -> list[Reading]:
        found = real(text, form, blanks, size)
        return [each if each.held.get("rating") else Reading({"rating": 3}, "ok") for each in found]

    real = assessing.read
    monkeypatch.setattr(assessing, "read", guessing)
    assert "failed its self-test" in refused()


def test_a_refusal_that_counts_as_a_mark_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def marking(text: str, form: str, blanks: Sequence[Any], size: int) -> list[Reading]:
        sorry = text.startswith("I'm sorry")
        return [Reading({"rating": 1}, "ok")] * size if sorry else real(text, form, blanks, size)

    real = assessing.read
    monkeypatch.setattr(assessing, "read", marking)
    assert "of 48 refusals 0 count as refused" in refused()


def test_a_failed_call_that_leaves_a_record_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def best(self: Any, retries: int) -> list[Reading]:
        if not self.records:
            return [Reading({"rating": 1}, "ok")] * self.question.size
        return real(self, retries)

    real = assessing._Tries.best
    monkeypatch.setattr(assessing._Tries, "best", best)
    assert "failed calls became ok" in refused()


def test_a_key_that_forgets_what_is_shown_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    key = property(lambda self: assessing.digest(self.attempt, dict(self.texts)["instruction"][:9]))
    monkeypatch.setattr(assessing.Question, "key", key)
    assert "failed its self-test" in refused()
