"""The client: what a server can do wrong costs one answer at most."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from alpacafarm_core.endpoints import ask_for
from alpacafarm_core.errors import BadInput
from alpacafarm_core.llm import (
    Answer,
    Message,
    OpenAICompatible,
    Request,
    arrivals,
    openai_ask,
)

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
Reply = tuple[int, str, str]


def chat(content: str | None, **more: Any) -> Reply:
    message = {"role": "assistant", "content": content} | more
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return 200, "application/json", json.dumps({"choices": [choice], "usage": USAGE})


class Server(ThreadingHTTPServer):
    """Replies to a prompt with the next of the replies planned for it; the last one repeats."""

    def __init__(self, plan: dict[str, list[Reply]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan = plan
        self.seen: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """Plays the plan of its server."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append(body)
            self.server.keys.add(self.headers["Authorization"])
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        prompt = body.get("prompt") or body["messages"][-1]["content"]
        replies = self.server.plan.get(prompt, [chat("Output (a)")])
        status, kind, text = replies.pop(0) if len(replies) > 1 else replies[0]
        if status == 0:
            threading.Event().wait(1.0)
        with self.server.lock:
            self.server.at_once -= 1
        self.reply(status or 200, kind, text.encode())

    def reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After-Ms", "1")
        with suppress(BrokenPipeError):
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    plan = getattr(request, "param", {})
    with Server({prompt: list(replies) for prompt, replies in plan.items()}) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield served
        served.shutdown()


Asking = Callable[..., OpenAICompatible]


@pytest.fixture
def asking() -> Iterator[Asking]:
    """Makes clients and closes them."""
    with ExitStack() as stack:

        def made(url: str, **options: Any) -> OpenAICompatible:
            return stack.enter_context(closing(openai_ask(url, **options)))

        yield made


def request_of(text: str, role: str = "user", **changes: Any) -> Request:
    return Request("m", (Message(role, text),), 1.0, 20, **changes)


BUSY: Reply = (429, "application/json", '{"error": {"message": "slow down"}}')
BROKEN: Reply = (500, "text/plain", "oh")


@pytest.mark.parametrize("server", [{"busy": [BUSY, BUSY, chat("late")]}], indirect=True)
def test_a_rate_limit_is_waited_out(server: Server, asking: Asking) -> None:
    (answer,) = asking(server.url)([request_of("busy")])
    assert (answer.status, answer.text) == ("ok", "late")
    assert (answer.prompt_tokens, answer.completion_tokens) == (7, 3)
    assert len(server.seen) == 3


TROUBLE = {
    "broken": [BROKEN],
    "wrong": [(400, "application/json", '{"error": {"message": "too long"}}')],
    "secret": [(401, "application/json", '{"error": {"message": "bad key sk-123"}}')],
    "page": [(200, "text/html", "<html>Gateway</html>")],
    "torn": [(200, "application/json", '{"choices": [')],
    "empty": [(200, "application/json", '{"choices": []}')],
}


@pytest.mark.parametrize("server", [TROUBLE], indirect=True)
def test_bad_rows_fail_alone_and_say_why(server: Server, asking: Asking) -> None:
    prompts = ["fine", *TROUBLE, "fine too"]
    answers = asking(server.url, retries=1)([request_of(prompt) for prompt in prompts])
    assert [answer.status for answer in answers] == ["ok", *["failed"] * 6, "ok"]
    assert [answer.error for answer in answers[1:4]] == ["HTTP 500", "HTTP 400", "HTTP 401"]
    assert all(answer.error for answer in answers[4:7])
    assert [answer.finish_reason for answer in answers[1:4]] == ["error", "rejected", "error"]
    assert "sk-123" not in repr(answers)
    asked = [body["messages"][0]["content"] for body in server.seen]
    assert (asked.count("broken"), asked.count("wrong"), asked.count("secret")) == (2, 1, 1)


NULLS = {"null": [chat(None)], "refusal": [chat(None, refusal="I cannot do that.")]}


@pytest.mark.parametrize("server", [NULLS], indirect=True)
def test_null_content_is_an_empty_answer_or_the_refusal(server: Server, asking: Asking) -> None:
    answers = asking(server.url)([request_of("null"), request_of("refusal")])
    assert [(each.status, each.text) for each in answers] == [
        ("ok", ""),
        ("ok", "I cannot do that."),
    ]


@pytest.mark.parametrize("server", [{"hang": [(0, "text/plain", "")]}], indirect=True)
def test_a_hang_ends_at_the_timeout_and_others_arrive_before(
    server: Server, asking: Asking
) -> None:
    ask = asking(server.url, timeout=0.2, retries=0)
    arrived = [group[0] for group in arrivals(ask, [request_of("hang"), request_of("fine")])]
    assert [index for index, _ in arrived] == [1, 0]
    assert arrived[1][1].error == "APITimeoutError"


def test_at_most_so_many_are_under_way(server: Server, asking: Asking) -> None:
    asking(server.url, concurrency=2)([request_of(f"p{number}") for number in range(20)])
    assert server.most_at_once <= 2
    assert len(server.seen) == 20


def test_nobody_there_is_a_failed_answer(asking: Asking) -> None:
    (answer,) = asking("http://127.0.0.1:9/v1", retries=0)([request_of("x")])
    assert (answer.status, answer.error) == ("failed", "APIConnectionError")


def test_sampling_reaches_the_server(
    server: Server, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    asking(server.url)([request_of("x", seed=5, top_logprobs=2)])
    assert server.seen[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 20,
        "seed": 5,
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert server.keys == {"Bearer EMPTY"}


PLAIN = {"choices": [{"index": 0, "finish_reason": "length", "text": " (a)"}], "usage": USAGE}


@pytest.mark.parametrize(
    "server", [{"Better:": [(200, "application/json", json.dumps(PLAIN))]}], indirect=True
)
def test_plain_text_goes_to_completions(
    server: Server, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "mine")
    (answer,) = asking(server.url)([request_of("Better:", role="text")])
    assert (answer.text, answer.finish_reason) == (" (a)", "length")
    assert server.keys == {"Bearer mine"}


def test_log_probabilities_come_back(asking: Asking) -> None:
    top = [{"token": t, "logprob": p, "bytes": None} for t, p in (("m", -0.1), ("M", -2.3))]
    logprobs = {"content": [top[0] | {"top_logprobs": top}], "refusal": None}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": logprobs}
    choice |= {"message": {"role": "assistant", "content": "m"}}
    body = json.dumps({"choices": [choice], "usage": USAGE})
    with Server({"x": [(200, "application/json", body)]}) as served:
        threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
        (answer,) = asking(served.url)([request_of("x", top_logprobs=2)])
        served.shutdown()
    assert answer.logprobs == ({"m": -0.1, "M": -2.3},)


def test_a_fake_is_a_function() -> None:
    answer = Answer("x", "stop", 1, 1, 0.0)
    assert list(arrivals(lambda _: [answer], [request_of("x")])) == [[(0, answer)]]
    with pytest.raises(ValueError, match=r"shorter|longer"):
        list(arrivals(lambda _: [], [request_of("x")]))


def test_an_endpoint_is_the_world_or_a_url() -> None:
    assert ask_for("http://localhost:1/v1") is ask_for("http://localhost:1/v1")
    with pytest.raises(BadInput, match="'localhost' is neither world://"):
        ask_for("localhost")
