"""The forms of an answer: what each reads, and that what it writes is read as meant."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from alpacafarm_core.answers import Choice, Json, Said
from alpacafarm_core.errors import BadInput
from alpacafarm_core.forms import Form
from alpacafarm_core.parsers import (
    Evaluated,
    Keyed,
    Lookup,
    Pipeline,
    Ranking,
    Scan,
    Scores,
    Weighted,
)

CHOICES = [
    Choice(),
    Choice(first=r"Output \(a\)", second=r"Output \(b\)"),
    Choice(first=r"\(a\)", second=r"\(b\)", tie=""),
    Choice(first=r"\n\(a\)", second=r"\n\(b\)"),
    Choice(first="(f|F)irst", second="(s|S)econd", tie="", examples=("First", "Second")),
]


@pytest.mark.parametrize("form", CHOICES, ids=lambda form: form.first)
@given(data=st.data())
@settings(max_examples=30)
def test_a_choice_reads_what_it_writes(form: Choice, data: st.DataObject) -> None:
    marks = data.draw(st.lists(st.sampled_from([1.0, 2.0, 1.5] if form.tie else [1.0, 2.0])))
    assert form.marks(form.written(marks)) == marks


@given(st.lists(st.floats(1, 2), min_size=1))
def test_json_reads_what_it_writes(marks: list[float]) -> None:
    assert Json(key="first").marks(Json(key="first").written(marks)) == marks


def test_the_plainest_text_of_a_pattern_is_written() -> None:
    assert Choice().written([1, 2, 1.5]) == Said("Output (a)\nOutput (b)\nTie")
    assert Json().written([1]) == Said('{"a_is_better": true}')
    assert Json().written([1, 1.5]) == Said('[{"a_is_better": true}, {"a_is_better": "tie"}]')


def test_a_choice_that_nobody_could_make_is_refused_with_the_mend() -> None:
    with pytest.raises(ValidationError, match="give `examples`, what a judge says"):
        Choice(first="(f|F)irst", second="(s|S)econd")
    with pytest.raises(ValidationError, match="give `examples`"):
        Choice(examples=("Output (b)", "Output (a)"))


def test_a_mark_that_a_form_has_no_word_for_is_refused() -> None:
    with pytest.raises(BadInput, match=r"cannot say 1\.5; it says 1, 2$"):
        Choice(tie="").written([1.5])


def weights(**probabilities: float) -> dict[str, float]:
    return {token: math.log(each) for token, each in probabilities.items()}


LINES = Scan(patterns={1: r"(?:^|\n) ?Output \(a\)", 2: r"(?:^|\n) ?Output \(b\)"})
START = Scan(patterns={1: r"^a", 2: r"^b"})
WORDS = Scan(patterns={1: "(?i)first", 2: "fir|second"})
LEADERS = Pipeline(steps=(Keyed(key="order"), Ranking(first="m")))
NAMED = Pipeline(steps=(Keyed(key="best"), Lookup(table={"a": 1, "b": 2}, default=None)))
RANKED = "[{'model': 'model_1', 'rank': %s}, {'model': 'model_2', 'rank': 1}]"


@pytest.mark.parametrize(
    ("form", "text", "marks"),
    [
        (LINES, "Output (b)\n Output (a): so close", [2, 1]),
        (LINES, "The better one is Output (a)", []),
        (LINES, "", []),
        # What is left after a match begins like a text; a new line does not.
        (START, "aab", [1, 1, 2]),
        (START, "a\nb", [1]),
        # Both begin at the same place, and the first listed wins.
        (WORDS, "FIRST, no: first, no: second", [1, 1, 2]),
        (Scan(patterns={1: "x*", 2: "b"}), "b", []),
        (Ranking(), RANKED % 2, [2]),
        (Ranking(), RANKED % 1, [1]),
        (Ranking(), RANKED % 3, [None]),
        (Ranking(), "[{'model': 'model_2', 'rank': 1}]", [None]),
        (Ranking(), "model_1 is better", [None]),
        (Ranking(), "__import__('os').getcwd()", [None]),
        (Keyed(key="k"), '{"k": 2, "why": "so"}', [2]),
        (Keyed(key="k"), '[{"k": 1}, {"k": 1.25}, {"k": 0}]', [1, 1.25, 1.5]),
        (Keyed(key="k"), 'Well:\n```json\n{"k": 1}\n``` So.', [1]),
        (Keyed(key="k"), 'Well: {"k": 1}', []),
        (Keyed(key="k"), '```json\n{"k": 1}', []),
        (Keyed(key="k"), '[{"k": 1}, {"j": 1}]', []),
        (Keyed(key="k"), '[{"k": true}, {"k": "1"}, {"k": null}, {"k": 3}]', [None] * 4),
        (Keyed(key=None), "[1, 2]", [1, 2]),
        (Evaluated(), "[1, 2.0, 1.5, 0]", [1, 2, 1.5, 1.5]),
        (Evaluated(), "2", [2]),
        (Evaluated(), "(1, 2)", [None]),
        (Evaluated(), "exit()", []),
        (Scores(), "8 7\nThe first is better.", [1]),
        (Scores(), "7,8.5", [2]),
        (Scores(), "7 7", [1.5]),
        (Scores(), "7/8", [None]),
        (Scores(), "7 8 9", [None]),
        (Lookup(table={"A": 1, "B": 2}), "B", [2]),
        (Lookup(table={"A": 1, "B": 2}), "C", [None]),
        (Lookup(table={"A": 1, "B": 2}, default=1.5), "C", [1.5]),
        (LEADERS, '{"order": [{"model": "M", "rank": 1}, {"model": "m", "rank": 2}]}', [2]),
        (LEADERS, "{\"order\": \"[{'model': 'm', 'rank': 1}]\"}", [1]),
        (LEADERS, '{"order": ""}', []),
        (LEADERS, '{"other": []}', []),
        (LEADERS.replace(squeeze=False), '{"order": [{"model": "m", "rank": 1}]}', [None]),
        (NAMED, '[{"best": "b"}, {"best": "a"}, {"best": "?"}]', [2, 1, None]),
    ],
)
def test_a_text_is_read_by_the_rules_of_its_form(
    form: Form, text: str, marks: list[float | None]
) -> None:
    assert form.marks(Said(text)) == marks


@pytest.mark.parametrize(
    ("changes", "places", "marks"),
    [
        ({}, [weights(m=0.6, M=0.2)], [1.25]),
        ({}, [weights(m=0.6), weights(M=0.1)], [1, 2]),
        ({}, [weights(x=0.9)], [None]),
        ({}, [], []),
        ({"binarise": True}, [weights(m=0.6, M=0.2), weights(m=0.3, M=0.3)], [1, 2]),
        ({"place": -1}, [weights(x=1.0), weights(M=0.3, m=0.1)], [1.75]),
        ({"place": 3}, [weights(M=0.3, m=0.1)], []),
        # The sum need not hold the first's own token; what leaves [1, 2] is no verdict.
        ({"verdicts": ("M",)}, [weights(m=0.2, M=0.4), weights(m=0.9, M=0.1)], [1.5, None]),
        ({"verdicts": ("M",)}, [weights(m=0.2)], [None]),
        ({}, [{"m": -1e6, "M": -1e6 + math.log(3)}], [1.75]),
    ],
)
def test_weights_are_read_from_the_likeliest_tokens(
    changes: dict[str, Any], places: list[dict[str, float]], marks: list[float | None]
) -> None:
    form = Weighted(first="m", verdicts=("m", "M")).replace(**changes)
    read = form.marks(Said("whatever", tuple(places)))
    assert [each and round(each, 9) for each in read] == marks


ANY = st.floats(1, 2)
SIDES = st.sampled_from([1.0, 2.0])
THREE = st.sampled_from([1.0, 2.0, 1.5])
WRITERS = [
    (LINES, SIDES, 5),
    (START, SIDES, 5),
    (Scan(patterns={1: "A{2}", 2: "B{2}"}, examples={1: "AA", 2: "BB"}), SIDES, 5),
    (Ranking(), SIDES, 1),
    (Keyed(key="k"), ANY, 5),
    (Keyed(key=None), ANY, 5),
    (Evaluated(), ANY, 5),
    (Scores(), THREE, 1),
    (Lookup(table={"A": 1, "B": 2, "=": 0}), THREE, 1),
    (LEADERS, SIDES, 5),
    (NAMED, SIDES, 5),
    (Pipeline(steps=(Scan(patterns={"a": "A", "b": "B"}), NAMED.steps[1])), SIDES, 5),
    (Pipeline(steps=(Evaluated(), Scores())), THREE, 5),
    (Weighted(first="m", verdicts=("m", "M"), binarise=True), SIDES, 5),
    (Weighted(first="m", verdicts=("m", "M"), place=-3), SIDES, 1),
    (Weighted(first="m", verdicts=("M",), place=2), SIDES, 1),
]


@pytest.mark.parametrize(("form", "one", "most"), WRITERS)
@given(data=st.data())
@settings(max_examples=20)
def test_a_form_reads_what_it_writes(
    form: Form, one: st.SearchStrategy[float], most: int, data: st.DataObject
) -> None:
    marks = data.draw(st.lists(one, min_size=1, max_size=most))
    assert form.marks(form.written(marks)) == marks


@given(marks=st.lists(ANY, min_size=1))
def test_weights_are_written_as_exactly_as_logarithms_allow(marks: list[float]) -> None:
    form = Weighted(first="m", verdicts=("m", "M"))
    assert form.marks(form.written(marks)) == pytest.approx(marks, abs=1e-12)


@pytest.mark.parametrize(
    ("form", "marks"),
    [
        (LINES, [1.5]),
        (Scan(patterns={1: "A{2}", 2: "B{2}"}), [1.0]),
        (Ranking(), [1.5]),
        (Ranking(), [1.0, 2.0]),
        (Scores(), [1.25]),
        (Lookup(table={"A": 1}), [1.0, 1.0]),
        (Lookup(table={"A": 1}, default=2), [1.5]),
        (Weighted(first="m", verdicts=("m", "M"), binarise=True), [1.5]),
        (Weighted(first="m", verdicts=("m",)), [2.0]),
    ],
)
def test_what_a_form_cannot_say_is_refused(form: Form, marks: list[float]) -> None:
    with pytest.raises(BadInput, match=r"cannot say|give `examples`"):
        form.written(marks)


def test_a_form_survives_json_with_its_entries_as_they_were() -> None:
    held = Lookup(table={True: 1, 1.5: "x", "1": [2], None: 0})
    assert Lookup.model_validate_json(held.model_dump_json()).table == held.table
    assert [type(key) for key, _ in held.table] == [bool, float, str, type(None)]


def test_log_probabilities_are_read_first_or_not_at_all() -> None:
    weighted = Weighted(first="m", verdicts=("m", "M"), binarise=True)
    turned = Pipeline(steps=(weighted, Lookup(table={1: 2, 2: 1})))
    assert turned.marks(Said("M", (weights(M=1.0),))) == [1.0]
    assert turned.marks(turned.written([2.0])) == [2.0]
    with pytest.raises(ValidationError, match="put it first"):
        Pipeline(steps=(Evaluated(), weighted))


def test_patterns_must_compile() -> None:
    with pytest.raises(ValidationError, match="no regular expression"):
        Scan(patterns={1: "("})
    with pytest.raises(ValidationError, match="no regular expression"):
        Choice(first="(?i)a")
