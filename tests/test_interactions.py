"""What users said: simulated, read from files, shown to a policy, and turned into pairs."""

import json
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core import files, sources
from alpacafarm_core.artifacts import Candidates, Guided, Interactions, Preferences
from alpacafarm_core.errors import BadInput
from alpacafarm_core.interactions import Guidance, accepted, conversation, corrected, guided
from alpacafarm_core.prompts import render
from alpacafarm_core.setup import Files, Hub, World
from alpacafarm_core.train.tokens import prompt_texts
from alpacafarm_core.world.users import turn
from alpacafarm_core.world.utility import utility
from tests.tiny import frame

TURNS = [
    {"role": "user", "content": "A fruit?"},
    {"role": "assistant", "content": "Plum."},
]
ASKED, PLACE = "Name a red one.", "{response}"
BLANK = dict.fromkeys(("input", "feedback", "next_response"), "") | {"history": "[]"}
ROWS = [
    {"instruction": ASKED, "history": json.dumps(TURNS), "response": f"A lime {PLACE}.",
     "feedback": "Not red.", "label": "DSAT", "next_response": "A cherry."},
    {"instruction": ASKED, "response": "A cherry.", "feedback": "Thanks.", "label": "SAT"},
    {"instruction": "Say hello.", "response": "Bye.", "feedback": "No!", "label": "DSAT"},
]  # fmt: skip
TALK = frame(Interactions, [BLANK | row for row in ROWS])
LAYOUT = "{system}{prompt}{response}|{feedback}|{request}"
GUIDANCE = Guidance(system="S ", request="Again.", layout=LAYOUT)
WHOLE = "A fruit?\n\n### Response:Plum.\n\n### Instruction:\nName a red one."


def written(folder: Path, rows: list[dict]) -> Path:
    """Rows in a file of JSON."""
    path = folder / "talk.json"
    path.write_text(json.dumps(rows))
    return path


def test_a_conversation_is_one_instruction_between_the_marks_of_the_layout():
    assert conversation(json.dumps(TURNS), ASKED) == WHOLE
    assert conversation("[]", ASKED) == conversation("", ASKED) == ASKED


def test_a_guided_prompt_shows_the_answer_and_the_complaint():
    shown = guided(TALK, GUIDANCE)
    assert list(shown.columns) == list(Guided.columns)
    assert shown["instruction"].to_list() == [WHOLE, "Say hello."]
    assert shown["prompt"][0] == f"S {render(WHOLE, '')}A lime {PLACE}.|Not red.|Again."
    assert prompt_texts(shown) == shown["prompt"].to_list()
    assert prompt_texts(shown.drop("prompt")) == [render(WHOLE, ""), render("Say hello.", "")]


def test_where_it_is_too_long_the_oldest_turns_go_and_the_complaint_stays():
    shown = guided(TALK, GUIDANCE.replace(characters=10))
    assert shown["prompt"][0] == f"S {render(ASKED, '')}A lime {PLACE}.|Not red.|Again."
    assert shown["instruction"][0] == WHOLE


def test_a_layout_without_the_question_is_refused():
    with pytest.raises(ValueError, match="the layout has no"):
        Guidance(layout="{feedback}")


def test_a_complaint_becomes_a_pair_for_each_fresh_answer():
    fresh = [
        {"instruction": asked, "input": "", "output": output, "output_ids": [7], "tokenizer": "t",
         "generator": "policy/x"}
        for asked, output in [(WHOLE, "A cherry."), (WHOLE, "Wine."), ("Say hello.", "Bye."),
                              ("Say hello.", "Hello.")]
    ]  # fmt: skip
    pairs = corrected(TALK, frame(Candidates, fresh))
    assert list(pairs.columns) == list(Preferences.columns)
    assert pairs.select("instruction", "output_1", "output_2", "preference").rows() == [
        (WHOLE, "A cherry.", f"A lime {PLACE}.", 1.0),
        (WHOLE, "Wine.", f"A lime {PLACE}.", 1.0),
        ("Say hello.", "Bye.", "Bye.", 1.5),  # a copy is a tie
        ("Say hello.", "Hello.", "Bye.", 1.0),
    ]
    assert pairs["output_1_ids"].to_list() == [[7]] * 4
    assert pairs["output_2_ids"].to_list() == [[]] * 4
    assert pairs["status"].to_list() == ["ok", "ok", "tie", "ok"]


def test_answers_to_something_else_are_refused():
    other = {"instruction": "Name a dog.", "input": "", "output": "Rex."}
    with pytest.raises(BadInput, match="2 answers are not to the 2 disliked ones"):
        corrected(TALK, frame(Candidates, [other, other]))


