"""A run of judging against a server that fails three times in ten, killed twice on the way.

    python -m benchmarks.faults [--pairs 805] [--faults 0.3] [--kills 2]

The built-in panel judges over HTTP; its server fails in ten ways. The process that judges is killed
with SIGKILL whenever another third of the answers is there, and started again. At the end every
label must be the one that the judges give inside one process without any fault, and every answered
call must be in the ledger once, but for those that were on their way in the moment of a kill.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import polars as pl

from alpacafarm_core import panel
from alpacafarm_core.annotate import judge
from alpacafarm_core.endpoints import ask_for
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.llm import WORLD
from alpacafarm_core.panel import Panel
from benchmarks.judge_pool import drawn_pairs
from benchmarks.served import served

LEDGER, LOG, PAIRS, LABELS = "ledger.sqlite", "answered.jsonl", "pairs.parquet", "labels.parquet"
CONCURRENCY = 16


class Outcome(NamedTuple):
    """What came of a run: calls by whether their answer was kept, rows by their label."""

    pairs: int
    complete: int
    as_without_faults: int
    answered: int
    in_ledger: int
    kills: int
    seconds: float

    @property
    def on_their_way(self) -> int:
        """Calls that were answered and are not in the ledger, or were answered again."""
        return self.answered - self.in_ledger

    def faults(self) -> list[str]:
        """What should not be, in words; empty when all is well."""
        lines = []
        if self.complete < self.pairs:
            lines.append(f"{self.pairs - self.complete} pairs have no label")
        if self.as_without_faults < self.pairs:
            lines.append(f"{self.pairs - self.as_without_faults} labels are not the judges'")
        if not 0 <= self.on_their_way <= self.kills * CONCURRENCY:
            lines.append(f"{self.on_their_way} answers lost or bought twice")
        return lines


def main() -> None:
    """Run it, or be the process that is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=805)
    parser.add_argument("--faults", type=float, default=0.3)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--judge", nargs=2, metavar=("URL", "FOLDER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.judge:
        return judging(chosen.judge[0], Path(chosen.judge[1]))
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), chosen.pairs, chosen.faults, chosen.kills)
    print(f"{outcome.complete} of {outcome.pairs} pairs complete in {outcome.seconds:.1f} s")
    print(f"{outcome.as_without_faults} labels as without faults")
    print(f"{outcome.answered} calls answered, {outcome.in_ledger} in the ledger")
    print(f"{outcome.on_their_way} on their way at {outcome.kills} kills")
    sys.exit("\n".join(outcome.faults()) or None)


def run(folder: Path, size: int, faults: float, kills: int) -> Outcome:
    """Judge pairs in a process that is killed so many times on the way."""
    pairs = drawn_pairs(size + size // 4, seed=0).head(size)
    pairs.write_parquet(folder / PAIRS)
    with closing(Ledger(folder / "inside.sqlite")) as ledger:
        inside = judge(pairs, judges_at(WORLD), ask_for(WORLD), ledger)
    started = time.monotonic()
    with served(*troubled(folder, faults)) as url:
        for kill in range(kills):
            judging_until(url, folder, inside.spending.calls * (kill + 1) // (kills + 1))
        subprocess.run(command(url, folder), check=True, env=environment())
    labels = pl.read_parquet(folder / LABELS)
    same = labels["preference"].eq_missing(inside.preferences["preference"])
    with closing(Ledger(folder / LEDGER)) as ledger:
        kept = ledger.counts().calls
    answered = len((folder / LOG).read_text().splitlines())
    seconds = time.monotonic() - started
    complete = int(labels["status"].is_in(["ok", "tie"]).sum())
    return Outcome(pairs.height, complete, int(same.sum()), answered, kept, kills, seconds)


def judges_at(endpoint: str) -> Panel:
    """The built-in panel, asked at an endpoint."""
    pool = panel.load("world")
    annotators = tuple(each.replace(endpoint=endpoint) for each in pool.annotators)
    return pool.replace(annotators=annotators)


def judging(url: str, folder: Path) -> None:
    """What the process does that is killed: judge, and write the labels last."""
    ledger = Ledger(folder / LEDGER)
    judged = judge(pl.read_parquet(folder / PAIRS), judges_at(url), ask_for(url), ledger)
    judged.preferences.write_parquet(folder / LABELS)


def judging_until(url: str, folder: Path, calls: int) -> None:
    """Judge until so many calls are in the ledger, then kill."""
    with subprocess.Popen(command(url, folder), env=environment()) as process:
        with closing(Ledger(folder / LEDGER)) as ledger:
            while process.poll() is None and ledger.counts().calls < calls:
                time.sleep(0.005)
        process.kill()


def troubled(folder: Path, faults: float) -> list[str]:
    """Options of a server that fails now and then and notes what it answered."""
    return ["--faults", str(faults), "--latency", "0.02", "--log", str(folder / LOG)]


def command(url: str, folder: Path) -> list[str]:
    """The process that judges, as words."""
    return [sys.executable, "-m", "benchmarks.faults", "--judge", url, str(folder)]


def environment() -> dict[str, str]:
    """Impatient, as the server answers soon or never."""
    limits = {"ALPACAFARM_CONCURRENCY": str(CONCURRENCY), "ALPACAFARM_TIMEOUT": "1"}
    return dict(os.environ) | limits


if __name__ == "__main__":
    main()
