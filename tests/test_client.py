"""The client: what a server can do wrong costs one answer at most."""

import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from alpacafarm_core.client import OpenAICompatible, openai_ask
from alpacafarm_core.endpoints import ask_for
from alpacafarm_core.errors import BadInput
from alpacafarm_core.llm import Answer, Message, Request, arrivals
from alpacafarm_core.pacing import Limits

HANGS = 0
NO_HEADERS: Mapping[str, str] = {}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
Reply = tuple[int, str, str] | tuple[int, str, str, dict[str, str]]


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
        self.latency, self.sip = 0.0, 1 << 20
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
        status, kind, text, *more = replies.pop(0) if len(replies) > 1 else replies[0]
        threading.Event().wait(self.server.latency)
        if status == HANGS:
            threading.Event().wait(1.0)
        with self.server.lock:
            self.server.at_once -= 1
        self.reply(status or 200, kind, text.encode(), *more)

    def reply(
        self, status: int, kind: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        with suppress(BrokenPipeError, ConnectionResetError):
            self.end_headers()
            for start in range(0, len(body), self.server.sip):
                self.wfile.write(body[start : start + self.server.sip])
                threading.Event().wait(0.1 if self.server.sip == 1 else 0.0)

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing."""


@contextmanager
def served(plan: dict[str, list[Reply]]) -> Iterator[Server]:
    with Server({prompt: list(replies) for prompt, replies in plan.items()}) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with served(getattr(request, "param", {})) as server:
        yield server


Asking = Callable[..., OpenAICompatible]


@pytest.fixture
def asking() -> Iterator[Asking]:
    """Makes clients that do not wait long, and closes them."""
    with ExitStack() as stack:

        def made(url: str, **limits: Any) -> OpenAICompatible:
            quick = Limits(**{"first_wait": 0.01, "longest_wait": 0.05} | limits)
            return stack.enter_context(closing(openai_ask(url, quick)))

        yield made


def request_of(text: str, role: str = "user", **changes: Any) -> Request:
    return Request("m", (Message(role, text),), 1.0, 20, **changes)


BUSY: Reply = (429, "application/json", "{}", {"Retry-After-Ms": "1"})
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
    "missing": [(404, "text/html", "nothing here")],
    "poor": [(429, "application/json", '{"error": {"code": "insufficient_quota"}}')],
    "page": [(200, "text/html", "<html>Gateway</html>")],
    "torn": [(200, "application/json", '{"choices": [')],
    "empty": [(200, "application/json", '{"choices": []}')],
    "list": [(200, "application/json", "[]")],
    "null": [chat(None)],
}


@pytest.mark.parametrize("server", [TROUBLE], indirect=True)
def test_bad_rows_fail_alone_and_say_why(server: Server, asking: Asking) -> None:
    prompts = ["fine", *TROUBLE, "fine too"]
    answers = asking(server.url, retries=1)([request_of(prompt) for prompt in prompts])
    assert [answer.status for answer in answers] == ["ok", *["failed"] * 10, "ok"]
    said = dict(zip(prompts, (answer.error for answer in answers), strict=True))
    assert (said["broken"], said["wrong"]) == ("HTTP 500", "HTTP 400")
    assert said["secret"].startswith("HTTP 401: the key in OPENAI_API_KEY is not taken")
    assert said["missing"].startswith("HTTP 404: no such model or path")
    assert said["poor"] == "HTTP 429: the account has no credit left; add some"
    assert {said[name] for name in list(TROUBLE)[5:]} == {"the body is no completion"}
    reasons = {"error": 9, "rejected": 1, "stop": 2}
    assert Counter(answer.finish_reason for answer in answers) == reasons
    assert "sk-123" not in repr(answers)


@pytest.mark.parametrize("server", [TROUBLE], indirect=True)
def test_only_what_may_succeed_is_tried_again(server: Server, asking: Asking) -> None:
    asking(server.url, retries=1)([request_of(prompt) for prompt in TROUBLE])
    asked = Counter(body["messages"][0]["content"] for body in server.seen)
    assert {name for name, tries in asked.items() if tries == 1} == {
        "wrong",
        "secret",
        "missing",
        "poor",
    }
    assert set(asked.values()) == {1, 2}


@pytest.mark.parametrize(
    "server", [{"x": [(200, "text/html", "<html>"), BROKEN, chat("at last")]}], indirect=True
)
def test_a_page_or_a_fault_now_and_then_costs_no_answer(server: Server, asking: Asking) -> None:
    assert asking(server.url)([request_of("x")])[0].text == "at last"


@pytest.mark.parametrize("server", [{"hang": [(HANGS, "text/plain", "")]}], indirect=True)
def test_a_hang_ends_at_the_timeout_and_others_arrive_before(
    server: Server, asking: Asking
) -> None:
    ask = asking(server.url, timeout=0.2, retries=0)
    requests = [request_of("hang"), request_of("fine")]
    arrived = [each for group in arrivals(ask, requests, 9) for each in group]
    assert [index for index, _ in arrived] == [1, 0]
    assert arrived[1][1].error == "no answer in 0.2 s"


def test_a_slow_drip_ends_at_the_timeout(server: Server, asking: Asking) -> None:
    server.sip = 1
    (answer,) = asking(server.url, timeout=0.3, retries=0)([request_of("x")])
    assert answer.error == "no answer in 0.3 s"


@pytest.mark.parametrize("server", [{"x": [BROKEN]}], indirect=True)
def test_no_try_starts_beyond_the_deadline(server: Server, asking: Asking) -> None:
    ask = asking(server.url, first_wait=30.0, longest_wait=30.0, deadline=5.0)
    assert ask([request_of("x")])[0].error == "HTTP 500"
    assert len(server.seen) == 1


def test_as_many_as_the_limit_are_under_way_and_no_more(server: Server, asking: Asking) -> None:
    server.latency = 0.05
    asking(server.url, concurrency=4)([request_of(f"p{number}") for number in range(20)])
    assert server.most_at_once == 4
    assert len(server.seen) == 20


@pytest.mark.parametrize("server", [{"busy": [BUSY, BUSY, chat("Output (a)")]}], indirect=True)
def test_two_who_ask_share_one_limit(server: Server, asking: Asking) -> None:
    server.latency, ask = 0.02, asking(server.url, concurrency=3)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(ask, [[request_of("busy")] + [request_of("x")] * 9] * 2))
    assert {answer.text for answers in both for answer in answers} == {"Output (a)"}
    assert server.most_at_once <= 3


def test_nobody_there_is_a_failed_answer(asking: Asking) -> None:
    (answer,) = asking("http://127.0.0.1:9/v1", retries=0)([request_of("x")])
    assert (answer.status, answer.error) == ("failed", "no connection (APIConnectionError)")


@pytest.mark.parametrize("server", [{"x": [BROKEN] * 3 + [chat("back")]}], indirect=True)
def test_an_endpoint_that_is_down_is_left_alone_for_a_while(server: Server, asking: Asking) -> None:
    ask = asking(server.url, concurrency=1, retries=0, strikes=3, grace=0.0, pause=0.3)
    answers = ask([request_of("x")] * 9)
    assert [answer.error for answer in answers[:3]] == ["HTTP 500"] * 3
    assert {answer.error for answer in answers[3:]} == {f"{server.url} is down: HTTP 500"}
    assert len(server.seen) == 3
    threading.Event().wait(0.35)
    assert [answer.text for answer in ask([request_of("x")] * 3)] == ["back"] * 3


@pytest.mark.parametrize("server", [{"x": [BROKEN, chat("back")]}], indirect=True)
def test_one_finds_out_for_all_that_an_endpoint_is_back(server: Server, asking: Asking) -> None:
    ask = asking(server.url, concurrency=4, retries=0, strikes=1, grace=0.0, pause=0.1)
    assert ask([request_of("x")])[0].error == "HTTP 500"
    threading.Event().wait(0.15)
    server.latency = 0.05
    assert [answer.text for answer in ask([request_of("x")] * 9)] == ["back"] * 9


@pytest.mark.parametrize("server", [{"x": [BROKEN, BUSY, chat("back")]}], indirect=True)
def test_an_endpoint_that_is_only_busy_is_back(server: Server, asking: Asking) -> None:
    ask = asking(server.url, concurrency=4, retries=0, strikes=1, grace=0.0, pause=0.1)
    assert ask([request_of("x")])[0].error == "HTTP 500"
    threading.Event().wait(0.15)
    assert [answer.text for answer in ask([request_of("x")] * 9)] == ["back"] * 9


@pytest.mark.parametrize(
    "server", [{"x": [(429, "application/json", "{}", {"Retry-After": "86400"})]}], indirect=True
)
def test_nobody_waits_for_a_day(server: Server, asking: Asking) -> None:
    (answer, other) = asking(server.url, concurrency=1)([request_of("x"), request_of("y")])
    assert answer.error == "HTTP 429"
    assert other.error == f"{server.url} is down: HTTP 429, to be asked again in 86400 s"


def test_what_is_no_unicode_is_rejected(server: Server, asking: Asking) -> None:
    (answer,) = asking(server.url)([request_of("half of a pair: \ud83d")])
    assert (answer.status, answer.finish_reason) == ("failed", "rejected")
    assert server.seen == []


def test_an_interrupt_hands_over_what_arrived_and_drops_the_rest(
    server: Server, asking: Asking
) -> None:
    server.latency, ask = 0.1, asking(server.url, concurrency=2)
    groups = ask.arrivals([request_of(f"p{number}") for number in range(40)])
    first = next(groups)
    threading.Event().wait(0.3)
    signal.raise_signal(signal.SIGINT)
    arrived = next(groups)
    asked = len(server.seen)
    assert arrived
    assert {index for index, _ in arrived}.isdisjoint(index for index, _ in first)
    assert len(first) + len(arrived) <= asked <= len(first) + len(arrived) + 2
    with pytest.raises(KeyboardInterrupt):
        next(groups)
    threading.Event().wait(0.2)
    assert len(server.seen) == asked
    assert ask([request_of("again")])[0].status == "ok"


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


def test_a_fake_is_a_function() -> None:
    answer = Answer("x", "stop", 1, 1, 0.0)
    assert list(arrivals(lambda _: [answer], [request_of("x")], 9)) == [[(0, answer)]]
    with pytest.raises(ValueError, match=r"shorter|longer"):
        list(arrivals(lambda _: [], [request_of("x")], 9))


def test_an_endpoint_is_the_world_or_a_url() -> None:
    assert ask_for("http://localhost:1/v1") is ask_for("http://localhost:1/v1")
    with pytest.raises(BadInput, match="'localhost' is neither world://"):
        ask_for("localhost")
