"""The ledger that machines share: the same tables in Postgres, below the schema `alpacafarm`.

A claim is a line in a table with the number of its holder, and the holder is alive while its
connection keeps the advisory lock of that number: one lock a purchase, however many rows, and free
as soon as the connection dies. A password is in ALPACAFARM_LEDGER, or where libpq looks for one,
and in no message.
"""

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from alpacafarm_core.errors import BadInput, FarmError, Missing, StoreNotWritable, Unreachable
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.records import BUYS, CALLS, COUNTS, KNOWN, SAMPLES, TURN, WIDTHS

if TYPE_CHECKING:
    from psycopg import Connection

VARIABLE = "ALPACAFARM_LEDGER"
SCHEMES = ("postgresql", "postgres")
HOST = re.compile(r"[\w.-]*|\[[0-9A-Fa-f:.]+\]")
PATIENCE = 60.0
_AMONG = "= ANY(%s)"
_SESSION = """
SET search_path = alpacafarm; SET synchronous_commit = on;
SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3
"""
# Text of a model may hold a NUL, which Postgres has no text for. Keys are sorted byte by byte.
_TABLES = """
SELECT pg_advisory_xact_lock(7205759403792794);
CREATE SCHEMA IF NOT EXISTS alpacafarm;
CREATE TABLE IF NOT EXISTS calls (
    key TEXT COLLATE "C" PRIMARY KEY, size INTEGER NOT NULL, model TEXT NOT NULL,
    text BYTEA NOT NULL, finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, seconds DOUBLE PRECISION NOT NULL,
    price DOUBLE PRECISION NOT NULL, logprobs TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS rows (
    key TEXT COLLATE "C" NOT NULL, call TEXT COLLATE "C" NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (key, call)
);
CREATE TABLE IF NOT EXISTS samples (key TEXT COLLATE "C" PRIMARY KEY, body BYTEA NOT NULL);
CREATE TABLE IF NOT EXISTS claims (key TEXT COLLATE "C" PRIMARY KEY, holder BIGINT NOT NULL);
CREATE INDEX IF NOT EXISTS claims_of_holder ON claims (holder)
"""
_THERE = "SELECT to_regclass('alpacafarm.claims_of_holder') IS NOT NULL"
_TEXT = 3
"""Where a call has its text."""

T = TypeVar("T")
log = logging.getLogger("alpacafarm.judging")


def opened() -> Ledger:
    """The ledger that ALPACAFARM_LEDGER names; raises BadInput, StoreNotWritable, Unreachable."""
    return Ledger(SharedRecords(os.environ.get(VARIABLE, "")))


def named(url: str) -> str:
    """A database as one may show it, with neither user nor password; raises BadInput."""
    try:
        parts = urlsplit(url)
        host, port = parts.netloc.rpartition("@")[2], parts.port
        bare = host.removesuffix(f":{port}")
    except ValueError:
        parts, bare, port = urlsplit(""), "", None
    # What does not split cleanly may show a piece of a password as a host or a path.
    clean = url.count("@") <= 1 and ("@" in parts.netloc or "@" not in url)
    if parts.scheme not in SCHEMES or not clean or not HOST.fullmatch(bare):
        raise BadInput(
            f"{VARIABLE} is no postgresql://USER:PASSWORD@HOST:PORT/DATABASE; mend it "
            "(in a password write @ as %40, / as %2F, : as %3A, # as %23 and ? as %3F)"
        )
    return f"postgresql://{bare}{f':{port}' if port else ''}{parts.path}"


