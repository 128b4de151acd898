"""The client: one for each OpenAI-compatible endpoint, shared by all who ask it.

It runs on an event loop in a thread of its own, keeps as many requests under way as the endpoint
takes, tries again what may succeed, and hands over answers as they arrive. What a server can do
wrong costs one answer at most, and that one says so.
"""

import asyncio
import atexit
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from alpacafarm_core.completions import NoCompletion, api_key, body, http_client, path, read
from alpacafarm_core.errors import BadInput
from alpacafarm_core.gate import Gate
from alpacafarm_core.interrupts import deferred
from alpacafarm_core.llm import Answer, Request, failed, in_order
from alpacafarm_core.pacing import Breaker, Limits, Pace, asked_wait

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

Arrived = tuple[int, Answer]

# The request itself is at fault; sent again it would fail again.
_REJECTED = {400, 413, 422}
_MOVED = "moved elsewhere; write the URL it is at now into the panel"
_REFUSED = {
    **dict.fromkeys((301, 302, 303, 307, 308), _MOVED),
    401: "the key in OPENAI_API_KEY is not taken here; set the one of this endpoint",
    403: "the key in OPENAI_API_KEY may not do this",
    404: "no such model or path; mend the panel's model or endpoint",
}
_BUSY = 429
_UNAVAILABLE = 503
_WORTH_ANOTHER_TRY = {408, 409, 425, _BUSY}
# Seconds in which requests under way are dropped at an interrupt.
_LETTING_GO = 10.0
_OUT_OF_MONEY = "insufficient_quota"


def openai_ask(base_url: str, limits: Limits | None = None) -> "OpenAICompatible":
    """The client of one OpenAI-compatible API; raises BadInput where the URL is none."""
    try:
        _ = urlsplit(base_url).port
    except ValueError as error:
        raise BadInput(f"endpoint {base_url!r}: {error}; mend the panel") from None
    return OpenAICompatible(base_url, limits or Limits())


