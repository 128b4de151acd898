"""Sheets: what stands in a blank is read, whatever is around it, and nothing else is."""

import json

import pytest

from alpacafarm_core.sheets import BLANKS, TASKS, Form, Reading, is_whole, read, written

FOLLOWING, HONESTY = BLANKS["instruction_following"], BLANKS["honesty"]
TRUTH, CRITIQUE = BLANKS["truthfulness"], BLANKS["critique"]


def marks(text: str, form: Form = "labelled", size: int = 2) -> list[int | None]:
    return [each.held["rating"] for each in read(text, form, FOLLOWING, size)]


def statuses(text: str, form: Form = "labelled", size: int = 2) -> list[str]:
    return [each.status for each in read(text, form, HONESTY, size)]


TWO = "### Answer 1\nRating: 4\nRationale: Good.\n\n### Answer 2\nRating: 2\nRationale: Weak."


def test_every_block_has_its_own_mark_and_rationale() -> None:
    first, second = read(TWO, "labelled", FOLLOWING, 2)
    assert first == Reading({"rating": 4, "rationale": "Good."}, "ok")
    assert second == Reading({"rating": 2, "rationale": "Weak."}, "ok")


def test_a_blank_line_inside_a_rationale_belongs_to_it() -> None:
    text = TWO.replace("Good.", "Good.\n\nIt has one flaw:\n\n- it is long.")
    first, second = read(text, "labelled", FOLLOWING, 2)
    assert first.held["rationale"] == "Good.\n\nIt has one flaw:\n\n- it is long."
    assert second.held["rating"] == 2


def test_types_and_their_reason_stand_beside_the_mark() -> None:
    text = "Types: 1, 3\nReason: Two slips.\nRating: 2\nRationale: Half of it is wrong."
    (reading,) = read(text, "labelled", TRUTH, 1)
    assert reading.held == {
        "types": [1, 3],
        "reason": "Two slips.",
        "rating": 2,
        "rationale": "Half of it is wrong.",
    }


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("4", 4),
        ("4/5", 4),
        ("**4**", 4),
        ("4 (good)", 4),
        ("5.", 5),
        ("4.5", None),
        ("4-5", None),
        ("4/10", None),
        ("0", None),
        ("6", None),
        ("-1", None),
        ("14", None),
        ("four", None),
        ("N/A", None),
        ("", None),
    ],
)
def test_a_mark_is_a_whole_number_on_the_scale_or_none(said: str, meant: int | None) -> None:
    assert marks(TWO.replace("Rating: 4", f"Rating: {said}")) == [meant, 2]


@pytest.mark.parametrize("said", ["N/A", "n/a", "NA", "N/A (a poem)"])
def test_not_applicable_is_no_mark_and_no_fault_where_it_may_be(said: str) -> None:
    text = TWO.replace("Rating: 2", f"Rating: {said}")
    assert statuses(text) == ["ok", "na"]
    assert is_whole(read(text, "labelled", HONESTY, 2))
    assert [each.status for each in read(text, "labelled", FOLLOWING, 2)] == ["ok", "unparsable"]


def test_labels_may_be_dressed_up() -> None:
    text = "## Answer 1:\n- **Rating:** 5\n- **Rationale:** Fine.\n## Answer 2\n> rating: 1"
    assert marks(text) == [5, 1]


def test_an_answer_that_is_left_out_has_no_mark_and_takes_none_from_its_neighbour() -> None:
    assert marks("### Answer 2\nRating: 3") == [None, 3]


@pytest.mark.parametrize(
    "text",
    [
        "### Answer 0\nRating: 4\n### Answer 1\nRating: 2",
        "### Answer 1\nRating: 4\n### Answer 2\nRating: 2\n### Answer 3\nRating: 1",
        "Rating: 4\nRating: 2",
        "4, 2",
        "",
    ],
)
def test_answers_numbered_in_another_way_say_nothing(text: str) -> None:
    assert marks(text) == [None, None]


def test_a_number_that_stands_twice_counts_as_none() -> None:
    assert marks(f"{TWO}\n### Answer 2\nRating: 5") == [4, None]


def test_json_is_read_whatever_stands_around_it() -> None:
    listed = '[{"rating": 4, "rationale": "a"}, {"rating": "2/5", "rationale": "b"}]'
    for text in (listed, f"Here you are:\n```json\n{listed}\n```", f"{listed}\nThat is all."):
        assert marks(text, "json") == [4, 2]


