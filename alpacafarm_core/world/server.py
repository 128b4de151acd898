"""The judges of the built-in world as an OpenAI-compatible server on loopback.

    python -m alpacafarm_core.world.server --port 8000 --faults 0.3 --latency 0.5

For whoever wants to try a client: a share of the calls fails in one of ten ways. Which, is drawn by
the content of the call and how often it was made, so that another try may succeed and the same
calls meet the same faults again. It knows no keys and takes any.
"""

import argparse
import asyncio
import hashlib
import json
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from alpacafarm_core.llm import Answer, Message, Request
from alpacafarm_core.world import judges

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
# Answers about several examples alone can have a wrong number of verdicts; else there is no choice.
FAULTS = (
    "429",
    "500",
    "hang",
    "html",
    "truncated",
    "no choices",
    "null content",
    "wrong number",
    "drip",
    "reset",
)
_SIP = 0.1
# The other side has gone, or does not speak HTTP.
_NO_MORE = (
    ConnectionError,
    IndexError,
    ValueError,
    asyncio.IncompleteReadError,
    asyncio.LimitOverrunError,
)
_JSON, _HTML = "application/json", "text/html"


class Manner(NamedTuple):
    """How the server behaves: share of calls that fail, seed of which, seconds for each answer.

    Calls that were answered in full are added to the file `log`, a JSON line each; a caller who
    has gone meanwhile is not answered.
    """

    faults: float = 0.0
    seed: int = 0
    latency: float = 0.0
    log: Path | None = None


class Call(NamedTuple):
    """One call: the path, the body and its digest, and how often it came before."""

    path: str
    body: bytes
    digest: str
    attempt: int


