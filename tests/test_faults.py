"""Judging over HTTP as a process: killed under faults, and interrupted."""

import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

from alpacafarm_core.ledger import Ledger
from benchmarks import faults
from benchmarks.judge_pool import drawn_pairs
from benchmarks.served import served


def test_a_run_killed_twice_under_faults_loses_and_makes_up_nothing(tmp_path: Path) -> None:
    outcome = faults.run(tmp_path, size=60, faults=0.3, kills=2)
    assert outcome.faults() == []
    assert outcome.complete == 60


def test_an_interrupted_run_ends_soon_and_keeps_what_was_answered(tmp_path: Path) -> None:
    drawn_pairs(700, seed=0).write_parquet(tmp_path / faults.PAIRS)
    with (
        served(*faults.troubled(tmp_path, faults=0.0)) as url,
        closing(Ledger(tmp_path / faults.LEDGER)) as ledger,
        subprocess.Popen(
            faults.command(url, tmp_path),
            env=faults.environment(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        while ledger.counts().calls < 30:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
        calls = ledger.counts().calls
    answered = len((tmp_path / faults.LOG).read_text().splitlines())
    assert not (tmp_path / faults.LABELS).exists()
    assert said.strip().endswith("KeyboardInterrupt")
    assert 0 <= answered - calls <= faults.CONCURRENCY
