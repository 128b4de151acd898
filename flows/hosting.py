"""A Prefect server of our own: where it listens, who may ask it, and what it keeps quiet about."""

import ipaddress
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from alpacafarm_core.errors import BadInput

START_LIMIT = 120.0
SECRET, CLIENTS_SECRET = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"
ORIGINS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
KEEP, A_DAY = "ALPACAFARM_KEEP_RUNS", 86_400
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "alpacafarm",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}

# On SQLite a worker that polls makes the server print a traceback of "database is locked" each few
# seconds, then succeed (Prefect's issue 23051). Its own loggers have levels of their own.
UNHEARD = {"PREFECT_LOGGING_ROOT_LEVEL": "CRITICAL"}


def settle(environment: dict[str, str]) -> dict[str, str]:
    """What the server and all that talk to it need beside an environment; what it says stays.

    Raises BadInput for a number of days that is none.
    """
    days = environment.get(KEEP) or "90"
    if not days.isdecimal() or int(days) < 1:
        raise BadInput(f"{KEEP}={days!r} is no number of days; set a whole one, as 90")
    wanted = QUIET | {"PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(int(days) * A_DAY)}
    if environment.get(SECRET):
        wanted[CLIENTS_SECRET] = environment[SECRET]
    return {name: held for name, held in wanted.items() if not environment.get(name)}


def refuse_exposure(host: str, secret: str, variable: str = SECRET) -> None:
    """Raise BadInput for an address that others can reach, unless a password is set.

    `variable` is that of the environment which holds the password.
    """
    if secret and not all(secret.partition(":")):
        raise BadInput(f"{variable} is no user:password; set both, with a colon between")
    if not secret and not is_loopback(host):
        raise BadInput(
            f"--host {host} can be reached by others, and the server has no password; set "
            f"{variable}=user:password, or leave out --host"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def addresses(host: str, port: int) -> tuple[str, str]:
    """Where this machine reaches the server, and where browsers do: `http://name:port`."""
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        everywhere = False
    here, there = ("127.0.0.1", socket.gethostname()) if everywhere else (host, host)
    return tuple(f"http://{f'[{name}]' if ':' in name else name}:{port}" for name in (here, there))  # type: ignore[return-value]


def origins(there: str, port: int) -> dict[str, str]:
    """Without a password, whose pages may read what the server answers: the UI's own.

    Prefect lets those of every site that its user's browser happens to show.
    """
    if os.environ.get(SECRET) or os.environ.get(ORIGINS):
        return {}
    own = (f"http://{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))
    return {ORIGINS: ",".join([*own, there])}


@contextmanager
def server(host: str, port: int) -> Iterator[str]:
    """A Prefect server while the block runs; yields the UI's address.

    The environment tells this process and its children where it is; PREFECT_UI_API_URL that is set
    already stands, as that of a proxy. Raises BadInput when it cannot start.
    """
    refuse_exposure(host, os.environ.get(SECRET, ""))
    here, there = addresses(host, port)
    os.environ["PREFECT_API_URL"] = f"{here}/api"
    os.environ.setdefault("PREFECT_UI_API_URL", f"{there}/api")
    words = ["-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    if answers(here):
        raise BadInput(f"port {port} is taken; stop what runs there or choose another --port")
    # A session of its own: an interrupt reaches this process, which ends runs first, then it.
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.DEVNULL,
        env=os.environ | UNHEARD | origins(there, port),
        start_new_session=True,
    )
    try:
        _await(here, process)
        yield there
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(address: str) -> bool:
    """Whether a Prefect server answers there."""
    try:
        with urllib.request.urlopen(f"{address}/api/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _await(address: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_LIMIT
    while time.monotonic() < until:
        if process.poll() is not None:
            raise BadInput("the Prefect server stopped; `prefect server start` shows why")
        if answers(address):
            return
        time.sleep(0.5)
    raise BadInput(f"the Prefect server did not answer within {START_LIMIT:.0f} s; try again")
