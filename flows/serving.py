"""Every deployment on this machine: a server if asked for, and a worker for its flow runs.

Work goes through a pool, for one person as for a team: a schedule goes on while no worker is there,
a run that was suspended or has crashed is taken up by whichever worker is free, and more machines
join with the same command.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from alpacafarm_core import places
from alpacafarm_core.errors import BadInput
from flows import hosting
from flows.watching import all_watched, silence

if TYPE_CHECKING:
    from prefect.workers.process import ProcessWorker

PAUSE = 5.0


class Serving(NamedTuple):
    """What a machine does: serve, register, and work for a pool's queues, some runs at a time.

    No queues are all of the pool's. Where files come in may be watched too.
    """

    with_server: bool = False
    host: str = "127.0.0.1"
    port: int = 4200
    pool: str = "local"
    queues: tuple[str, ...] = ()
    limit: int = 1
    works: bool = True
    offers: bool = True
    watch: tuple[str, ...] = ()


def serve(what: Serving) -> None:
    """Offer every deployment until interrupted.

    Raises BadInput when there is no server, when one would be open to others without a password,
    and for a variable that cannot be used.
    """
    os.environ.update(hosting.settle(dict(os.environ)))
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", "2")
    os.environ["ALPACAFARM_STORE"] = places.place()
    if not what.with_server and not os.environ.get("PREFECT_API_URL"):
        raise BadInput("no Prefect server: set PREFECT_API_URL, or add --with-server")
    with terminable(), _served(what):
        if what.offers:
            offer(what)
        with all_watched(what.watch):  # only now is there somebody to hear of a file
            if what.works:
                work(what)
            else:
                signal.pause()


@contextmanager
def _served(what: Serving) -> Iterator[None]:
    if not what.with_server:
        with nullcontext():
            yield
        return
    with hosting.server(what.host, what.port) as address:
        print(f"Prefect UI  {address}   (Ctrl-C stops it)", flush=True)
        yield


def offer(what: Serving) -> None:
    """Put deployments, automations and limits on the server; raises BadInput where it refuses."""
    from httpx import HTTPError

    from flows.automating import declare
    from flows.registering import register

    try:
        count = register(what.pool)
        declared = declare(gpus=1)
    except HTTPError as error:
        raise BadInput(
            f"the Prefect server did not take the deployments ({silence(error)}); "
            "`alpacafarm doctor` says what to mend"
        ) from None
    print(f"{count} deployments in pool {what.pool}; {', '.join(declared.automations)}", flush=True)


def work(what: Serving) -> None:
    """Take up flow runs until interrupted, each in a process of its own.

    A worker that fails, as when the server is away for long, is followed by another.
    """
    while True:
        try:
            asyncio.run(_worker(what).start(printer=_say))
        except Exception as error:
            _say(f"the worker stopped ({_first(error)}); another starts in {PAUSE:.0f} s")
        time.sleep(PAUSE)


def _worker(what: Serving) -> "ProcessWorker":
    from prefect.workers.process import ProcessWorker

    return ProcessWorker(
        work_pool_name=what.pool,
        work_queues=list(what.queues) or None,
        name=f"{socket.gethostname()}-{os.getpid()}",
        limit=what.limit,
    )


def _first(error: Exception) -> str:
    """The first error within a group of errors, on one line."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _say(line: str) -> None:
    print(line, flush=True)


@contextmanager
def terminable() -> Iterator[None]:
    """A request to terminate, or a terminal that closes, ends the block as an interrupt does.

    So nothing is left over.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
