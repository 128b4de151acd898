"""The text before a user's turn, where a draw ends, and what it comes to."""

import json

import pytest

from alpacafarm_core.errors import BadInput
from alpacafarm_core.inventing import (
    RULES,
    Found,
    Turn,
    found_in,
    never_first,
    prompt_of,
    special_texts,
    stop_ids,
    tidied,
    turn_of,
)
from alpacafarm_core.prompts import render
from alpacafarm_core.synthesis import Inventing
from alpacafarm_core.train.models import load_tokenizer
from tests.tiny import tiny_model

CHATML = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x"
PLAIN, SPECIAL = Turn("", "", "\n\n### Response:"), ("<s>", "</s>", "<pad>")
WITH_INPUT = Turn("", "\n\n### Input:\n", "\n\n### Response:")
TALK = json.dumps([
    {"role": "user", "content": "Name a fruit."}, {"role": "assistant", "content": "A plum."},
])  # fmt: skip


@pytest.fixture
def tokenizer(tmp_path):
    return load_tokenizer(tiny_model(tmp_path))


def test_a_draw_begins_where_the_instruction_would_stand(tokenizer):
    turn = turn_of(tokenizer, "farm")
    assert turn.before + "Name a fruit." + turn.after == render("Name a fruit.", "")
    turn = turn_of(tokenizer, "farm", has_input=True)
    assert turn.before + "Sort." + turn.between + "b, a" + turn.after == render("Sort.", "b, a")


def test_a_policy_with_a_wording_of_its_own_is_asked_in_it(tokenizer):
    tokenizer.init_kwargs["prompt_templates"] = {"prompt_noinputs": "USER: {instruction} BOT:"}
    assert turn_of(tokenizer, "farm") == Turn("USER: ", "", " BOT:")
    with pytest.raises(BadInput, match="prompt_inputs is missing or lacks a gap"):
        turn_of(tokenizer, "farm", has_input=True)


def test_the_chat_template_ends_where_the_user_speaks_and_begins_once(tokenizer):
    tokenizer.chat_template = CHATML
    assert turn_of(tokenizer, "chat") == Turn("<s><|user|>\n", "", "\n<|assistant|>\n")
    adds_its_own = load_tokenizer_that_begins(tokenizer)
    assert turn_of(adds_its_own, "chat").before == "<|user|>\n"
    begin = adds_its_own.bos_token_id
    assert adds_its_own(turn_of(adds_its_own, "chat").before).input_ids.count(begin) == 1


