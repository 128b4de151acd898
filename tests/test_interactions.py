"""What users said: simulated, read from files, shown to a policy, and turned into pairs."""

import json
import logging
import re
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
BRIEF = {"role": "system", "content": "Be brief."}
NUTS = [{"role": "user", "content": "A nut?"}, {"role": "assistant", "content": "Hazel."}]


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


def test_what_the_system_says_stands_first_and_apart():
    for history in ([BRIEF, *TURNS], [*TURNS, BRIEF]):
        assert conversation(json.dumps(history), ASKED) == f"Be brief.\n\n{WHOLE}"


def test_messages_of_one_role_in_a_row_are_parted():
    said = [TURNS[0], TURNS[1], TURNS[1], TURNS[0]]
    assert conversation(json.dumps(said), ASKED) == (
        "A fruit?\n\n### Response:Plum.\n\nPlum.\n\n### Instruction:\nA fruit?\n\nName a red one."
    )


def shown_within(most: int, **told: str) -> str:
    """The guided prompt of the first row, with other words, in at most so many characters."""
    rows = frame(Interactions, [BLANK | ROWS[0] | told])
    return guided(rows, GUIDANCE.replace(characters=most))["prompt"][0]


def test_where_it_is_too_long_the_oldest_turns_go_and_the_complaint_stays():
    least = f"S {render(ASKED, '')}A lime {PLACE}.|Not red.|Again."
    assert shown_within(len(least)) == least
    assert guided(TALK, GUIDANCE.replace(characters=len(least)))["instruction"][0] == WHOLE


@pytest.mark.parametrize(
    ("history", "left"),
    [
        ([*TURNS, *NUTS], NUTS),
        ([BRIEF, *TURNS, *NUTS], [BRIEF, *NUTS]),
        ([TURNS[1], *NUTS], NUTS),
        ([BRIEF, *NUTS], [BRIEF]),
    ],
)
def test_an_exchange_goes_whole_and_what_the_system_said_stays(history, left):
    asked = conversation(json.dumps(left), ASKED)
    left_out = len(conversation(json.dumps(history), ASKED)) - len(asked)
    whole = shown_within(6000, history=json.dumps(history))
    shorter = shown_within(len(whole) - 1, history=json.dumps(history))
    assert shorter == f"S {render(asked, '')}A lime {PLACE}.|Not red.|Again."
    assert len(whole) - len(shorter) == left_out


def test_a_question_that_is_too_long_alone_loses_its_end():
    shown = shown_within(6000, history="[]", instruction="x" * 7000)
    assert len(shown) == 6000
    assert "x" * 5000 in shown and shown.endswith(f"A lime {PLACE}.|Not red.|Again.")


def test_the_longest_text_is_cut_first():
    shown = shown_within(600, response="y" * 7000, feedback="z" * 100)
    assert len(shown) == 600
    assert shown.startswith(f"S {render(ASKED, '')}yy") and shown.endswith(
        "|" + "z" * 100 + "|Again."
    )
    both = shown_within(250, history="[]", response="y" * 7000, feedback="z" * 1000)
    assert len(both) == 250 and ASKED in both and "zz" in both and "yy" not in both


def test_a_layout_that_leaves_no_room_is_refused():
    with pytest.raises(BadInput, match=r"characters and may have 10; raise guidance\.characters"):
        shown_within(10)


def test_a_layout_without_the_question_is_refused():
    with pytest.raises(ValueError, match="the layout has no"):
        Guidance(layout="{feedback}")


@pytest.mark.parametrize("name", ["{foo}", "{Prompt}", "{ response }", "{feedback.text}", "{0}"])
def test_a_placeholder_that_stands_for_nothing_is_refused(name):
    known = "use {system}, {prompt}, {response}, {feedback}, {request}"
    with pytest.raises(ValueError, match=re.escape(f"{name}, which stands for nothing; {known}")):
        Guidance(layout=f"{{prompt}}{name}")


def test_other_braces_and_braces_in_texts_stay_as_they_are():
    guidance = Guidance(system="{foo} ", layout='{system}{"a": {prompt}}')
    assert guided(TALK, guidance)["prompt"][1] == f'{{foo}} {{"a": {render("Say hello.", "")}}}'


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


def test_what_the_system_said_is_in_the_history_of_each_turn(tmp_path):
    talk = [BRIEF, *TURNS, *NUTS]
    first, second = files.read(written(tmp_path, [{"messages": talk}]), "interactions")["history"]
    assert (json.loads(first), json.loads(second)) == ([BRIEF], [BRIEF, *TURNS])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"instruction": "A", "response": "B", "label": "cross"}, "'label': 'cross' is none of"),
        ({"instruction": "A", "response": "B", "label": "SAT", "history": "{"}, "no JSON list"),
        (
            {"instruction": "A", "response": "B", "label": "SAT", "history": '[{"role": "tool"}]'},
            r"role \(system, user or assistant\) and content",
        ),
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


def asked(source: Files, split: str) -> list[str]:
    """The prompts of a split of a source."""
    return sources.instructions(source, split, 100)["instruction"].to_list()


@pytest.fixture
def split_in_two(tmp_path) -> Files:
    """Forty prompts, about half of them evaluated, and no turns yet."""
    prompts = tmp_path / "prompts.json"
    rows = [{"instruction": f"Question {n}?", "davinci003": "A", "output": "A"} for n in range(40)]
    prompts.write_text(json.dumps(rows))
    return Files(instructions=prompts, demonstrations=prompts)


def test_no_turn_comes_after_an_evaluation_prompt(split_in_two, tmp_path, caplog):
    """One is planted as the prompt, one as the first message and one as the last one before."""
    held_out, free = asked(split_in_two, "eval"), asked(split_in_two, "unlabeled")
    plain = {"response": "B", "feedback": "No.", "label": "DSAT", "next_response": "C"}

    def after(*before: str) -> str:
        pairs = [({"role": "user", "content": said}, TURNS[1]) for said in before]
        return json.dumps([message for pair in pairs for message in pair])

    turns = [
        plain | {"instruction": held_out[0], "history": "[]"},
        plain | {"instruction": free[0], "history": after(held_out[1], free[1])},
        plain | {"instruction": free[2], "history": after(free[1], f" {held_out[2]}\n")},
        plain | {"instruction": free[3], "history": after(free[4], free[5])},
        plain | {"instruction": free[6], "history": "[]"},
    ]
    source = split_in_two.replace(interactions=written(tmp_path, turns))
    with caplog.at_level(logging.WARNING, "alpacafarm.sources"):
        rows = sources.interactions(source, 10)
    assert rows["instruction"].to_list() == [free[3], free[6]]
    trained = accepted(rows)["instruction"].to_list()
    assert not [one for one in trained if any(each in one for each in held_out)]
    assert caplog.messages == [
        "3 of 5 turns left out: 1 ask an evaluation prompt, 2 more come after one"
    ]
    alone = source.replace(interactions=written(tmp_path, turns[:2]))
    with pytest.raises(BadInput, match=r"talk\.json: each of 2 turns asks an evaluation prompt or"):
        sources.interactions(alone, 10)
