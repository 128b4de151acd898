"""The seam to language models: requests in, answers out, in the same order.

`Ask` is the only way judges reach a model. A fake is a function. What is here beside the types is
the one real client, for any OpenAI-compatible URL, and the way from an endpoint to who answers.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, runtime_checkable

if TYPE_CHECKING:
    from openai import AsyncOpenAI

WORLD = "world://"
_NOT_OURS_TO_REPEAT = {400, 413, 422}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; `role` is system, user, assistant, or text for a plain completion prompt."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One call to one model at one endpoint."""

    model: str
    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    seed: int = 0
    top_p: float = 1.0
    top_logprobs: int = 0
    endpoint: str = WORLD


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `status` is ok or failed, and a failed answer has `error` instead of text.

    A failed answer's `finish_reason` is "rejected" when the request itself was at fault, so that
    sending it again would fail again.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    status: str = "ok"
    error: str = ""
    logprobs: tuple[dict[str, float], ...] = ()


Ask = Callable[[Sequence[Request]], list[Answer]]


@runtime_checkable
class Streams(Protocol):
    """An `Ask` that can hand over each answer as it arrives, with the index of its request."""

    def arrivals(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Answers in the order in which they come."""


def arrivals(ask: Ask, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
    """Groups of answers worth remembering together: single ones from a stream, else all."""
    if isinstance(ask, Streams):
        yield from ([arrived] for arrived in ask.arrivals(requests))
    else:
        answers = ask(requests)
        yield [
            (index, answer) for index, (_, answer) in enumerate(zip(requests, answers, strict=True))
        ]


def failed(error: str, seconds: float = 0.0, rejected: bool = False) -> Answer:
    """The answer that stands for none."""
    return Answer("", "rejected" if rejected else "error", 0, 0, seconds, "failed", error)


def openai_ask(
    base_url: str, concurrency: int = 8, timeout: float = 120.0, retries: int = 5
) -> "OpenAICompatible":
    """One shared client of an OpenAI-compatible API.

    At most `concurrency` requests are under way; `timeout` is in seconds for each try. Rate limits,
    server errors and timeouts are tried again up to `retries` times, with growing, jittered waits;
    what the server rejects is not. The key comes from OPENAI_API_KEY only.
    """
    return OpenAICompatible(base_url, concurrency, timeout, retries)


class OpenAICompatible:
    """An `Ask` over HTTP that streams; a request that fails gives a failed answer, no exception."""

    def __init__(self, base_url: str, concurrency: int, timeout: float, retries: int) -> None:
        self._options = {"base_url": base_url, "timeout": timeout, "max_retries": retries}
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def __call__(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers in the order of the requests."""
        arrived = dict(self.arrivals(requests))
        return [arrived[index] for index in range(len(requests))]

    def arrivals(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Answers in the order in which they come, each with the index of its request."""
        running = self._started()
        futures = {
            asyncio.run_coroutine_threadsafe(
                _answer(running.client, running.slots, request), running.loop
            ): index
            for index, request in enumerate(requests)
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Drop the connections; the next request opens new ones."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            asyncio.run_coroutine_threadsafe(running.client.close(), running.loop).result()
            running.loop.call_soon_threadsafe(running.loop.stop)
            running.thread.join()
            running.loop.close()

    def _started(self) -> "_Running":
        # A client belongs to one event loop; a thread of its own lets any caller share it.
        with self._lock:
            if self._running is None:
                from openai import AsyncOpenAI

                key = os.environ.get("OPENAI_API_KEY") or "EMPTY"
                client = AsyncOpenAI(api_key=key, **cast("dict[str, Any]", self._options))
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, daemon=True, name="openai")
                thread.start()
                self._running = _Running(loop, thread, client, asyncio.Semaphore(self._concurrency))
            return self._running


class _Running(NamedTuple):
    """A client at work: its event loop, the thread that turns it, and free places."""

    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    client: "AsyncOpenAI"
    slots: asyncio.Semaphore


async def _answer(client: "AsyncOpenAI", slots: asyncio.Semaphore, request: Request) -> Answer:
    from openai import APIStatusError, OpenAIError

    async with slots:
        start = time.perf_counter()
        try:
            return _read(await _send(client, request), time.perf_counter() - start)
        except APIStatusError as error:
            rejected = error.status_code in _NOT_OURS_TO_REPEAT
            return failed(f"HTTP {error.status_code}", time.perf_counter() - start, rejected)
        except OpenAIError as error:
            return failed(type(error).__name__, time.perf_counter() - start)
        except (AttributeError, IndexError, TypeError, ValueError):
            return failed("the body is no completion", time.perf_counter() - start)


async def _send(client: "AsyncOpenAI", request: Request) -> Any:
    sampling: dict[str, Any] = {
        "model": request.model,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
    }
    if request.messages[0].role == "text":
        if request.top_logprobs:
            sampling["logprobs"] = request.top_logprobs
        return await client.completions.create(prompt=request.messages[0].content, **sampling)
    if request.top_logprobs:
        sampling |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    turns = [{"role": message.role, "content": message.content} for message in request.messages]
    return await client.chat.completions.create(messages=cast("Any", turns), **sampling)


def _read(body: Any, seconds: float) -> Answer:
    """The first choice; a null content is an empty text, or the refusal that came instead."""
    choice = body.choices[0]
    message = getattr(choice, "message", None)
    text = choice.text if message is None else message.content or getattr(message, "refusal", None)
    return Answer(
        text or "",
        choice.finish_reason or "",
        body.usage.prompt_tokens if body.usage else 0,
        body.usage.completion_tokens if body.usage else 0,
        seconds,
        logprobs=_logprobs(choice),
    )


def _logprobs(choice: Any) -> tuple[dict[str, float], ...]:
    """For each generated token the log-probabilities of the likeliest ones, where asked for."""
    held = getattr(choice, "logprobs", None)
    if held is None:
        return ()
    if content := getattr(held, "content", None):
        return tuple({top.token: top.logprob for top in token.top_logprobs} for token in content)
    return tuple(getattr(held, "top_logprobs", None) or ())
