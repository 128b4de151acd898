"""A leaderboard over two workers that share nothing but S3, Postgres and a Prefect server.

    python -m benchmarks.two_workers [--methods sft,dpo,best_of_n,ppo] [--scale smoke]

Each worker has a home, a cache and a working copy of its own. First both live: every stage is made
once, and keys, board and purchases are those of one machine. Then one is killed (`kill -9`, with
all that it started) in the middle of a stage: the run must end without a hand, and nothing may be
bought twice.
Leaves with status 1 when any of it does not hold.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.workplace import Api, awaited, free_port, postgres, started, surroundings

ROOT = Path(__file__).parents[1]
COPIED = ("alpacafarm_core", "flows", "tasks", "data/world", "pyproject.toml", "prefect.yaml")
BUCKET, KEYS = "farm-two", {"AWS_ACCESS_KEY_ID": "farm", "AWS_SECRET_ACCESS_KEY": "farm-secret"}
SILENCE, LONG = "60", 3600.0
DONE = ("COMPLETED", "FAILED", "CANCELLED")
"""States that a run stays in; one that crashed is begun again."""


class Shared(NamedTuple):
    """Where everything is that the machines share."""

    storage: str
    postgres: str
    api: Api


class Outcome(NamedTuple):
    """What a leaderboard left behind."""

    seconds: float
    key: str
    rows: list[dict[str, Any]]
    artifacts: set[str]
    calls: int
    usd: float
    made: dict[str, list[str]]


def main() -> None:
    """Run the three, print a table, say what does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="sft,dpo,best_of_n,ppo")
    parser.add_argument("--scale", default="smoke")
    chosen = parser.parse_args()
    methods = chosen.methods.split(",")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        alone = one_machine(folder / "alone", methods, chosen.scale)
        tell("one machine", alone)
        shared = stack.enter_context(services(folder))
        both = raced(shared, folder / "both", methods, chosen.scale, kills=False)
        tell("two workers", both)
        rest = raced(shared, folder / "killed", methods, chosen.scale, kills=True)
        tell("one killed", rest)
    faults = [*held("two workers", both, alone), *held("one killed", rest, alone)]
    if len(both.made) < 2:
        faults.append("two workers: only one of them made anything")
    print("\n".join(faults) or "same keys, same board, each stage once, nothing bought twice")
    sys.exit(bool(faults))


