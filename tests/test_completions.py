"""Completions over the wire: what is read as an answer, and what is none."""

import json
from typing import Any

import pytest

from alpacafarm_core.completions import NoCompletion, body, path, read
from alpacafarm_core.llm import Message, Request


def chat(content: Any, reason: str = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content} | more
    return {"choices": [{"index": 0, "finish_reason": reason, "message": message}]}


def test_content_and_what_it_took() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": None}
    answer = read(json.dumps(chat("Output (a)") | {"usage": usage}).encode(), seconds=0.5)
    assert (answer.text, answer.finish_reason, answer.status) == ("Output (a)", "stop", "ok")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.seconds) == (7, 0, 0.5)


CALL = {"function": {"name": "f", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize(
    ("held", "text"),
    [
        (chat(None, refusal="I cannot do that."), "I cannot do that."),
        (chat(None, reason="content_filter"), ""),
        (chat(None, reason="length"), ""),
        (chat(""), ""),
        (chat(None, tool_calls=[CALL]), '{"a": 1}'),
        ({"choices": [{"text": " (a)", "finish_reason": None}]}, " (a)"),
    ],
)
def test_without_content_an_answer_stands_only_with_a_reason(held: Any, text: str) -> None:
    assert read(held, 0.0).text == text


@pytest.mark.parametrize(
    "held",
    [chat(None), chat(["parts"]), {"choices": []}, {}, [], None, 7, b"<html>", b'{"'],
)
def test_anything_else_is_no_completion(held: Any) -> None:
    with pytest.raises(NoCompletion):
        read(held, 0.0)


@pytest.mark.parametrize(
    "held",
    [
        chat("Output (a)", reason="error"),
        chat("Outp", reason="abort"),
        chat("x") | {"usage": {"prompt_tokens": 10**30}},
        chat("x") | {"usage": {"completion_tokens": -4}},
        {"choices": [{"text": "m", "logprobs": {"top_logprobs": [{"m": float("nan")}]}}]},
        {"choices": [{"text": "m", "logprobs": {"top_logprobs": [{"m": None}]}}]},
    ],
)
def test_what_broke_off_or_counts_nonsense_is_no_completion(held: Any) -> None:
    with pytest.raises(NoCompletion):
        read(held, 0.0)


def test_half_a_character_is_replaced_as_no_file_can_hold_it() -> None:
    torn = json.dumps(chat("Output (a) \ud83d")).encode()
    assert read(torn, 0.0).text == "Output (a) \ufffd"
    assert read(json.dumps(chat("\U0001f600")).encode(), 0.0).text == "\U0001f600"


def test_log_probabilities_that_nobody_asked_for_may_lack_alternatives() -> None:
    talk = chat("m")
    talk["choices"][0]["logprobs"] = {"content": [{"token": "m", "top_logprobs": None}]}
    assert read(talk, 0.0).text == "m"


def test_log_probabilities_of_both_forms() -> None:
    top = [{"token": t, "logprob": p, "bytes": None} for t, p in (("m", -0.1), ("M", -2.3))]
    talk = chat("m")
    talk["choices"][0]["logprobs"] = {"content": [top[0] | {"top_logprobs": top}]}
    plain = {"text": "m", "logprobs": {"top_logprobs": [None, {"m": -0.1}]}}
    assert read(talk, 0.0).logprobs == ({"m": -0.1, "M": -2.3},)
    assert read({"choices": [plain]}, 0.0).logprobs == ({}, {"m": -0.1})


def test_further_fields_go_into_the_body() -> None:
    turn = (Message("text", "Better:"),)
    request = Request("m", turn, 0.0, 5, top_logprobs=3, extra='{"logit_bias": {"5": 7}}')
    assert path(request) == "/completions"
    assert body(request) == {
        "model": "m",
        "prompt": "Better:",
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 5,
        "seed": 0,
        "logprobs": 3,
        "logit_bias": {"5": 7},
    }
