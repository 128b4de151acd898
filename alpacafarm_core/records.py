"""What a ledger is written into: calls, the rows they are about, samples, and who buys what now.

Here is the protocol, and the file that one machine keeps. What machines share is in
`shared_ledger.py`.
"""

import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from alpacafarm_core.errors import Damaged, StoreNotWritable

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
KNOWN = """
SELECT rows.key, rows.position, calls.* FROM rows JOIN calls ON calls.key = rows.call
WHERE rows.key {among} ORDER BY calls.size DESC, calls.key DESC
"""
CALLS = "SELECT key FROM calls WHERE key {among}"
SAMPLES = "SELECT key, body FROM samples WHERE key {among}"
COUNTS = (
    "SELECT (SELECT count(*) FROM calls), (SELECT count(DISTINCT key) FROM rows), "
    "(SELECT count(*) FROM samples), (SELECT coalesce(sum(price), 0.0) FROM calls)"
)
BUYS = "another process buys some of these rows; waiting for its answers"
_SLICE = 900
_PATIENCE = 60.0
TURN = 0.1
WIDTHS = {"calls": 10, "rows": 3, "samples": 2}
"""Columns of each table."""

log = logging.getLogger("alpacafarm.judging")


class Records(Protocol):
    """Where a ledger keeps things; raises StoreNotWritable, Damaged or Unreachable."""

    name: str
    """For people; nothing secret."""
    address: str
    """What another process on this machine opens it by; empty for what the environment names."""

    def known(self, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        """Row key, position and the call for each row of `keys`; the largest calls first."""

    def calls(self, keys: Sequence[str]) -> list[str]:
        """Which of these calls there are."""

    def samples(self, keys: Sequence[str]) -> list[tuple[str, bytes]]:
        """Key and body of those of these samples that there are."""

    def counts(self) -> tuple[int, int, int, float]:
        """How many calls, rows and samples, and their price in US dollars."""

    def lay(self, tables: Mapping[str, Iterable[Sequence[Any]]]) -> None:
        """Add lines to tables in one transaction, on disk before this returns; old ones stay."""

    def claimed(self, keys: Sequence[str]) -> AbstractContextManager[None]:
        """Hold the right to buy these rows; who wants one of them waits. Freed by death."""

    def close(self) -> None:
        """Let go of it."""


class FileRecords:
    """An SQLite file, made when it is not there; safe under processes, threads and kill."""

    def __init__(self, path: Path) -> None:
        self.path, self.name, self.address = path, str(path), str(path)
        self._lock, self._claimed = threading.Lock(), -1
        with self._named_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _opened(self.path)

    def known(self, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        """As Records says."""
        return list(self._select(KNOWN, keys))

    def calls(self, keys: Sequence[str]) -> list[str]:
        """As Records says."""
        return [str(key) for (key,) in self._select(CALLS, keys)]

    def samples(self, keys: Sequence[str]) -> list[tuple[str, bytes]]:
        """As Records says."""
        return [(str(key), bytes(body)) for key, body in self._select(SAMPLES, keys)]

    def counts(self) -> tuple[int, int, int, float]:
        """As Records says."""
        with self._lock, self._named_errors():
            calls, rows, samples, price = self._file.execute(COUNTS).fetchone()
            return calls, rows, samples, price

    def lay(self, tables: Mapping[str, Iterable[Sequence[Any]]]) -> None:
        """As Records says."""
        with self._transaction() as file:
            for table, lines in tables.items():
                marks = ",".join("?" * WIDTHS[table])
                file.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", lines)

    @contextmanager
    def claimed(self, keys: Sequence[str]) -> Iterator[None]:
        """As Records says.

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

    def _select(self, query: str, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(keys), _SLICE):
            some = keys[start : start + _SLICE]
            with self._lock, self._named_errors():
                among = f"IN ({','.join('?' * len(some))})"
                found = self._file.execute(query.format(among=among), some).fetchall()
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
                log.info(BUYS)
            waits = True
            time.sleep(TURN)


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
