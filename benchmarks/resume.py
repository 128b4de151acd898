"""Kill DPO and PPO with SIGKILL at random steps, run them again, compare with undisturbed ones.

    python -m benchmarks.resume [--kills 10] [--seed 0]

Each kill comes at a random moment while the method trains, with a checkpoint at every step. At the
end the figures of every step and every bit of the weights must be those of a run nobody disturbed.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import torch
from safetensors.torch import load_file

from alpacafarm_core.store import Store
from alpacafarm_core.train.logbook import TIMED

METHODS = ("dpo", "ppo")


def main() -> None:
    """Disturb one store, leave another alone, compare; leaves with status 1 when they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="of each method")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", choices=METHODS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        return run(chosen.child)
    draw, faults = random.Random(chosen.seed), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        calm, disturbed = Path(folder, "calm"), Path(folder, "disturbed")
        for method in METHODS:
            finish(calm, method)
            at = [kill(disturbed, method, draw) for _ in range(chosen.kills)]
            finish(disturbed, method)
            print(f"{method}: killed after steps {', '.join(map(str, at))}")
        faults = compare(Store(calm), Store(disturbed))
    print("\n".join(faults) or "figures and weights are identical, to the bit")
    sys.exit(bool(faults))


def run(name: str) -> None:
    """One method over the store of the environment, with enough steps to be killed in."""
    from alpacafarm_core.methods.dpo import DPO
    from alpacafarm_core.methods.ppo import PPO
    from alpacafarm_core.setup import Setup
    from flows.optimise import optimised

    dpo, ppo = DPO.at("smoke"), PPO.at("smoke")
    longer = {
        "dpo": dpo.replace(training=dpo.training.replace(epochs=12, batch=16)),
        "ppo": ppo.replace(objective=ppo.objective.replace(steps=16)),
    }
    optimised(longer[name], Setup(scale="smoke"))


def start(root: Path, method: str) -> "subprocess.Popen[bytes]":
    """One child over a store."""
    words = [sys.executable, "-m", "benchmarks.resume", "--child", method]
    settings = {"ALPACAFARM_STORE": str(root), "ALPACAFARM_CHECKPOINT_SECONDS": "0"}
    return subprocess.Popen(words, env=os.environ | settings, stderr=subprocess.DEVNULL)


def finish(root: Path, method: str) -> None:
    """Run to the end."""
    if status := start(root, method).wait():
        raise SystemExit(f"{method} in {root} failed with status {status}")


def kill(root: Path, method: str, draw: random.Random) -> int | str:
    """Kill once the policy's training has made a few more steps; how many it had made by then."""
    wanted = steps(root) + draw.randint(1, 4)
    with start(root, method) as child:
        while child.poll() is None and steps(root) < wanted:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.3))
        child.kill()
    return "the end" if child.returncode == 0 else steps(root)


def steps(root: Path) -> int:
    """Steps in the newest checkpoint of a policy that is not finished."""
    found = (root / ".unfinished").glob("policy/*/*.checkpoints/step-*")
    return max((int(folder.name.split("-")[1]) for folder in found), default=0)


def compare(calm: Store, disturbed: Store) -> list[str]:
    """Weights and figures that differ, in words."""
    faults = []
    for kind in ("reward_model", "policy"):
        for artifact in calm.receipts(kind):
            one, other = calm.path(artifact), disturbed.path(artifact)
            if not (one / "metrics.parquet").is_file():
                continue
            first, second = (pl.read_parquet(f / "metrics.parquet") for f in (one, other))
            if not first.drop(TIMED, strict=False).equals(second.drop(TIMED, strict=False)):
                faults.append(f"{artifact.folder}: figures differ")
            weights, others = (load_file(f / "model.safetensors") for f in (one, other))
            if not all(torch.equal(weights[name], others[name]) for name in weights):
                faults.append(f"{artifact.folder}: weights differ")
            print(f"{artifact.folder}: {first.height} steps, {len(weights)} tensors compared")
    return faults


if __name__ == "__main__":
    main()
