"""Length-controlled win rates: agreement and time, and a board of 200 models.

    python -m benchmarks.length_control PAIRS CALIBRATION DIFFICULTY [--peer PYTHON] [--models 200]

PAIRS are judged pairs of several models in the order of AlpacaEval's instructions, CALIBRATION and
DIFFICULTY what `alpacafarm tally --lc v1` takes. `--peer` is a Python that has alpaca-eval 0.6.6:

    python -m venv PEER && PEER/bin/pip install alpaca-eval==0.6.6 'setuptools<80'

Both sides choose C by cross-validation from the same rows in the same run, after imports; ours
makes the bootstrap interval too. At C = 1 the peer's solver is told to go on to a tolerance of
1e-10, which is the definition. The board repeats the models under other names.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as `alpacafarm tally` does

import polars as pl

from alpacafarm_core import files
from alpacafarm_core.length_control import fitted
from alpacafarm_core.tally import MODEL
from flows.controlling import LC_COLUMNS, Control, controlled, inputs

RATE = LC_COLUMNS[0]


def main() -> None:
    """Measure both sides and print a line a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("difficulty", type=Path)
    parser.add_argument("--peer", type=Path, help="Python that has alpaca-eval 0.6.6")
    parser.add_argument("--models", type=int, default=200, help="models of the large board")
    chosen = parser.parse_args()
    pairs = files.read(chosen.pairs, "preferences")
    control = Control("v1", chosen.calibration, chosen.difficulty)
    controlled(pairs.head(805), control)  # the draws of the bootstrap are made once
    if chosen.peer:
        compare(pairs, control, chosen.peer)
    board = repeated(pairs, chosen.models)
    for title, each in (("C cross-validated", control), ("C = 1", control._replace(c=1.0))):
        wall, cpu = timed(lambda each=each: controlled(board, each))
        print(f"{chosen.models} models, {board.height} rows, {title}: {wall:.2f} s ({cpu:.2f} CPU)")


def compare(pairs: pl.DataFrame, control: Control, peer: Path) -> None:
    """A line a model: both rates, C and milliseconds, and how far apart they are at C = 1."""
    theirs = of_peer(pairs, control, peer)
    rate_alone = timed(lambda: rates(pairs, control))
    ours = {row["model"]: row for row in controlled(pairs, control).to_dicts()}
    with_interval = timed(lambda: controlled(pairs, control))
    fixed = dict(controlled(pairs, control._replace(c=1.0)).select("model", RATE).rows())
    print(f"{'model':22} {'here':>8} {'C':>8}  {'peer':>8} {'C':>8} {'ms':>6}  at C = 1")
    for model, line in theirs.items():
        own = ours[model]
        print(
            f"{model:22} {own[RATE]:8.4f} {own['lc_c']:8.3f}  "
            f"{line['rate']:8.4f} {line['c']:8.3f} {1000 * line['wall']:6.0f}  "
            f"{abs(fixed[model] - line['at_one']):.6f}"
        )
    other = [sum(line[clock] for line in theirs.values()) for clock in ("wall", "cpu")]
    for title, spent in (("the rate", rate_alone), ("with its interval", with_interval)):
        for clock, own, peers in zip(("wall", "CPU"), spent, other, strict=True):
            print(
                f"{title}, {clock}: {1000 * own / len(ours):.1f} ms a model here, peer's rate "
                f"{1000 * peers / len(ours):.0f} ms: {peers / own:.0f} times as fast"
            )


def rates(pairs: pl.DataFrame, control: Control) -> None:
    """What the peer makes: rates without intervals."""
    models, calibration = inputs(pairs, control)
    for judged in models.values():
        assert judged
        fitted(judged, calibration).chances().mean()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall and CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def of_peer(pairs: pl.DataFrame, control: Control, peer: Path) -> dict[str, dict[str, float]]:
    """What alpaca-eval makes of the same rows, in its own environment."""
    assert control.calibration
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "calibration.csv").write_bytes(control.calibration.read_bytes())
        columns = ["instruction", "output_1", "output_2", "generator_1", MODEL]
        for group in pairs.partition_by(MODEL):
            rows = group.select(*columns, "annotator", "preference").with_row_index()
            (folder / f"{group[MODEL][0]}.json").write_text(json.dumps(rows.to_dicts()))
        script = str(Path(__file__).with_name("length_control_peer.py"))
        done = subprocess.run(
            [str(peer), script, name], stdout=subprocess.PIPE, text=True, check=True,
            stderr=subprocess.DEVNULL, env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def repeated(pairs: pl.DataFrame, models: int) -> pl.DataFrame:
    """The pairs over and over, under other names, until there are so many models."""
    groups = pairs.partition_by(MODEL, maintain_order=True)
    copies = [
        groups[number % len(groups)].with_columns(pl.lit(f"model {number}").alias(MODEL))
        for number in range(models)
    ]
    return pl.concat(copies)


if __name__ == "__main__":
    main()