def one_machine(folder: Path, methods: Sequence[str], scale: str) -> Outcome:
    """The leaderboard with no server at all, in a folder."""
    folder.mkdir()
    words = ["leaderboard", "--methods", ",".join(methods), "--setup.scale", scale, "--json"]
    begun = time.monotonic()
    environment = surroundings(folder)
    command = [sys.executable, "-m", "flows", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    board = json.loads(done.stdout)
    return outcome(time.monotonic() - begun, board["key"], environment, {"here": folder / "store"})


@contextmanager
def services(folder: Path) -> Iterator[Shared]:
    """S3, Postgres and a Prefect server that works on nothing itself."""
    with ExitStack() as stack:
        port, web = free_port(), free_port()
        words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        storage = f"http://127.0.0.1:{port}"
        stack.enter_context(started(words, dict(os.environ), folder / "storage.log"))
        database = stack.enter_context(postgres())
        awaited(lambda: bucket(storage), 60, "the storage")
        api = Api(f"http://127.0.0.1:{web}/api")
        words = ["serve", "--with-server", "--port", str(web), "--no-work"]
        more = {
            "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg{database[10:]}",
            "ALPACAFARM_SILENCE": SILENCE,
        }
        stack.enter_context(
            started(
                [sys.executable, "-m", "flows", *words],
                surroundings(folder, **more),
                folder / "server.log",
                cwd=ROOT,
            )
        )
        awaited(lambda: api("work_pools/local/queues/filter", {}), 600, "the work pool")
        awaited(lambda: api.deployment("spread", "default"), 600, "the deployments")
        awaited(lambda: len(api("automations/filter", {})) >= 2, 600, "the automations")
        yield Shared(storage, database, api)


def bucket(storage: str) -> bool:
    """Make the bucket, once the storage answers."""
    import boto3
    from botocore.exceptions import BotoCoreError

    client = boto3.client(
        "s3",
        endpoint_url=storage,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    try:
        client.create_bucket(Bucket=BUCKET)
    except BotoCoreError:
        return False
    return True


def raced(shared: Shared, folder: Path, methods: Sequence[str], scale: str, kills: bool) -> Outcome:
    """The leaderboard over two workers, of which one is killed in the middle of a stage or none."""
    ledger = database(shared.postgres, folder.name)
    prefix = f"s3://{BUCKET}/{folder.name}"
    common = KEYS | {
        "AWS_ENDPOINT_URL": shared.storage,
        "AWS_DEFAULT_REGION": "us-east-1",
        "ALPACAFARM_STORE": prefix,
        "ALPACAFARM_LEDGER": ledger,
        "PREFECT_API_URL": shared.api.url,
    }
    with ExitStack() as stack:
        places = [folder / name for name in ("first", "second")]
        for place in places:
            machine(place)
            environment = surroundings(place, **common, **own(place))
            words = [sys.executable, "-m", "flows", "serve", "--no-offer"]
            stack.enter_context(
                started(words, environment, place / "worker.log", cwd=place / "copy")
            )
        begun = time.monotonic()
        run = shared.api.start("spread", "default", methods=list(methods), setup={"scale": scale})
        if kills:
            killed(places, shared.api, run)
        awaited(lambda: shared.api.state(run) in DONE, LONG, "the end of the leaderboard")
        ended = shared.api.run(run)
        seconds = time.monotonic() - begun
        if ended["state_type"] != "COMPLETED":
            logs = "\n".join((place / "worker.log").read_text()[-3000:] for place in places)
            raise SystemExit(f"{ended['state_name']}: {ended['state']['message']}\n{logs}")
        quiet(shared.api)
        caches = {each.name: found for each in places for found in each.glob("cache/*")}
        return outcome(seconds, None, environment, caches)


def machine(place: Path) -> None:
    """The disk of a machine: a home and a working copy of its own."""
    (place / "home").mkdir(parents=True)
    for name in COPIED:
        there, copy = ROOT / name, place / "copy" / name
        if there.is_dir():
            shutil.copytree(there, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(there, copy)


def own(place: Path) -> dict[str, str]:
    """What tells one machine from the other."""
    return {
        "HOME": str(place / "home"),
        "ALPACAFARM_CACHE": str(place / "cache"),
        "PYTHONPATH": str(place / "copy"),
        "OMP_NUM_THREADS": "1",
    }


def killed(places: Sequence[Path], api: Api, run: str) -> None:
    """Kill the machine on which the leaderboard itself runs, in the middle of a stage."""
    awaited(lambda: under_way(api, run), LONG, "a stage under way")
    sign = f"PREFECT__FLOW_RUN_ID={run}"
    (place,) = (each for each in places if processes(each, sign))
    ours = processes(place)
    for each in ours:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    print(f"killed the {place.name} machine, {len(ours)} processes", flush=True)


def under_way(api: Api, run: str) -> bool:
    """Whether a run has finished a stage and is in the middle of one that takes seconds."""
    states = [(each["name"].rpartition("-")[0], each["state_type"]) for each in api.tasks(run)]
    running = {name for name, state in states if state == "RUNNING"}
    return ("base", "COMPLETED") in states and bool(running & {"train_policy", "generate"})


def processes(place: Path, also: str = "") -> list[int]:
    """All processes of a machine: those whose home is there; or the ones with a variable too."""
    signs, found = {f"HOME={place / 'home'}".encode(), *([also.encode()] if also else [])}, []
    for each in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if signs <= {*each.read_bytes().split(b"\0")}:
                found.append(int(each.parent.name))
    return found


def quiet(api: Api) -> None:
    """Wait until no run is left that a worker works on or will."""
    open_ = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED"]}}}}
    awaited(
        lambda: not [r for r in api("flow_runs/filter", open_) if not r["auto_scheduled"]],
        LONG,
        "the end of the other runs",
    )


def database(url: str, name: str) -> str:
    """A database of its own for a ledger; its URL."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
    return f"{url.rpartition('/')[0]}/{name}"


def outcome(
    seconds: float, key: str | None, environment: dict[str, str], caches: dict[str, Path]
) -> Outcome:
    """What is in a store and its ledger now, and which machine made what."""
    said = {name: held for name, held in environment.items() if name.startswith(("AL", "AWS"))}
    os.environ.update(said)
    try:
        from alpacafarm_core.places import ledger_of, store_at

        place = environment["ALPACAFARM_STORE"]
        store, ledger = store_at(place), ledger_of(place)
        boards = [each for each in store.receipts("leaderboard") if key in (None, each.key)]
        counts = ledger.counts()
        return Outcome(
            seconds,
            boards[0].key,
            store.read(boards[0]).to_dicts(),
            {each.folder for each in store.receipts()},
            counts.calls,
            counts.price,
            {name: stages for name, each in caches.items() if (stages := made(each))},
        )
    finally:
        for name in said:
            os.environ.pop(name, None)


def made(cache: Path) -> list[str]:
    """What a machine's own journal says it made."""
    journal = cache / "journal.jsonl"
    lines = journal.read_text().splitlines() if journal.is_file() else []
    events = [json.loads(line) for line in lines if line.strip()]
    return [event["artifact"] for event in events if event["ran"]]


def held(name: str, found: Outcome, alone: Outcome) -> list[str]:
    """What of it is not as on one machine."""
    faults = []
    if found.key != alone.key or found.artifacts != alone.artifacts:
        faults.append(f"{name}: keys differ: {sorted(found.artifacts ^ alone.artifacts)}")
    if found.rows != alone.rows:
        faults.append(f"{name}: the board's rows differ")
    if found.calls != alone.calls:
        faults.append(f"{name}: {found.calls} calls bought, one machine bought {alone.calls}")
    counted = Counter(each for stages in found.made.values() for each in stages)
    if twice := [each for each, times in counted.items() if times > 1]:
        faults.append(f"{name}: made more than once: {twice}")
    return faults


def tell(name: str, found: Outcome) -> None:
    """One line of the table."""
    shares = ", ".join(f"{place} {len(stages)}" for place, stages in found.made.items())
    print(
        f"{name:12} {found.seconds:7.1f} s  board {found.key}  {len(found.artifacts)} artifacts  "
        f"{found.calls} calls ${found.usd:.2f}  made: {shares}",
        flush=True,
    )


if __name__ == "__main__":
    main()