def test_json_may_number_its_answers_and_then_that_counts() -> None:
    text = '[{"answer": 2, "rating": 1}, {"answer": 1, "rating": 5}]'
    assert marks(text, "json") == [5, 1]


@pytest.mark.parametrize("text", ['[{"rating": 4}]', '{"rating": 4}', "[4, 2]", "[", "none"])
def test_json_about_another_number_of_answers_says_nothing(text: str) -> None:
    assert marks(text, "json") == [None, None]


@pytest.mark.parametrize("value", ["true", "4.5", "NaN", "1e400", "null", "[4]", "99"])
def test_json_values_that_are_no_marks_are_none(value: str) -> None:
    assert marks(f'[{{"rating": {value}}}, {{"rating": 3.0}}]', "json") == [None, 3]


@pytest.mark.parametrize(
    "text",
    [
        '"task": "Math", "other_tasks": ["Reasoning", "Poetry"]',
        '"task": "Math", "other_tasks": ["Reasoning", "Poetry"]}',
        '{"task": "math", "other_tasks": "reasoning, poetry"}',
        'Sure! {"task": "MATH.", "other_tasks": ["reasoning"]}',
    ],
)
def test_a_brace_that_the_prompt_opened_or_sampling_stopped_at_is_put_back(text: str) -> None:
    (reading,) = read(text, "json", BLANKS["task"], 1)
    assert reading == Reading({"task": "math", "other tasks": ["reasoning"]}, "ok")


def test_a_word_that_is_not_on_the_list_is_no_tag() -> None:
    (reading,) = read('{"difficulty": "impossible"}', "json", BLANKS["difficulty"], 1)
    assert reading.status == "unparsable" and reading.held["difficulty"] is None
    assert len(TASKS) == 12


def test_the_last_overall_score_counts_as_feedback_may_speak_of_scores() -> None:
    text = "Feedback: You ask for an\nOverall score: 10\nbut it is short.\n\nOverall score: 3/10"
    (reading,) = read(text, "labelled", CRITIQUE, 1)
    assert reading.held["overall score"] == 3
    assert reading.held["feedback"].startswith("You ask for an")


def test_feedback_without_a_score_is_kept_and_no_score_is_made_up() -> None:
    (reading,) = read("Feedback: Good work.", "labelled", CRITIQUE, 1)
    assert reading == Reading({"feedback": "Good work.", "overall score": None}, "unparsable")


@pytest.mark.parametrize("form", ["labelled", "json", "bare"])
def test_a_refusal_is_known_as_one(form: Form) -> None:
    readings = read("I'm sorry, but I cannot rate these.", form, BLANKS["repair"], 1)
    assert [each.status for each in readings] == ["refused"]
    assert is_whole(readings)


def test_marks_behind_an_apology_count() -> None:
    assert marks(f"Sorry for the wait.\n\n{TWO}") == [4, 2]


@pytest.mark.parametrize("form", ["labelled", "json"])
@pytest.mark.parametrize("sheet", BLANKS)
def test_what_is_written_is_read_back(sheet: str, form: Form) -> None:
    plain = {"text": "so it is", "number": 3, "numbers": [1, 2], "word": "", "words": []}
    filled = {
        blank.label: blank.values[-1] if blank.takes == "word" else plain[blank.takes]
        for blank in BLANKS[sheet]
    }
    for size in (1, 4):
        readings = read(written([filled] * size, form, BLANKS[sheet]), form, BLANKS[sheet], size)
        assert readings == [Reading(filled, "ok")] * size


@pytest.mark.parametrize(
    ("numbers", "meant"),
    [
        (("Answer 2", "Answer 1"), [5, 1]),
        ((2, 1), [5, 1]),
        (("2", "2"), [None, None]),
        ((1, 4), [None, None]),
        ((1, None), [None, None]),
    ],
)
def test_a_list_that_numbers_its_answers_is_read_by_number_or_not_at_all(numbers, meant) -> None:
    objects = [
        {"rating": mark, "rationale": "So."} | ({} if number is None else {"answer": number})
        for number, mark in zip(numbers, (1, 5), strict=True)
    ]
    found = read(json.dumps(objects), "json", FOLLOWING, 2)
    assert [each.held.get("rating") for each in found] == meant
