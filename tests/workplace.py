"""The workplace as people start it: `alpacafarm serve --with-server`, on either database.

Everything lies in a folder of its own and ends with the block, whatever happened in it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PATIENCE = 180.0
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
CLUSTERS = Path("/usr/lib/postgresql")


def free_port() -> int:
    """A port of loopback that nobody listens to."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def surroundings(folder: Path, **more: str) -> dict[str, str]:
    """An environment for commands: nothing of Prefect's or ours that a shell or test has set."""
    ours = ("PREFECT_", "ALPACAFARM_", "AWS_")
    kept = {name: held for name, held in os.environ.items() if not name.startswith(ours)}
    return kept | {
        "PREFECT_HOME": str(folder / "prefect"),
        "ALPACAFARM_STORE": str(folder / "store"),
        "PYTHONUNBUFFERED": "1",
        **more,
    }


class Api:
    """A Prefect server's API, asked directly."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """What the server answers; a body makes it a POST."""
        request = urllib.request.Request(
            f"{self.url}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def deployment(self, flow: str, name: str) -> dict[str, Any]:
        """A deployment by its flow's name and its own."""
        return dict(self(f"deployments/name/{flow}/{name}"))

    def start(self, flow: str, name: str, **parameters: Any) -> str:
        """Start a run of a deployment; its id."""
        place = f"deployments/{self.deployment(flow, name)['id']}/create_flow_run"
        said = {"parameters": parameters}
        # SQLite under load answers 503 now and then, and has then made nothing.
        return str(awaited(lambda: self(place, said), PATIENCE, "a run")["id"])

    def run(self, of: str) -> dict[str, Any]:
        """A flow run."""
        return dict(self(f"flow_runs/{of}"))

    def state(self, of: str) -> str:
        """The type of a flow run's state."""
        return str(self.run(of)["state_type"])

    def ended(self, of: str, limit: float = PATIENCE) -> dict[str, Any]:
        """The flow run once it has ended, however it did."""
        awaited(lambda: self.state(of) in ENDED, limit, f"run {of}")
        return self.run(of)

    def artifacts(self, of: str) -> list[dict[str, Any]]:
        """What a flow run has on its page."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [of]}}}
        return list(self("artifacts/filter", wanted))

    def tasks(self, of: str) -> list[dict[str, Any]]:
        """The task runs of a flow run."""
        return list(self("task_runs/filter", {"flow_runs": {"id": {"any_": [of]}}}))


class Workplace(Api):
    """A server and a runner that stand; `folder` holds the store and what they print."""

    def __init__(self, address: str, folder: Path, database: str) -> None:
        super().__init__(f"{address}/api")
        self.address, self.folder, self.database = address, folder, database

    @property
    def store(self) -> Path:
        """The folder of the artifacts."""
        return self.folder / "store"


def awaited(done: Callable[[], Any], limit: float, what: str) -> Any:
    """Ask until something is there; fail by its name when it does not come."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        try:
            if found := done():
                return found
        except OSError as error:
            # A server that is busy, or not ready, answers later; one that refuses will go on to.
            if 400 <= getattr(error, "code", 404) < 500 and getattr(error, "code", 404) != 404:
                raise
        time.sleep(0.5)
    raise TimeoutError(f"{what} did not come within {limit:.0f} s")


@contextmanager
def workplace(folder: Path, database: str, **more: str) -> Iterator[Workplace]:
    """What `make ui` starts, with every deployment registered."""
    from flows.deploying import DEPLOYMENTS

    address = f"http://127.0.0.1:{(port := free_port())}"
    place = Workplace(address, folder, database)
    words = ["-m", "flows", "serve", "--with-server", "--port", str(port)]
    with started([sys.executable, *words], surroundings(folder, **more), folder / "serve.log"):
        many = len(DEPLOYMENTS)
        awaited(lambda: place("deployments/count", {}) >= many, 2 * PATIENCE, "every deployment")
        yield place


@contextmanager
def started(
    words: list[str], environment: dict[str, str], log: Path, **how: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A process and all that it starts, gone with the block."""
    with log.open("ab") as said:
        process = subprocess.Popen(
            words, env=environment, stdout=said, stderr=said, start_new_session=True, **how
        )
        try:
            yield process
        finally:
            stopped(process)


def stopped(process: "subprocess.Popen[bytes]") -> None:
    """End a process as Ctrl-C would, then its group for good."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def postgres() -> Iterator[str]:
    """A Postgres of one's own on loopback; yields its URL, as `postgresql://...`."""
    programs = postgres_programs()
    assert programs is not None, "no Postgres on this machine"
    # Postgres does not run as root, and its user may not look into root's folders.
    who = {"user": "postgres"} if os.geteuid() == 0 else {}
    folder, port = Path(tempfile.mkdtemp(prefix="cluster-")), free_port()
    if who:
        shutil.chown(folder, "postgres")
    folder.chmod(0o700)
    laid = ["initdb", "-D", "data", "-A", "trust", "-U", "farm", "--no-sync", "-E", "UTF8"]
    said = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        subprocess.run([programs / laid[0], *laid[1:]], cwd=folder, check=True, **said, **who)
        words = [str(programs / "postgres"), "-D", "data", "-p", str(port), "-k", str(folder)]
        words += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with started(words, dict(os.environ), folder.with_suffix(".log"), cwd=folder, **who):
            url = f"postgresql://farm:planted@127.0.0.1:{port}/postgres"
            awaited(lambda: _answers(url), 60, "Postgres")
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)


def postgres_programs() -> Path | None:
    """The folder of Postgres' programs, the newest; None where there are none."""
    named = shutil.which("initdb")
    found = [Path(named).parent] if named else sorted(CLUSTERS.glob("*/bin"))
    return next((each for each in reversed(found) if (each / "initdb").exists()), None)


def _answers(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
