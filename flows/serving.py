"""Every deployment on this machine: a server if asked for, and a runner for its flow runs."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alpacafarm_core.errors import BadInput
from alpacafarm_core.places import place

START_LIMIT = 120.0
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    "PREFECT_LOGGING_EXTRA_LOGGERS": "alpacafarm",
}


def serve(with_server: bool, port: int) -> None:
    """Offer every deployment until interrupted; raises BadInput when there is no server."""
    os.environ.update({name: os.environ.get(name, held) for name, held in QUIET.items()})
    os.environ.setdefault("PREFECT_RUNNER_POLL_FREQUENCY", "2")
    os.environ["ALPACAFARM_STORE"] = place()
    if with_server:
        with server(port) as address:
            print(f"Prefect UI  {address}   (Ctrl-C stops it)", flush=True)
            _offer()
    elif os.environ.get("PREFECT_API_URL"):
        _offer()
    else:
        raise BadInput("no Prefect server: set PREFECT_API_URL, or add --with-server")


@contextmanager
def server(port: int) -> Iterator[str]:
    """A Prefect server on loopback while the block runs; yields the UI's address."""
    address = f"http://127.0.0.1:{port}"
    os.environ["PREFECT_API_URL"] = os.environ["PREFECT_UI_API_URL"] = f"{address}/api"
    words = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    if _answers(address):
        raise BadInput(f"port {port} is taken; stop what runs there or choose another --port")
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    try:
        _await(address, process)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


def deployments() -> list[Any]:
    """The flows, and one deployment a method with its form filled in for the built-in world."""
    from alpacafarm_core.methods import METHODS
    from flows.evaluate import evaluate
    from flows.leaderboard import leaderboard, run
    from flows.optimise import optimise
    from flows.people import people
    from flows.prepare import prepare

    named = [
        flow.to_deployment(name="default", description=flow.description, tags=["alpacafarm"])
        for flow in (leaderboard, prepare, optimise, evaluate, people)
    ]
    for name, method in sorted(METHODS.items()):
        named.append(
            run.to_deployment(
                name=name,
                description=method.__doc__,
                parameters={"method": method.at("small").model_dump(mode="json")},
                tags=["alpacafarm", "method"],
            )
        )
    return named


def _offer() -> None:
    import prefect

    prefect.serve(*deployments(), limit=1, print_starting_message=False)


def _await(address: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_LIMIT
    while time.monotonic() < until:
        if process.poll() is not None:
            raise BadInput("the Prefect server stopped; `prefect server start` shows why")
        if _answers(address):
            return
        time.sleep(0.5)
    raise BadInput(f"the Prefect server did not answer within {START_LIMIT:.0f} s; try again")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
