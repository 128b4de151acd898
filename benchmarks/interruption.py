"""Kill the farm at random instants, run it again, and compare with a run nobody disturbed.

    python -m benchmarks.interruption [--kills 20] [--scale small] [--seed 0]

Checks, and leaves with status 1 when one fails: the final leaderboard is identical; no finished
artifact was made again; no answer that was in the ledger was asked for again.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alpacafarm_core.store import Store

ASKED_TWICE = "asked-twice.txt"


def main() -> None:
    """Disturb one store, leave another alone, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--scale", default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=25.0, help="seconds before a kill")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        return run(chosen.scale)
    with tempfile.TemporaryDirectory() as folder:
        calm, disturbed = Path(folder, "calm"), Path(folder, "disturbed")
        whole = finish(calm, chosen.scale)
        print(f"undisturbed: {whole:.1f} s")
        kept = disturb(disturbed, chosen)
        print(f"last run, to the end: {finish(disturbed, chosen.scale):.1f} s")
        faults = compare(Store(calm), Store(disturbed), kept)
        print("\n".join(faults) or f"identical after {chosen.kills} kills; nothing made twice")
        sys.exit(bool(faults))


def run(scale: str) -> None:
    """The demo at a scale, in a process that may be killed; notes every answer asked for twice."""
    from alpacafarm_core.setup import Setup
    from alpacafarm_core.world import judges
    from flows.leaderboard import DEMO, methods_named, ranked
    from tasks.stage import ledger, store

    answer = judges.ask

    def watched(requests):  # type: ignore[no-untyped-def]
        from alpacafarm_core.ledger import call_key

        held = ledger().calls_known([call_key(request) for request in requests])
        if held:
            with (store().root / ASKED_TWICE).open("a") as file:
                file.write(f"{len(held)}\n")
        return answer(requests)

    judges.ask = watched
    setup = Setup(scale=scale)
    ranked(methods_named(DEMO, setup), setup)


def disturb(root: Path, chosen: argparse.Namespace) -> dict[str, str]:
    """Start and kill again and again; returns what was finished at any time, by when made."""
    draw, kept = random.Random(chosen.seed), {}
    for number in range(chosen.kills):
        child = start(root, chosen.scale)
        wait = draw.uniform(0.5, chosen.longest)
        try:
            child.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        store = Store(root)
        finished = {made.artifact.folder: made.made for made in store.all()}
        kept = finished | kept
        print(f"kill {number + 1:2d} after {wait:4.1f} s: {len(finished)} artifacts finished")
    return kept


def start(root: Path, scale: str) -> "subprocess.Popen[bytes]":
    """One child over a store."""
    words = [sys.executable, "-m", "benchmarks.interruption", "--child", "--scale", scale]
    environment = os.environ | {"ALPACAFARM_STORE": str(root)}
    return subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)


def finish(root: Path, scale: str) -> float:
    """Run to the end; returns seconds."""
    started = time.monotonic()
    child = start(root, scale)
    if child.wait():
        raise SystemExit(f"the run in {root} failed with status {child.returncode}")
    return time.monotonic() - started


def compare(calm: Store, disturbed: Store, kept: dict[str, str]) -> list[str]:
    """Everything that is not as it should be, in words."""
    faults = []
    boards = [store.all("leaderboard")[-1].artifact for store in (calm, disturbed)]
    tables = [store.read(board) for store, board in zip((calm, disturbed), boards, strict=True)]
    if boards[0] != boards[1] or not tables[0].equals(tables[1]):
        faults.append(f"leaderboards differ:\n{tables[0]}\n{tables[1]}")
    now = {made.artifact.folder: made.made for made in disturbed.all()}
    faults += [f"{name} was made again" for name, made in kept.items() if now.get(name) != made]
    ran = [event["artifact"] for event in disturbed.journal() if event["ran"]]
    faults += [f"{name} ran {ran.count(name)} times" for name in set(ran) if ran.count(name) > 1]
    if rows := bought_twice(disturbed):
        faults.append(f"{rows} rows were bought twice, in different calls")
    twice = disturbed.root / ASKED_TWICE
    if twice.exists():
        faults.append(f"answers in the ledger were asked for again: {twice.read_text().split()}")
    return faults + [
        json.dumps(damage) for a in disturbed.receipts() if (damage := disturbed.damage(a))
    ]


def bought_twice(store: Store) -> int:
    """Rows of the ledger that more than one call is about; no judge of the world miscounts."""
    query = "SELECT count(*) FROM (SELECT key FROM rows GROUP BY key HAVING count(*) > 1)"
    with sqlite3.connect(store.root / "ledger.sqlite") as ledger:
        return int(ledger.execute(query).fetchone()[0])


if __name__ == "__main__":
    main()
