"""Where a store and its ledger are: a folder of this machine, or addresses that machines share."""

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from alpacafarm_core.ledger import Ledger, reopened
from alpacafarm_core.store import Store

STORE = "data/artifacts"
SCHEME = "s3://"

log = logging.getLogger("alpacafarm.stages")


def place(given: str | Path | None = None) -> str:
    """What names a store: `given`, else ALPACAFARM_STORE, else `data/artifacts`.

    An `s3://` address, or the absolute path of a folder.
    """
    named = str(given or os.environ.get("ALPACAFARM_STORE") or STORE)
    return named.rstrip("/") if is_remote(named) else str(Path(named).absolute())


def is_remote(named: str) -> bool:
    """Whether a store's name is an address that machines share."""
    return named.startswith(SCHEME)


def is_there(named: str) -> bool:
    """Whether there is a store; one that machines share is told by opening it."""
    return is_remote(named) or Path(named).is_dir()


def folder_of(named: str) -> Path:
    """The folder on this machine that belongs to a store: itself, or its cache."""
    if not is_remote(named):
        return Path(named)
    from alpacafarm_core.remote import cache_of

    return cache_of(named)


def store_at(named: str) -> Store:
    """Open or make the store; raises StoreNotWritable, BadInput or Unreachable."""
    if not is_remote(named):
        return Store(named)
    from alpacafarm_core.remote import opened

    return opened(named)


def ledger_of(named: str) -> Ledger:
    """The ledger that ALPACAFARM_LEDGER names, else the file in the store's folder."""
    if os.environ.get("ALPACAFARM_LEDGER"):
        return reopened("")
    if is_remote(named):
        _say_alone(named)
    return Ledger(folder_of(named) / "ledger.sqlite")


def check() -> None:
    """Raise BadInput, StoreNotWritable or Unreachable for a shared ledger that cannot be used."""
    if os.environ.get("ALPACAFARM_LEDGER"):
        reopened("").close()


@contextmanager
def looked_into(named: str) -> Iterator[tuple[Store | None, Ledger]]:
    """A store and its ledger to look into, without making either where there is none."""
    held = folder_of(named) / "ledger.sqlite"
    with TemporaryDirectory() as nowhere:
        known = held.is_file() or os.environ.get("ALPACAFARM_LEDGER")
        store = store_at(named) if is_there(named) else None
        with closing(ledger_of(named) if known else Ledger(Path(nowhere, held.name))) as ledger:
            yield store, ledger


@cache
def _say_alone(named: str) -> None:
    log.warning(
        "%s is shared and its ledger is not: each machine buys for itself; "
        "set ALPACAFARM_LEDGER=postgresql://... on all of them",
        named,
    )
