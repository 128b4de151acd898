"""The two generation engines side by side on the world's base model, start and imports included.

    python -m benchmarks.engines [--prompts 1000] [--samples 4]

Each runs in a process of its own on the same prompts and seeds; prints tokens a second and the
ratio of the whole times.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alpacafarm_core.machine import Machine
from alpacafarm_core.setup import World
from alpacafarm_core.sources import WORLD_BASE, instructions


def main() -> None:
    """Run both, or one when told which."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--engine", choices=("transformers", "vllm"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.engine:
        return print(json.dumps(one(chosen)))
    found = {
        engine: measured(engine, chosen)
        for engine in ("transformers", "vllm")
        if engine != "vllm" or Machine().has_vllm()
    }
    for engine, figures in found.items():
        print(f"{engine:13} {figures['tokens']:8.0f} tokens  {figures['seconds']:6.1f} s in all")
    if len(found) == 2:
        ratio = found["vllm"]["seconds"] / found["transformers"]["seconds"]
        print(f"vllm / transformers, whole time: {ratio:.2f}")


def measured(engine: str, chosen: argparse.Namespace) -> dict[str, float]:
    """One engine in a process of its own; seconds of the whole process."""
    sizes = ["--prompts", str(chosen.prompts), "--samples", str(chosen.samples)]
    words = [sys.executable, "-m", "benchmarks.engines", "--engine", engine, *sizes]
    started = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return {**found, "seconds": time.monotonic() - started}


def one(chosen: argparse.Namespace) -> dict[str, float]:
    """Tokens sampled by one engine in this process."""
    from alpacafarm_core.generate import generate
    from alpacafarm_core.ledger import Ledger
    from alpacafarm_core.settings import Sampling

    rows = instructions(World(), "val", chosen.prompts)
    sampling = Sampling(n=chosen.samples, max_tokens=48)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder, "ledger.sqlite"))
        answers = generate(WORLD_BASE, rows, sampling, ledger, Machine(engine=chosen.engine))
    return {"tokens": float(answers["output_ids"].list.len().sum())}


if __name__ == "__main__":
    main()