class OpenAICompatible:
    """An `Ask` over HTTP that streams; a request that fails gives a failed answer, no exception."""

    def __init__(self, base_url: str, limits: Limits) -> None:
        self._base_url, self._limits = base_url, limits
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._of_parent: _Running | None = None

    def __call__(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers in the order of the requests."""
        return in_order(self.arrivals(requests), len(requests))

    def arrivals(self, requests: Sequence[Request]) -> Iterator[list[Arrived]]:
        """Groups of answers in the order in which they come: all that has arrived meanwhile.

        Ctrl-C drops what is under way; what has arrived by then is handed over before it is raised.
        When another thread closes the client meanwhile, concurrent.futures' CancelledError is
        raised.
        """
        inbox = _Inbox()
        with self._lock:
            running = self._started()
            work = asyncio.run_coroutine_threadsafe(
                inbox.filled(running.endpoint, requests), running.loop
            )
        work.add_done_callback(lambda _: inbox.news.put(None))
        try:
            with deferred(inbox.stop):
                yield from inbox.groups(len(requests), work)
        finally:
            work.cancel()

    def close(self) -> None:
        """Drop what is under way, and the connections; the next request opens new ones."""
        with self._lock:
            running, self._running = self._running, None
        atexit.unregister(self.close)
        if running is not None and running.process == os.getpid():
            asyncio.run_coroutine_threadsafe(running.endpoint.close(), running.loop).result()
            running.loop.call_soon_threadsafe(running.loop.stop)
            running.thread.join()
            running.loop.close()

    def _started(self) -> "_Running":
        if self._running is None or self._running.process != os.getpid():
            # A forked process has no thread, and connections that it must neither use nor end.
            self._of_parent = self._running
            self._running = _run(_Endpoint(self._base_url, self._limits))
            atexit.register(self.close)
        return self._running


class _Running(NamedTuple):
    """A client at work: its event loop, the thread that turns it, and what is sent from there."""

    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    endpoint: "_Endpoint"
    process: int


def _run(endpoint: "_Endpoint") -> _Running:
    # A client belongs to one event loop; a thread of its own lets any caller share it.
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="openai")
    thread.start()
    return _Running(loop, thread, endpoint, os.getpid())


class _Inbox:
    """Answers on their way from the event loop's thread to the one that asked."""

    def __init__(self) -> None:
        # A queue that a signal's handler may put into.
        self.news = SimpleQueue[None]()
        self._is_stopped, self._over = False, threading.Event()
        self._arrived: list[Arrived] = []

    async def filled(self, endpoint: "_Endpoint", requests: Sequence[Request]) -> None:
        """Ask for all; once this is over, or was cancelled and is, nothing more arrives."""
        try:
            await endpoint.answer_all(requests, self.put)
        finally:
            self._over.set()

    def put(self, index: int, answer: Answer) -> None:
        """One has arrived."""
        self._arrived.append((index, answer))
        self.news.put(None)

    def stop(self) -> None:
        """No more is wanted; `groups` ends with what is there."""
        self._is_stopped = True
        self.news.put(None)

    def groups(self, count: int, work: "Future[None]") -> Iterator[list[Arrived]]:
        """All that are there each time one looks, until there were `count` or `work` failed."""
        seen = 0
        while seen < count:
            self.news.get()
            if self._is_stopped:
                # First nothing more is asked, or answers would be bought that nobody puts away.
                work.cancel()
                self._over.wait(_LETTING_GO)
                yield self._arrived[seen:]
                return
            if group := self._arrived[seen:]:
                seen += len(group)
                yield group
            elif work.done():
                work.result()


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why a try gave no answer; `wait` in seconds is what the server asked for."""

    error: str
    is_final: bool = False
    is_rejected: bool = False
    is_busy: bool = False
    wait: float = 0.0


class _Endpoint:
    """What one endpoint is sent, from inside the event loop."""

    def __init__(self, base_url: str, limits: Limits) -> None:
        self._base_url, self._limits = base_url, limits
        self._client = _client(base_url)
        self._pace = Pace(limits.concurrency)
        self._gate = Gate(self._pace)
        self._breaker = Breaker(limits)
        self._finding_out, self._random = asyncio.Lock(), random.Random(0)
        self._groups = set[asyncio.Task[None]]()

    async def answer_all(
        self, requests: Sequence[Request], put: Callable[[int, Answer], None]
    ) -> None:
        """Put each answer, with the index of its request, as it comes."""

        async def one(index: int, request: Request) -> None:
            put(index, await self._answer(request))

        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as group:
                for index, request in enumerate(requests):
                    group.create_task(one(index, request))

        self._groups.add(work := asyncio.create_task(all_of_them()))
        work.add_done_callback(self._groups.discard)
        await work

    async def close(self) -> None:
        """Drop what is under way, and the connections."""
        for group in self._groups:
            group.cancel()
        await asyncio.gather(*self._groups, return_exceptions=True)
        await self._client.close()

    async def _answer(self, request: Request) -> Answer:
        """Try until there is an answer, a reason not to go on, or no time."""
        tries = limited = 0
        deadline = 0.0
        outcome: Answer | _Trouble = _Trouble("")
        while True:
            async with self._gate.place(is_first=tries == 0):
                now = time.monotonic()
                deadline = deadline or now + self._limits.deadline
                # A place may come late, as others were asked to wait meanwhile.
                if isinstance(outcome, _Trouble) and now >= deadline:
                    return failed(outcome.error)
                outcome = await self._try(request, deadline - now)
            if isinstance(outcome, Answer):
                return outcome
            wait = outcome.wait or self._limits.wait(tries, self._random.random())
            tries += 1
            limited += outcome.is_busy
            is_late = time.monotonic() + wait >= deadline
            if outcome.is_final or is_late or tries - limited > self._limits.retries:
                return failed(outcome.error, rejected=outcome.is_rejected)
            await asyncio.sleep(wait)

    async def _try(self, request: Request, left: float) -> Answer | _Trouble:
        """One try in at most `left` seconds, if the endpoint is worth one.

        Where it was down one request finds out whether it is back, and the others wait for that.
        """
        if self._breaker.reason:
            async with self._finding_out:
                if not self._breaker.allows(time.monotonic()):
                    down = f"{self._base_url} is down: {self._breaker.reason}"
                    return _Trouble(down, is_final=True)
                if self._breaker.reason:
                    return await self._told(request, left)
        return await self._told(request, left)

    async def _told(self, request: Request, left: float) -> Answer | _Trouble:
        """What came of sending a request; what follows from it for all others is noted."""
        sent = time.monotonic()
        outcome = await self._sent(request, min(left, self._limits.timeout))
        now = time.monotonic()
        if isinstance(outcome, Answer):
            self._pace.answered()
            self._breaker.answered()
        elif outcome.is_rejected:
            self._breaker.answered()
        elif outcome.is_busy:
            self._slow_down(outcome, sent, now)
        else:
            self._breaker.failed(now, outcome.error, outcome.is_final)
        return outcome

    def _slow_down(self, busy: _Trouble, sent: float, now: float) -> None:
        if busy.wait > self._limits.deadline:
            self._breaker.shut(now, f"{busy.error}, to be asked again in {busy.wait:.0f} s")
        else:
            self._breaker.answered()
            self._pace.limited(sent, now, busy.wait)

    async def _sent(self, request: Request, patience: float) -> Answer | _Trouble:
        from openai import APIStatusError, OpenAIError

        start = time.perf_counter()
        try:
            # The client's own timeout starts anew with every byte, so that a slow drip outlives it.
            async with asyncio.timeout(patience):
                held = await self._client.post(path(request), cast_to=bytes, body=body(request))
            return read(held, time.perf_counter() - start)
        except TimeoutError:
            return _Trouble(f"no answer in {round(patience, 3):g} s")
        except APIStatusError as error:
            return _refusal(error)
        except NoCompletion as error:
            return _Trouble(str(error))
        except OpenAIError as error:
            return _Trouble(f"no connection ({type(error).__name__})")
        except UnicodeEncodeError:
            return _Trouble("the request is no Unicode", is_final=True, is_rejected=True)


def _client(base_url: str) -> "AsyncOpenAI":
    from openai import AsyncOpenAI

    return AsyncOpenAI(
        api_key=api_key(), base_url=base_url, timeout=None, max_retries=0, http_client=http_client()
    )


def _refusal(error: "APIStatusError") -> _Trouble:
    """What a status means. The server's own words stay out, as they may repeat the key."""
    status, wait = error.status_code, asked_wait(error.response.headers, time.time())
    said = f"HTTP {status}"
    if status in _REJECTED:
        return _Trouble(said, is_final=True, is_rejected=True)
    if status in _REFUSED:
        return _Trouble(f"{said}: {_REFUSED[status]}", is_final=True)
    if error.code == _OUT_OF_MONEY:
        return _Trouble(f"{said}: the account has no credit left; add some", is_final=True)
    is_final = status < 500 and status not in _WORTH_ANOTHER_TRY
    is_busy = status == _BUSY or (status == _UNAVAILABLE and wait > 0)
    return _Trouble(said, is_final=is_final, is_busy=is_busy, wait=wait)
