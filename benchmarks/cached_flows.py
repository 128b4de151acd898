"""How long Prefect takes when nothing is left to do: a leaderboard, and a hundred stages.

    python -m benchmarks.cached_flows [--runs 5] [--database sqlite|postgres]

The leaderboard goes through server and worker as it does from the UI; its time is that of the flow,
from Running to Completed. The stages run in one flow of this machine against the same server.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from tests.workplace import Workplace, postgres, surroundings, workplace

AIMS = {"leaderboard": 3.0, "stages": 5.0}
STAGES = 100
LONG = 1800.0


def main() -> None:
    """Print a line for each, with the aim; leave with status 1 when a median is above it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        return stages(chosen.runs)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        more = {}
        if chosen.database == "postgres":
            url = stack.enter_context(postgres())
            more["PREFECT_API_DATABASE_CONNECTION_URL"] = f"postgresql+asyncpg{url[10:]}"
        place = stack.enter_context(workplace(folder, chosen.database, **more))
        times = {"leaderboard": boards(place, chosen.runs), "stages": apart(place, chosen.runs)}
    late = [name for name, found in times.items() if tell(name, found)]
    sys.exit(bool(late))


def boards(place: Workplace, runs: int) -> list[float]:
    """Seconds of the demo's leaderboard at scale smoke, once it has been made."""
    seconds: list[float] = []
    made = 0
    for _ in range(runs + 1):
        run = place.ended(place.start("leaderboard", "smoke"), LONG)
        if run["state_type"] != "COMPLETED":
            raise SystemExit(f"{run['name']}: {run['state']['message']}")
        held = len(list(place.store.glob("*/*/manifest.json")))
        if held == made:
            seconds.append(took(run))
            print(f"a board of {held} artifacts, all there: {seconds[-1]:.2f} s", flush=True)
        made = held
    return seconds


def apart(place: Workplace, runs: int) -> list[float]:
    """Seconds of a flow of a hundred cached stages, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.cached_flows", "--child", "--runs", str(runs)]
    environment = surroundings(place.folder, PREFECT_API_URL=place.url)
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [took(place.run(name)) for name in json.loads(done.stdout.splitlines()[-1])]


def stages(runs: int) -> None:
    """Make a hundred tables, then ask for them again and again; print the ids of those runs."""
    from prefect import flow
    from prefect.runtime import flow_run

    import tasks
    from alpacafarm_core.setup import Setup

    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")

    @flow(name="hundred-stages")
    def hundred() -> str:
        for rows in range(1, STAGES + 1):
            tasks.instructions(Setup().source, "eval", rows)
        return str(flow_run.get_id())

    print(json.dumps([hundred() for _ in range(runs + 1)][1:]))


def took(run: dict[str, Any]) -> float:
    """Seconds from a run's start to its end."""
    start, end = (datetime.fromisoformat(run[name]) for name in ("start_time", "end_time"))
    return (end - start).total_seconds()


def tell(name: str, seconds: list[float]) -> bool:
    """Print the median and the range; whether it is above the aim."""
    middle, aim = median(seconds), AIMS[name]
    span = f"{min(seconds):.2f} to {max(seconds):.2f}"
    print(f"{name:12} median {middle:.2f} s ({span}, {len(seconds)} runs), aim {aim:.0f} s")
    return middle > aim


if __name__ == "__main__":
    main()
