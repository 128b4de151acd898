"""Critiques as answers to imitate."""

import pytest

from alpacafarm_core.artifacts import Demonstrations
from alpacafarm_core.criticism import ASKED, imitable, request
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ratings import Critiques
from tests.tiny import frame

ROW = {"instruction": "Name a fruit.", "input": "", "dataset": "d", "output": "A plum."}


def test_feedback_and_score_are_the_answer_to_a_request_that_shows_what_was_criticised():
    rows = frame(Critiques, [ROW | {"critique": "Short. \n", "overall": 7, "status": "ok"}])
    made = imitable(rows)
    assert made.schema == Demonstrations.columns
    (row,) = made.to_dicts()
    assert row["output"] == "Short.\n\nOverall score: 7"
    assert row["instruction"] == f"{ASKED}\n\n### Task\nName a fruit.\n\n### Answer\nA plum."
    assert (row["input"], row["output_ids"], row["dataset"]) == ("", [], "d")


def test_an_input_belongs_to_the_task():
    assert "### Task\nSort these.\n\n3, 1\n\n### Answer\n1, 3" in request(
        "Sort these.", "3, 1", "1, 3"
    )


def test_answers_that_nobody_criticised_are_refused():
    with pytest.raises(BadInput, match="are no critiques; have the answers criticised first"):
        imitable(frame(Demonstrations, [ROW]))


@pytest.mark.parametrize(
    "told", [{"critique": "Good.", "overall": None}, {"critique": " ", "overall": 3}]
)
def test_a_critique_that_could_not_be_read_teaches_nothing(told):
    whole = ROW | {"critique": "Fine.", "overall": 5}
    assert imitable(frame(Critiques, [ROW | told, whole])).height == 1
    with pytest.raises(BadInput, match="none of 1 critiques has both feedback and score"):
        imitable(frame(Critiques, [ROW | told]))
