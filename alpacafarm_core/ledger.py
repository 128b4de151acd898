"""The ledger: every answer a language model gave, remembered before it is read.

It is append-only. A *call* is a rendered request with its raw answer and what it cost;
a *row* says that the answer at `position` of a call is about this row, whoever its batch mates. So
a row judged once is never bought again, though batches, parsers or the panel's name change.
Keys are digests of content; nothing secret is ever part of one.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from alpacafarm_core.interrupts import deferred
from alpacafarm_core.llm import Answer, Request
from alpacafarm_core.records import FileRecords, Records


class Call(NamedTuple):
    """One answered request: `size` answers were asked for; price in US dollars."""

    key: str
    size: int
    model: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    price: float
    logprobs: str = "[]"


class Purchase(NamedTuple):
    """A call and the keys of the rows it is about, in the order in which they were shown."""

    call: Call
    rows: tuple[str, ...]


class Record(NamedTuple):
    """What is known of a row: the answer at `position` of `call`, and those it took the place of.

    A batch with a wrong number of verdicts was paid for too.
    """

    call: Call
    position: int
    before: "tuple[Record, ...]" = ()


class Counts(NamedTuple):
    """How much is in the ledger; price in US dollars."""

    calls: int
    rows: int
    samples: int
    price: float


def digest(*parts: str | int | float) -> str:
    """Sha256 of the parts, told apart from one another; 64 hexadecimal digits."""
    text = json.dumps(parts, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def call_key(request: Request) -> str:
    """Digest of everything that reaches the model, and of which model at which endpoint."""
    turns = [part for message in request.messages for part in (message.role, message.content)]
    sampling = (request.temperature, request.top_p, request.max_tokens, request.top_logprobs)
    extra = [request.extra] if request.extra else []
    return digest(request.model, request.endpoint, *sampling, request.seed, *turns, *extra)


def answered(request: Request, answer: Answer, size: int, price: float) -> Call:
    """The record of one answer."""
    return Call(
        call_key(request),
        size,
        request.model,
        answer.text,
        answer.finish_reason,
        answer.prompt_tokens,
        answer.completion_tokens,
        answer.seconds,
        price,
        json.dumps(answer.logprobs),
    )


class Ledger:
    """The ledger in the file at a path, made when it is not there, or in other records."""

    def __init__(self, at: str | Path | Records) -> None:
        self.records = FileRecords(Path(at)) if isinstance(at, str | Path) else at

    def __reduce__(self) -> tuple[type["Ledger"] | object, tuple[str]]:
        """Another process opens it anew."""
        return reopened, (self.records.address,)

    @property
    def name(self) -> str:
        """What to call it in words."""
        return self.records.name

    def known(self, keys: Iterable[str]) -> dict[str, Record]:
        """What is known of these rows; of several calls about a row the smallest counts."""
        held: dict[str, Record] = {}
        for found in self.records.known(_once(keys)):
            last = held.get(found[0])
            before = (*last.before, last._replace(before=())) if last else ()
            held[found[0]] = Record(Call(*found[2:]), found[1], before)
        return held

    @contextmanager
    def claimed(self, keys: Iterable[str]) -> Iterator[None]:
        """Hold the right to buy these rows; another process that wants one of them waits."""
        with self.records.claimed(_once(keys)):
            yield

    def calls_known(self, keys: Iterable[str]) -> set[str]:
        """Which of these calls are remembered."""
        return set(self.records.calls(_once(keys)))

    def append(self, purchases: Sequence[Purchase]) -> None:
        """Remember answers in one transaction, on disk before this returns.

        An interrupt waits for that: what is handed over here has been paid.
        """
        calls = [purchase.call for purchase in purchases]
        rows = [
            (key, purchase.call.key, position)
            for purchase in purchases
            for position, key in enumerate(purchase.rows)
        ]
        with deferred():
            self.records.lay({"calls": calls, "rows": rows})

    def samples_known(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The samples of policies remembered under these keys."""
        return dict(self.records.samples(_once(keys)))

    def append_samples(self, samples: Mapping[str, bytes]) -> None:
        """Remember samples of policies in one transaction, on disk before this returns."""
        self.records.lay({"samples": samples.items()})

    def counts(self) -> Counts:
        """How much it holds."""
        return Counts(*self.records.counts())

    def close(self) -> None:
        """Let go of it."""
        self.records.close()


def reopened(address: str) -> Ledger:
    """A ledger in another process of this machine, by the address that its records have."""
    if address:
        return Ledger(address)
    from alpacafarm_core.shared_ledger import opened

    return opened()


def _once(keys: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(keys))