class Reply(NamedTuple):
    """One response; `is_answer` where the caller pays for it."""

    status: int
    kind: str
    body: bytes
    is_answer: bool = False

    def text(self) -> bytes:
        """As it goes over the wire."""
        wait = "Retry-After-Ms: 50\r\n" if self.status == 429 else ""
        head = (
            f"HTTP/1.1 {self.status} -\r\nContent-Type: {self.kind}\r\n{wait}"
            f"Content-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


def drawn(manner: Manner, call: Call) -> str:
    """The fault that a call meets, "" for none."""
    text = f"{manner.seed} {call.digest} {call.attempt}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2.0**64
    share = number / manner.faults if manner.faults else 1.0
    return FAULTS[int(share * len(FAULTS))] if share < 1.0 else ""


def reply(call: Call, fault: str = "") -> Reply:
    """What is said to a call; `fault` is one that shows in the response."""
    if fault == "429":
        return _refusal(429, "too many requests")
    if fault == "500":
        return _refusal(500, "the judge stumbled")
    if fault == "html":
        return Reply(200, _HTML, b"<html><body>502 Bad Gateway</body></html>")
    try:
        request = asked(call)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
        return _refusal(400, "no JSON object with a model and messages or a prompt")
    answer = judges.ask([request])[0]
    if answer.status == "failed":
        return _refusal(404, answer.error)
    return _written(call, request, answer, fault)


def asked(call: Call) -> Request:
    """The request in a body; raises an error of looking up or reading when there is none."""
    held = json.loads(call.body)
    turns = (
        [{"role": "text", "content": held["prompt"]}] if call.path == PLAIN else held["messages"]
    )
    messages = tuple(Message(str(each["role"]), str(each["content"])) for each in turns)
    if not messages:
        raise ValueError(turns)
    sampling = float(held.get("temperature", 1.0)), int(held.get("max_tokens", 300))
    return Request(str(held["model"]), messages, *sampling, seed=int(held.get("seed") or 0))


def _written(call: Call, request: Request, answer: Answer, fault: str) -> Reply:
    """A completion, whole or with a fault in it."""
    several = judges.judged(request) > 1
    if fault == "wrong number" and not several:
        fault = "no choices"
    said = _twice(answer.text) if fault == "wrong number" else answer.text
    text = None if fault == "null content" else said
    if call.path == PLAIN:
        choice: dict[str, Any] = {"text": text}
    else:
        choice = {"message": {"role": "assistant", "content": text}}
    choice |= {"index": 0, "logprobs": None, "finish_reason": answer.finish_reason}
    tokens = answer.prompt_tokens, answer.completion_tokens
    held = {
        "id": f"cmpl-{call.digest}",
        "object": "text_completion" if call.path == PLAIN else "chat.completion",
        "created": 0,
        "model": request.model,
        "choices": [] if fault == "no choices" else [choice],
        "usage": {
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "total_tokens": sum(tokens),
        },
    }
    body = json.dumps(held).encode()
    if fault == "truncated":
        body = body[: len(body) // 2]
    return Reply(200, _JSON, body, is_answer=fault in ("", "wrong number", "drip"))


def _twice(text: str) -> str:
    """The verdicts of an answer, each given twice."""
    with suppress(ValueError):
        return json.dumps(json.loads(text) * 2)
    return f"{text}\n{text}"


def _refusal(status: int, message: str) -> Reply:
    return Reply(status, _JSON, json.dumps({"error": {"message": message}}).encode())


class Server:
    """Answers connections; what it answered in full it adds to its log."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._calls: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side has enough."""
        with suppress(*_NO_MORE), closing(writer):
            while True:
                path, body = await _received(reader)
                digest = hashlib.sha256(body).hexdigest()[:32]
                call = Call(path, body, digest, self._calls[digest])
                self._calls[digest] += 1
                await asyncio.sleep(self._manner.latency)
                await self._answer(call, reader, writer)

    async def _answer(
        self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if call.path not in (CHAT, PLAIN):
            writer.write(_refusal(404, f"nothing at {call.path}").text())
            return
        if reader.at_eof():
            raise ConnectionResetError
        fault = drawn(self._manner, call)
        if fault == "hang":
            await reader.read()
            raise ConnectionResetError
        if fault == "reset":
            _reset(writer)
            raise ConnectionResetError
        said = reply(call, fault)
        for part in _parts(said.text(), fault):
            writer.write(part)
            await writer.drain()
            if fault == "drip":
                await asyncio.sleep(_SIP)
        if said.is_answer and self._manner.log:
            held = {"call": call.digest, "attempt": call.attempt, "fault": fault}
            with self._manner.log.open("a") as log:
                log.write(json.dumps(held) + "\n")


async def _received(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Path and body of the next request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    path = head.split(" ", 2)[1]
    length = head.lower().partition("content-length:")[2].split("\r\n")[0]
    return path, await reader.readexactly(int(length or 0))


def _parts(text: bytes, fault: str) -> Iterator[bytes]:
    """The whole, or one byte after the other."""
    size = 1 if fault == "drip" else len(text)
    return (text[start : start + size] for start in range(0, len(text), size))


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side sees a reset, not an end."""
    held = writer.get_extra_info("socket")
    held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def listening(manner: Manner, port: int = 0) -> AsyncIterator[str]:
    """A server in this event loop; gives its base URL. Port 0 is any free one."""
    serve = Server(manner).serve
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        # Without waiting for connections: one that hangs would hang the server.
        server.close()


@contextmanager
def serving(manner: Manner) -> Iterator[str]:
    """A server in a thread of its own; gives its base URL."""
    started: Future[tuple[str, Callable[[], object]]] = Future()

    async def run() -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        async with listening(manner) as url:
            started.set_result((url, lambda: loop.call_soon_threadsafe(over.set)))
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    url, stop = started.result()
    try:
        yield url
    finally:
        stop()
        thread.join()


async def _forever(manner: Manner, port: int) -> None:
    async with listening(manner, port) as url:
        print(url, flush=True)
        await asyncio.Event().wait()


def main(words: list[str] | None = None) -> int:
    """Serve until interrupted; prints the base URL when it listens."""
    parser = argparse.ArgumentParser(
        prog="python -m alpacafarm_core.world.server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=8000, help="0 is any free one")
    parser.add_argument("--faults", type=float, default=0.0, help="share of calls that fail")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds for each answer")
    parser.add_argument("--log", type=Path, help="file to add a line to for each call answered")
    given = parser.parse_args(words)
    manner = Manner(given.faults, given.seed, given.latency, given.log)
    with suppress(KeyboardInterrupt):
        asyncio.run(_forever(manner, given.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
