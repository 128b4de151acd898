"""The ledger: every answer a language model gave, remembered before it is read.

One append-only SQLite file. A *call* is a rendered request with its raw answer and what it cost;
a *row* says that the answer at `position` of a call is about this row, whoever its batch mates. So
a row judged once is never bought again, though batches, parsers or the panel's name change.
Keys are digests of content; nothing secret is ever part of one.
"""

import fcntl
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from alpacafarm_core.errors import Damaged, StoreNotWritable
from alpacafarm_core.interrupts import deferred
from alpacafarm_core.llm import Answer, Request

_TABLES = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, size INTEGER NOT NULL, model TEXT NOT NULL, text TEXT NOT NULL,
    finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL, price REAL NOT NULL, logprobs TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
    key TEXT NOT NULL, call TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (key, call)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples (key TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
"""
_KNOWN = """
SELECT rows.key, rows.position, calls.* FROM rows JOIN calls ON calls.key = rows.call
WHERE rows.key IN ({marks}) ORDER BY calls.size DESC, calls.key DESC
"""
_CALLS = "SELECT key FROM calls WHERE key IN ({marks})"
_SLICE = 900
_PATIENCE = 60.0
_TURN = 0.1

log = logging.getLogger("alpacafarm.judging")


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
    """The file at `path`, made when it is not there; safe under processes, threads and kill."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock, self._claimed = threading.Lock(), -1
        with self._named_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _opened(self.path)

    def __reduce__(self) -> tuple[type["Ledger"], tuple[Path]]:
        """Another process opens the file anew."""
        return Ledger, (self.path,)

    def known(self, keys: Iterable[str]) -> dict[str, Record]:
        """What is known of these rows; of several calls about a row the smallest counts."""
        held: dict[str, Record] = {}
        for found in self._select(_KNOWN, keys):
            last = held.get(found[0])
            before = (*last.before, last._replace(before=())) if last else ()
            held[found[0]] = Record(Call(*found[2:]), found[1], before)
        return held

    @contextmanager
    def claimed(self, keys: Iterable[str]) -> Iterator[None]:
        """Hold the right to buy these rows; another process that wants one of them waits.

        A byte of a file stands for each row, locked by the kernel, which lets go when a process
        dies. All processes take them in the same order, so that none waits for one who waits.
        """
        places = sorted({int(key[:12], 16) for key in keys}, reverse=True)
        claims = self._claims() if places else 0
        try:
            _hold(claims, places)
            yield
        finally:
            for place in places:
                fcntl.lockf(claims, fcntl.LOCK_UN, 1, place)

    def calls_known(self, keys: Iterable[str]) -> set[str]:
        """Which of these calls are remembered."""
        return {str(key) for (key,) in self._select(_CALLS, keys)}

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
        with deferred(), self._transaction() as file:
            file.executemany(f"INSERT OR IGNORE INTO calls VALUES ({'?,' * 9}?)", calls)
            file.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?, ?)", rows)

    def samples_known(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The samples of policies remembered under these keys."""
        query = "SELECT key, body FROM samples WHERE key IN ({marks})"
        found = self._select(query, keys)
        return {str(key): bytes(body) for key, body in found}

    def append_samples(self, samples: Mapping[str, bytes]) -> None:
        """Remember samples of policies in one transaction, on disk before this returns."""
        with self._transaction() as file:
            file.executemany("INSERT OR IGNORE INTO samples VALUES (?, ?)", samples.items())

    def counts(self) -> Counts:
        """How much it holds."""
        query = (
            "SELECT (SELECT count(*) FROM calls), (SELECT count(DISTINCT key) FROM rows), "
            "(SELECT count(*) FROM samples), (SELECT coalesce(sum(price), 0.0) FROM calls)"
        )
        with self._lock, self._named_errors():
            return Counts(*self._file.execute(query).fetchone())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        if self._claimed >= 0:
            os.close(self._claimed)
            self._claimed = -1

    def _claims(self) -> int:
        """The file of claims, opened once: to close it would let go of what other threads hold."""
        with self._lock, self._named_errors():
            if self._claimed < 0:
                place = self.path.with_name(f"{self.path.name}-claims")
                self._claimed = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            return self._claimed

    def _select(self, query: str, keys: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), _SLICE):
            some = wanted[start : start + _SLICE]
            with self._lock, self._named_errors():
                marks = ",".join("?" * len(some))
                found = self._file.execute(query.format(marks=marks), some).fetchall()
            yield from found

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._named_errors(), self._file:
            self._file.execute("BEGIN IMMEDIATE")
            yield self._file

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise StoreNotWritable(
                f"{self.path}: {error}; give a ledger on a local disk that can be written"
            ) from None
        except sqlite3.DatabaseError as error:
            raise Damaged(
                f"{self.path}: {error}; move it away, and what it held is asked for again"
            ) from None


def _hold(claims: int, places: Sequence[int]) -> None:
    """Lock one byte after the other, each when it is free."""
    waits = False
    for place in places:
        while not _locked(claims, place):
            if not waits:
                log.info("another process buys some of these rows; waiting for its answers")
            waits = True
            time.sleep(_TURN)


def _locked(claims: int, place: int) -> bool:
    try:
        fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _opened(path: Path) -> sqlite3.Connection:
    # Autocommit, so that transactions are ours; FULL, so that a commit survives a power cut.
    file = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    file.execute("PRAGMA synchronous=FULL")
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            file.execute("PRAGMA journal_mode=WAL")
            file.executescript(_TABLES)
            return file
        except sqlite3.OperationalError as error:
            # Turning on WAL does not wait for its turn, whatever the timeout says.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