class SharedRecords:
    """Records in a Postgres database, as `Records`; safe under machines, threads and kill.

    Its tables are made when something is first kept. A connection that breaks is opened again.
    """

    address = ""

    def __init__(self, url: str) -> None:
        """Asks whether the database answers; raises BadInput, StoreNotWritable or Unreachable."""
        self.name, self._url = named(url), url
        if find_spec("psycopg") is None:
            raise BadInput(
                "a shared ledger takes psycopg, which is not installed; "
                "`pip install 'alpacafarm[postgres]'`"
            )
        self._lock = threading.Lock()
        self._session: Connection[Any] | None = None
        self._is_made = False
        with self._named_errors():
            self._session = self._connected()

    def known(self, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        """As Records says."""
        place = 2 + _TEXT
        return [
            (
                *found[:place],
                bytes(found[place]).decode("utf-8", "surrogatepass"),
                *found[place + 1 :],
            )
            for found in self._select(KNOWN, keys)
        ]

    def calls(self, keys: Sequence[str]) -> list[str]:
        """As Records says."""
        return [str(key) for (key,) in self._select(CALLS, keys)]

    def samples(self, keys: Sequence[str]) -> list[tuple[str, bytes]]:
        """As Records says."""
        return [(str(key), bytes(body)) for key, body in self._select(SAMPLES, keys)]

    def counts(self) -> tuple[int, int, int, float]:
        """As Records says."""

        def counted(session: "Connection[Any]") -> tuple[int, int, int, float]:
            if not self._made(session):
                return 0, 0, 0, 0.0
            calls, rows, samples, price = session.execute(COUNTS).fetchone() or (0, 0, 0, 0.0)
            return calls, rows, samples, price

        return self._asked(counted)

    def lay(self, tables: Mapping[str, Iterable[Sequence[Any]]]) -> None:
        """As Records says."""
        # In one order everywhere, so that two transactions never wait for each other.
        held = {table: sorted(map(tuple, lines)) for table, lines in tables.items()}
        if "calls" in held:
            held["calls"] = [_with_bytes(call) for call in held["calls"]]

        def laid(session: "Connection[Any]") -> None:
            self._make(session)
            with session.transaction(), session.cursor() as cursor:
                for table, lines in held.items():
                    marks = ",".join(["%s"] * WIDTHS[table])
                    insert = f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO NOTHING"
                    cursor.executemany(insert.encode(), lines)

        self._asked(laid)

    @contextmanager
    def claimed(self, keys: Sequence[str]) -> Iterator[None]:
        """As Records says."""
        if not keys:
            yield
            return
        with self._named_errors():
            session, holder = self._connected(), random.getrandbits(62)
        with closing(session):
            with self._named_errors():
                self._make(session)
                session.execute("SELECT pg_advisory_lock(%s)", [holder])
                self._hold(session, holder, sorted(keys))
            try:
                yield
            finally:
                with suppress(FarmError), self._named_errors():
                    session.execute("DELETE FROM claims WHERE holder = %s", [holder])

    def close(self) -> None:
        """Let go of the connection."""
        if self._session is not None:
            self._session.close()

    def _hold(self, session: "Connection[Any]", holder: int, keys: list[str]) -> None:
        """Claim all rows or none, again and again, until none of them is another's."""
        waits = False
        while not _taken(session, holder, keys):
            if not waits:
                log.info(BUYS)
            waits = True
            time.sleep(TURN)

    def _select(self, query: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        def selected(session: "Connection[Any]") -> list[tuple[Any, ...]]:
            if not self._made(session):
                return []
            return session.execute(query.format(among=_AMONG).encode(), [list(keys)]).fetchall()

        return self._asked(selected) if keys else []

    def _asked(self, work: "Callable[[Connection[Any]], T]") -> T:
        """Work on the connection; where that breaks, on a new one, for a minute.

        What is asked twice has to come to the same as once.
        """
        import psycopg

        until = time.monotonic() + PATIENCE
        with self._lock, self._named_errors():
            while True:
                try:
                    if self._session is None or self._session.closed:
                        self._session = self._connected()
                    return work(self._session)
                except psycopg.OperationalError:
                    if self._session is not None:
                        self._session.close()
                    if time.monotonic() > until:
                        raise
                    time.sleep(1.0)

    def _connected(self) -> "Connection[Any]":
        import psycopg

        session = psycopg.connect(
            self._url, autocommit=True, connect_timeout=10, keepalives_idle=30
        )
        session.execute(_SESSION)
        return session

    def _made(self, session: "Connection[Any]") -> bool:
        """Whether there are tables."""
        if not self._is_made:
            self._is_made = bool((session.execute(_THERE).fetchone() or [False])[0])
        return self._is_made

    def _make(self, session: "Connection[Any]") -> None:
        if not self._made(session):
            with session.transaction():
                session.execute(_TABLES)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            # Its text may hold what the address holds.
            told, state = str(error), error.sqlstate or ""
            kind = type(error).__name__
        else:
            return
        if "password authentication failed" in told or "no password supplied" in told:
            refusal: FarmError = StoreNotWritable(
                f"{self.name} refuses this user or password; mend {VARIABLE}"
            )
        elif state == "42501":
            refusal = StoreNotWritable(
                f"{self.name}: this user may not make tables there; GRANT CREATE ON DATABASE to it"
            )
        elif "database" in told and "does not exist" in told:
            refusal = Missing(f"{self.name}: no such database; make it with createdb")
        else:
            refusal = Unreachable(
                f"{self.name} does not answer ({' '.join([kind, state]).strip()}); see that it "
                f"runs and {VARIABLE} names it, then run again"
            )
        raise refusal from None  # a traceback shows what came before


def _taken(session: "Connection[Any]", holder: int, keys: list[str]) -> bool:
    """Claim rows for a holder unless one of them is another's who is alive."""
    with session.transaction():
        session.execute("LOCK TABLE claims IN SHARE ROW EXCLUSIVE MODE")
        others = session.execute("SELECT DISTINCT holder FROM claims WHERE key = ANY(%s)", [keys])
        for (other,) in others.fetchall():
            free = session.execute("SELECT pg_try_advisory_xact_lock(%s)", [other]).fetchone()
            if free is None or not free[0]:
                return False
        session.execute("DELETE FROM claims WHERE key = ANY(%s)", [keys])
        session.execute("INSERT INTO claims SELECT unnest(%s::text[]), %s", [keys, holder])
    return True


def _with_bytes(call: tuple[Any, ...]) -> tuple[Any, ...]:
    text = str(call[_TEXT]).encode("utf-8", "surrogatepass")
    return (*call[:_TEXT], text, *call[_TEXT + 1 :])