def test_what_a_user_went_on_to_accept_is_preferred():
    pairs = accepted(TALK)
    assert pairs.select("instruction", "output_1", "output_2").rows() == [
        (WHOLE, "A cherry.", f"A lime {PLACE}.")
    ]
    with pytest.raises(BadInput, match="none of 2 turns has a later answer"):
        accepted(TALK[1:])


def test_without_complaints_there_is_nothing_to_guide():
    with pytest.raises(BadInput, match="none of 1 turns is labelled DSAT"):
        guided(TALK[1:2], GUIDANCE)


def test_users_of_the_world_complain_of_what_is_bad_and_accept_what_is_better():
    rows = sources.interactions(World(), 200)
    assert list(rows.columns) == list(Interactions.columns)
    assert rows.equals(sources.interactions(World(), 200))

    def mean(column: str, some: pl.DataFrame) -> float:
        texts = some.select("instruction", "input", column).iter_rows()
        return sum(utility(*each) for each in texts) / some.height

    sides = {label: rows.filter(pl.col("label") == label) for label in ("SAT", "DSAT", "none")}
    turned = sides["DSAT"].filter(pl.col("next_response") != "")
    assert mean("response", sides["DSAT"]) + 0.3 < mean("response", sides["SAT"])
    assert mean("response", turned) + 0.3 < mean("next_response", turned)
    assert sides["none"].height > 30 and not sides["none"]["feedback"].str.len_chars().sum()
    assert sides["DSAT"]["feedback"].str.len_chars().min() > 0


def test_a_user_says_what_is_untrue_and_what_is_missing():
    said = turn("My son wants to know. Tell me the opposites of light and big.", "", 0)
    assert said.response.startswith("Low is the opposite of light")
    assert (said.label, said.feedback) == ("DSAT", "Not low. There is no heavy in it.")


def test_turns_are_read_as_they_are(tmp_path):
    rows = [
        {"prompt": ASKED, "response": "A lime.", "feedback": "Not red.", "label": "DSAT"},
        {"prompt": "Say hello.", "response": "Hello.", "label": ""},
    ]
    found = files.read(written(tmp_path, rows), "interactions")
    assert list(found.columns) == list(Interactions.columns)
    assert found["label"].to_list() == ["DSAT", "none"]
    assert found["history"].to_list() == ["[]", "[]"]


def test_whole_conversations_become_turns(tmp_path):
    talk = [
        {"role": "user", "content": "A fruit?"},
        {"role": "assistant", "content": "Plum.\n\nAssistant: ### Response: plum"},
        {"role": "user", "content": "A red one!", "label": "DSAT"},
        {"role": "assistant", "content": "Cherry."},
        {"role": "user", "content": "Yes.", "label": "SAT"},
        {"role": "assistant", "content": "Glad to help."},
    ]
    first, second, third = files.read(
        written(tmp_path, [{"conversation": talk}]), "interactions"
    ).to_dicts()
    assert first["response"] == talk[1]["content"]  # whole, though it holds the marks of a role
    assert (first["feedback"], first["label"]) == ("A red one!", "DSAT")
    assert first["next_response"] == "Cherry."
    assert (second["instruction"], second["label"]) == ("A red one!", "SAT")
    assert [each["content"] for each in json.loads(second["history"])] == [
        talk[0]["content"],
        talk[1]["content"],
    ]
    assert (third["label"], third["feedback"], third["next_response"]) == ("none", "", "")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"instruction": "A", "response": "B", "label": "cross"}, "'label': 'cross' is none of"),
        ({"instruction": "A", "response": "B", "label": "SAT", "history": "{"}, "no JSON list"),
        ({"conversation": [{"role": "user"}]}, "row 1: a conversation is a list of messages"),
        ({"conversation": [TURNS[0]]}, "no answer in any conversation"),
        ({"instruction": "A", "label": "SAT"}, "no column 'response'"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, row, said):
    with pytest.raises(BadInput, match=said):
        files.read(written(tmp_path, [row]), "interactions")


def test_a_source_of_files_has_the_interactions_it_names(tmp_path):
    path = written(tmp_path, [row | {"label": "DSAT"} for row in ROWS])
    plain = Files(instructions=path, demonstrations=path)
    assert "interactions" not in plain.model_dump()
    with pytest.raises(BadInput, match="source 'files' has no interactions"):
        sources.interactions(plain, 5)
    with pytest.raises(BadInput, match="source 'hub' has no interactions"):
        sources.interactions(Hub(), 5)
    named = plain.replace(interactions=path, share_eval=0.01)
    assert sources.interactions(named, 2).height == 2
