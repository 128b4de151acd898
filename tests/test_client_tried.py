"""The client where servers, threads and processes try it: bodies, redirects, forks, the end."""

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from alpacafarm_core import completions
from alpacafarm_core.client import OpenAICompatible, openai_ask
from alpacafarm_core.errors import BadInput
from alpacafarm_core.llm import Message, Request
from alpacafarm_core.pacing import Limits

ANSWER = json.dumps(
    {"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}]}
).encode()


class Handler(BaseHTTPRequestHandler):
    """Does with a prompt what is planned for it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with suppress(BrokenPipeError, ConnectionResetError):
            PLAN[body["messages"][-1]["content"]](self)

    def whole(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing."""


def endless(status: int) -> Callable[[Handler], None]:
    def send(handler: Handler) -> None:
        handler.send_response(status)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b" " * (1 << 20))

    return send


BOMB = gzip.compress(b" " * (100 << 20))
PLAN: dict[str, Callable[[Handler], object]] = {
    "fine": lambda handler: handler.whole(200, ANSWER),
    "packed": lambda handler: handler.whole(200, gzip.compress(ANSWER), Content_Encoding="gzip"),
    "bomb": lambda handler: handler.whole(200, BOMB, Content_Encoding="gzip"),
    "endless": endless(200),
    "endless refusal": endless(500),
    "moved": lambda handler: handler.whole(308, b"", Location="http://127.0.0.1:9/v1"),
    "busy": lambda handler: handler.whole(429, b"", Retry_After_Ms="1000"),
    "slow": lambda handler: (threading.Event().wait(1.0), handler.whole(200, ANSWER)),
}


@contextmanager
def served() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served() as url:
        yield url


@pytest.fixture
def ask(url: str) -> Iterator[OpenAICompatible]:
    with closing(openai_ask(url, Limits(retries=0, deadline=1.5, concurrency=2))) as ask:
        yield ask


def request_of(text: str) -> Request:
    return Request("m", (Message("user", text),), 1.0, 20)


def test_a_packed_answer_is_unpacked(ask: OpenAICompatible) -> None:
    assert ask([request_of("packed")])[0].text == "fine"


@pytest.mark.parametrize("prompt", ["bomb", "endless", "endless refusal"])
def test_no_more_of_a_body_is_read_than_an_answer_can_be(
    ask: OpenAICompatible, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    monkeypatch.setattr(completions, "MOST_BYTES", 1 << 20)
    assert ask([request_of(prompt)])[0].error == "the body is longer than 1 MiB"
    assert ask([request_of("fine")])[0].text == "fine"


def test_a_redirect_is_not_followed(ask: OpenAICompatible) -> None:
    assert ask([request_of("moved")])[0].error.startswith("HTTP 308: moved elsewhere; write the")


def test_a_place_that_comes_after_the_deadline_is_no_fault_of_the_endpoint(
    ask: OpenAICompatible,
) -> None:
    assert {answer.error for answer in ask([request_of("busy")] * 2)} == {"HTTP 429"}


def test_a_key_that_no_header_can_hold_is_refused_unseen(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "schlüssel")
    with pytest.raises(BadInput, match="OPENAI_API_KEY") as caught:
        openai_ask(url)([request_of("fine")])
    assert "schl" not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1\n")
    with closing(openai_ask(url)) as ask:
        assert ask([request_of("fine")])[0].text == "fine"


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(BadInput, match="Invalid IPv6 URL; mend the panel"):
        openai_ask("http://[::1")


def test_who_still_asks_a_client_that_is_closed_is_told(url: str) -> None:
    ask = openai_ask(url)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, [request_of("slow")] * 40)
        threading.Event().wait(0.3)
        ask.close()
        with pytest.raises(CancelledError):
            asked.result(timeout=5)


def test_a_forked_process_asks_on_connections_of_its_own(url: str) -> None:
    words = [sys.executable, "-W", "error", "-c", FORKS, url]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout.split(), done.stderr) == (["fine"] * 3, "")


FORKS = """
import multiprocessing, sys
from alpacafarm_core.endpoints import ask_for
from tests.test_client_tried import request_of

def ask(url):
    print(ask_for(url)([request_of("fine")])[0].text, flush=True)

ask(sys.argv[1])
child = multiprocessing.get_context("fork").Process(target=ask, args=sys.argv[1:])
child.start()
child.join(20)
child.kill()
ask(sys.argv[1])
"""