def load_tokenizer_that_begins(tokenizer):
    """The same one, putting its begin token before every text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


def test_a_policy_without_a_chat_template_is_refused(tokenizer):
    with pytest.raises(BadInput, match="no chat template; set layout to farm"):
        turn_of(tokenizer, "chat")
    tokenizer.chat_template = NO_SYSTEM
    with pytest.raises(BadInput, match=r"refuses \['system', 'user'\].*leave the system text"):
        turn_of(tokenizer, "chat", system="Ask about mathematics.")


@pytest.mark.parametrize("layout", ["farm", "chat"])
def test_a_system_text_is_drawn_from_and_never_answered_from(tokenizer, layout):
    tokenizer.chat_template = CHATML
    secret = "The user asks on."
    before = turn_of(tokenizer, layout, secret, TALK).before
    answered = prompt_of(tokenizer, layout, TALK, ("A red one?", ""))
    assert secret in before and secret not in answered
    for text in (before, answered):
        assert text.index("Name a fruit.") < text.index("A plum.")
    assert answered.index("A plum.") < answered.index("A red one?")


def test_special_tokens_stops_and_newlines_end_a_draw(tokenizer):
    ends = stop_ids(tokenizer, Inventing(stops=("!",)))
    assert {0, 1, 2, tokenizer.get_vocab()["!"]} < ends
    newlines = ends - {0, 1, 2, tokenizer.get_vocab()["!"]}
    assert newlines and all("\n" in tokenizer.decode([each]) for each in newlines)
    assert stop_ids(tokenizer, Inventing(newline=False)) == {0, 1, 2}
    assert stop_ids(tokenizer, Inventing(), has_input=True) == {0, 1, 2}


def test_stops_are_built_anew_each_time(tokenizer):
    stop_ids(tokenizer, Inventing(stops=("!",)))
    assert tokenizer.get_vocab()["!"] not in stop_ids(tokenizer, Inventing())


def test_a_misspelled_stop_is_refused_with_the_one_that_was_meant(tokenizer):
    with pytest.raises(BadInput, match=r"stops: '</ss>' is no token.*did you mean '</s>'"):
        stop_ids(tokenizer, Inventing(stops=("</ss>",)))
    with pytest.raises(BadInput, match="never_first: '§§' is no token of this policy"):
        never_first(tokenizer, Inventing(never_first=("§§",)))
    assert never_first(tokenizer, Inventing(never_first=("#",))) == [tokenizer.get_vocab()["#"]]


def test_special_tokens_are_known_by_their_spelling(tokenizer):
    assert set(SPECIAL) <= set(special_texts(tokenizer))


@pytest.mark.parametrize(
    ("text", "ended", "found"),
    [
        ("Name a fruit.\nA plum.", False, ("Name a fruit.", "", "", "ok")),
        ("Name a fruit.", True, ("Name a fruit.", "", "", "ok")),
        ("Name a fruit and", False, ("Name a fruit and", "", "", "unfinished")),
        ("Name a fruit. Assistant: A plum.", False, ("Name a fruit.", "", "", "ok")),
        ("Write to assistants.", True, ("Write to assistants.", "", "", "ok")),
        ("\nName a fruit.", True, ("", "", "", "empty")),
        ("Name <s> a fruit.", True, ("Name <s> a fruit.", "", "", "special")),
    ],
)
def test_what_a_draw_comes_to(text, ended, found):
    assert found_in(text, PLAIN, Inventing(), SPECIAL, ended) == Found(*found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Sort.\n\n### Input:\nb\na\n\n### Response:a", ("Sort.", "b\na", "", "ok")),
        ("Sort.\n\n### Response:a", ("Sort.", "", "", "no_input")),
        ("Sort\nthese.\n\n### Input:\nb", ("Sort\nthese.", "", "", "no_input")),
        ("Sort.\n\n### Input:\n", ("Sort.", "", "", "no_input")),
    ],
)
def test_what_a_draw_with_an_input_comes_to(text, found):
    assert found_in(text, WITH_INPUT, Inventing(), SPECIAL, True) == Found(*found)


def test_no_newline_is_left_where_a_newline_ends_the_draw():
    assert "\n" not in found_in("a\nb", PLAIN, Inventing(), SPECIAL, True).instruction
    both = found_in("a\nb", PLAIN, Inventing(newline=False), SPECIAL, True)
    assert both.instruction == "a\nb"


@pytest.mark.parametrize(
    ("text", "rules", "tidy"),
    [
        ("1. Name a fruit.", RULES, ("Name a fruit.", "numbering")),
        ("Task: Name a fruit.", RULES, ("Name a fruit.", "prefix")),
        ("2) Question 3: Why? Answer: Because.", RULES, ("Why?", "numbering+prefix+answer")),
        ("Solve x + 1 = 2. ## Step 1: subtract.", RULES, ("Solve x + 1 = 2.", "steps")),
        ("Here is one.\nWhat is a plum?\nA fruit.", RULES, ("What is a plum?", "first")),
        ("Name a fruit.\nAnd a tree.", RULES, ("Name a fruit.", "first")),
        ("1. Name a fruit.", (), ("1. Name a fruit.", "")),
        ("Name a fruit.", RULES, ("Name a fruit.", "")),
    ],
)
def test_each_rule_is_noted_where_it_changed_something(text, rules, tidy):
    assert tidied(text, rules) == tidy


def test_a_chat_template_has_no_place_for_inputs():
    with pytest.raises(ValueError, match="inputs 4 asks for draws with an input"):
        Inventing(layout="chat", inputs=4)
