"""Training steps on a CPU: the farm's backbone beside that of transformers, in turns, one thread.

    python -m benchmarks.backbone [--pairs 512] [--rounds 5]

The shipped base learns from pairs of the world's writers in batches of 64, as the demo does: the
Bradley-Terry loss of a reward model, and the log-probabilities that every policy loss starts from.
Prints the median CPU seconds of the rounds and their ratio; the losses must agree.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Training
from alpacafarm_core.sources import WORLD_BASE
from alpacafarm_core.train import lean
from alpacafarm_core.train.batches import Padded, batch_of, pairs, plan
from alpacafarm_core.train.forward import response_logprobs, response_scores
from alpacafarm_core.train.models import load_policy, load_scorer
from benchmarks.judge_pool import drawn_pairs

Read = Callable[[Any, Padded], Tensor]


def main() -> None:
    """Measure both and print a line for each loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    machine, suits = Machine(device="cpu", threads=1), lean.suits
    rows = drawn_pairs(chosen.pairs, seed=0)
    for name, load, read in (
        ("reward model", load_scorer, response_scores),
        ("policy", load_policy, lambda *both: response_logprobs(*both).sum(1)),
    ):
        torch.manual_seed(0)
        loaded = load(WORLD_BASE, machine)
        examples = pairs(rows.with_columns(preference=1.0), loaded.tokenizer)
        steps = list(plan(examples, Training(epochs=1, batch=64), machine.micro_batch))
        batches = [
            batch_of([examples[row] for row in micro], True) for step in steps for micro in step
        ]
        seconds: dict[str, list[float]] = {"transformers": [], "ours": []}
        losses = {}
        for _ in range(chosen.rounds):
            for side, held in seconds.items():
                lean.suits = suits if side == "ours" else lambda _: False
                started = time.process_time()
                losses[side] = learned(loaded.model, batches, read)
                held.append(time.process_time() - started)
        assert abs(losses["ours"] - losses["transformers"]) < 1e-4 * abs(losses["ours"])
        theirs, ours = (statistics.median(held) for held in seconds.values())
        print(
            f"{name:13} transformers {theirs:6.2f} s  ours {ours:6.2f} s  {theirs / ours:.2f} times"
            f"  ({len(examples)} pairs, medians of {chosen.rounds})"
        )


def learned(model: Any, batches: list[Padded], read: Read) -> float:
    """The summed loss of all batches, forward and backward."""
    model.zero_grad()
    total = 0.0
    for batch in batches:
        better, worse = read(model, batch).chunk(2)
        loss = -logsigmoid(better - worse).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


if __name__ == "__main__":
    main()
