"""The world's judges over HTTP: the same answers as inside, and faults that can be told."""

import json
import signal
import socket
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request as Http
from urllib.request import urlopen

import pytest

from alpacafarm_core.client import openai_ask
from alpacafarm_core.llm import Message, Request
from alpacafarm_core.pacing import Limits
from alpacafarm_core.world import judges
from alpacafarm_core.world.server import CHAT, FAULTS, PLAIN, Call, Manner, drawn, reply, serving

OUTPUTS = "### Output (a):\nRed.\n\n### Output (b):\nBlue, I say.\n\n"
EXAMPLE = "## Example:\n\n### Instruction:\n{}\n\n" + OUTPUTS
QUICK = Limits(timeout=0.5, first_wait=0.01, longest_wait=0.05, retries=12)


def prompt(*instructions: str) -> str:
    return "".join(EXAMPLE.format(each) for each in instructions) + "## Verdict\n"


def request_of(text: str, model: str = "world/always-first", role: str = "user") -> Request:
    return Request(model, (Message(role, text),), 1.0, 50)


def call_of(text: str, attempt: int = 0, path: str = CHAT) -> Call:
    held = {"model": "world/always-first", "prompt": text}
    held["messages"] = [{"role": "user", "content": text}]  # type: ignore[assignment]
    return Call(path, json.dumps(held).encode(), text, attempt)


def text_of(body: bytes) -> str:
    return str(json.loads(body)["choices"][0]["message"]["content"])


@pytest.mark.parametrize("role", ["user", "text"])
def test_the_answers_are_those_of_the_judges_inside(role: str) -> None:
    requests = [request_of(prompt(f"Name {n}"), "world/judge-gpt4-1", role) for n in range(6)]
    with serving(Manner()) as url, closing(openai_ask(url, QUICK)) as ask:
        over_http = ask(requests)
    for there, here in zip(over_http, judges.ask(requests), strict=True):
        assert (there.text, there.finish_reason) == (here.text, here.finish_reason)
        assert there.prompt_tokens == here.prompt_tokens


def test_a_model_it_lacks_and_a_body_that_is_none_are_refused() -> None:
    with serving(Manner()) as url:
        with closing(openai_ask(url, QUICK)) as ask:
            assert ask([request_of("x", "gpt-9")])[0].error.startswith("HTTP 404")
        for path, status in (("/chat/completions", 400), ("/elsewhere", 404)):
            with pytest.raises(HTTPError) as caught, closing(urlopen(Http(url + path, data=b"?"))):
                pass
            with caught.value as error:
                assert error.code == status


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "world/always-first", "messages": []}',
        b'{"model": "world/always-first", "prompt": "x", "messages": [], "max_tokens": 1e999}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_what_asks_nothing_is_refused(body: bytes) -> None:
    assert reply(Call(CHAT, body, "", 0)).status == 400


@pytest.mark.parametrize(
    "words", [b"\r\n\r\n", b"POST /v1 HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"x" * 200_000]
)
def test_who_speaks_no_http_is_hung_up_on(words: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with serving(Manner()) as url:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as caller:
            caller.sendall(words)
            with suppress(ConnectionError):
                assert caller.recv(9) == b""
    assert not caplog.records


def test_faults_are_drawn_by_content_and_attempt_each_as_often() -> None:
    manner = Manner(faults=0.5)
    found = [drawn(manner, call_of(f"x{number}")) for number in range(2000)]
    assert found == [drawn(manner, call_of(f"x{number}")) for number in range(2000)]
    assert 900 < found.count("") < 1100
    assert all(70 < found.count(fault) < 130 for fault in FAULTS)
    again = [drawn(manner, call_of("x0", attempt)) for attempt in range(20)]
    assert "" in again


def test_each_fault_of_a_reply_is_what_it_says() -> None:
    call = call_of(prompt("one", "two"))
    assert [reply(call, fault).status for fault in ("429", "500", "html")] == [429, 500, 200]
    assert reply(call, "html").kind == "text/html"
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply(call, "truncated").body)
    assert json.loads(reply(call, "no choices").body)["choices"] == []
    assert text_of(reply(call, "null content").body) == "None"
    assert len(text_of(reply(call).body).splitlines()) == 2
    assert len(text_of(reply(call, "wrong number").body).splitlines()) == 4
    assert reply(call, "wrong number").is_answer


def test_one_verdict_cannot_be_a_wrong_number() -> None:
    said = reply(call_of(prompt("one")), "wrong number")
    assert json.loads(said.body)["choices"] == []
    assert not said.is_answer
    assert json.loads(reply(call_of(prompt("one"), path=PLAIN)).body)["choices"][0]["text"]


def test_a_client_gets_through_and_the_log_says_what_was_answered(tmp_path: Path) -> None:
    requests = [request_of(prompt(f"Name {number}")) for number in range(60)]
    log = tmp_path / "answered.jsonl"
    with serving(Manner(faults=0.6, log=log)) as url, closing(openai_ask(url, QUICK)) as ask:
        answers = ask(requests)
    assert {answer.text for answer in answers} == {"Output (a)"}
    answered = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({line["call"] for line in answered}) == len(answered) == 60
    assert any(line["attempt"] > 0 for line in answered)


def test_the_command_says_where_it_listens(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "alpacafarm_core.world.server", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
