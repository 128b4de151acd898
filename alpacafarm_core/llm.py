"""The seam to language models: requests in, answers out, in the same order.

`Ask` is the only way judges reach a model. A fake is a function.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

WORLD, PEOPLE = "world://", "people://"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; `role` is system, user, assistant, or text for a plain completion prompt."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One call to one model at one endpoint.

    `extra` is JSON text, an object with further fields of the body: tools, a response format, a
    bias on tokens, or the choices that a server of one's own decodes to.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    seed: int = 0
    top_p: float = 1.0
    top_logprobs: int = 0
    endpoint: str = WORLD
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `status` is ok or failed, and a failed answer has `error` instead of text.

    A failed answer's `finish_reason` is "rejected" when the request itself was at fault, so that
    sending it again would fail again. `discount` is the share of the list price that was charged.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    status: str = "ok"
    error: str = ""
    logprobs: tuple[dict[str, float], ...] = ()
    discount: float = 1.0


Ask = Callable[[Sequence[Request]], list[Answer]]


@runtime_checkable
class Streams(Protocol):
    """An `Ask` that can hand over answers as they arrive, each with the index of its request."""

    def arrivals(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        """Groups of answers in the order in which they come: what has arrived meanwhile."""


def arrivals(
    ask: Ask, requests: Sequence[Request], chunk: int
) -> Iterator[list[tuple[int, Answer]]]:
    """Groups of answers worth remembering together: those of a stream, else of `chunk` requests."""
    if isinstance(ask, Streams):
        yield from ask.arrivals(requests)
        return
    for start in range(0, len(requests), chunk):
        some = requests[start : start + chunk]
        answers = zip(some, ask(some), strict=True)
        yield [(start + index, answer) for index, (_, answer) in enumerate(answers)]


def in_order(groups: Iterable[Sequence[tuple[int, Answer]]], number: int) -> list[Answer]:
    """The answers to `number` requests, in their order, from groups as they came."""
    arrived = dict(answer for group in groups for answer in group)
    return [arrived[index] for index in range(number)]


def failed(error: str, seconds: float = 0.0, rejected: bool = False) -> Answer:
    """The answer that stands for none."""
    return Answer("", "rejected" if rejected else "error", 0, 0, seconds, "failed", error)


def nobody(requests: Sequence[Request]) -> list[Answer]:
    """Who answers when nothing is to be bought."""
    return [failed("not in the ledger, and nothing is to be bought") for _ in requests]
