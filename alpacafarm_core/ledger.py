"""The ledger: every answer a language model gave, remembered before it is read.

One append-only SQLite file. A *call* is a rendered request with its raw answer and what it cost;
a *row* says that the answer at `position` of a call is about this row, whoever its batch mates. So
a row judged once is never bought again, though batches, parsers or the panel's name change.
Keys are digests of content; nothing secret is ever part of one.
"""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from alpacafarm_core.errors import Damaged, StoreNotWritable
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
    """What is known of a row: the answer at `position` of `call`."""

    call: Call
    position: int


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
    return digest(request.model, request.endpoint, *sampling, request.seed, *turns)


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
        self._lock = threading.Lock()
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
            held[found[0]] = Record(Call(*found[2:]), found[1])
        return held

    def calls_known(self, keys: Iterable[str]) -> set[str]:
        """Which of these calls are remembered."""
        return {str(key) for (key,) in self._select(_CALLS, keys)}

    def append(self, purchases: Sequence[Purchase]) -> None:
        """Remember answers in one transaction, on disk before this returns."""
        calls = [purchase.call for purchase in purchases]
        rows = [
            (key, purchase.call.key, position)
            for purchase in purchases
            for position, key in enumerate(purchase.rows)
        ]
        with self._transaction() as file:
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
