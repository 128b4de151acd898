"""One loop, of this project or of plain torch, timed for `benchmarks.gpu_loops`.

    python -m benchmarks.gpu_loops_child here|torch --loops sft --model FOLDER [...]

Prints one line of JSON: median seconds of a step after the warm-up, and bytes in use at most.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import torch
from transformers import AutoModelForCausalLM

from alpacafarm_core.artifacts import Demonstrations, Instructions, Preferences
from alpacafarm_core.machine import Machine
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.prompts import render
from alpacafarm_core.proximal import KLPenalty, ProximalObjective
from alpacafarm_core.settings import Sampling, Training
from alpacafarm_core.train import offline, online
from alpacafarm_core.train.batches import tokenizer_digest
from alpacafarm_core.train.logbook import Logbook
from alpacafarm_core.train.models import load_tokenizer
from benchmarks.gpu_loops import PASSES, SIDES, SIZES, WORDS, parser


def main() -> None:
    """Run it and say how long it took."""
    words = parser()
    words.add_argument("side", choices=SIDES)
    chosen = words.parse_args()
    print(json.dumps((ours if chosen.side == "here" else plain)(chosen)))


def rows(chosen: argparse.Namespace, count: int) -> Iterator[dict[str, Any]]:
    """Prompts with ids of two answers of `--answer` tokens, the end token included."""
    tokenizer, draw = load_tokenizer(chosen.model), Random(0)
    digest, template = tokenizer_digest(tokenizer), len(tokenizer(render("", "")).input_ids)
    if chosen.prompt <= template:
        raise SystemExit(f"--prompt {chosen.prompt}: the template alone has {template} tokens")
    vocabulary = SIZES[chosen.size].vocabulary
    for _ in range(count):
        one, two = (
            [*(draw.randrange(3, vocabulary) for _ in range(chosen.answer - 1)), 1]
            for _ in range(2)
        )
        # With a space before the first word too, each is one token.
        words = draw.choices(WORDS.split(), k=chosen.prompt - template)
        instruction = "".join(f" {word}" for word in words)
        answers = {"output_ids": one, "output_1_ids": one, "output_2_ids": two}
        told = {"preference": 1.0, "status": "ok", "tokenizer": digest}
        yield {"instruction": instruction, "input": "", **answers, **told}


def ours(chosen: argparse.Namespace) -> dict[str, float]:
    """The loop of this project: medians over its steps after the warm-up."""
    marks: list[float] = []
    used: list[float] = []
    note = Logbook.note

    def marked(*given: Any) -> None:
        note(*given)
        marks.append(time.perf_counter())
        used.append(peak(chosen))

    Logbook.note = marked  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        trained(chosen, Path(folder, "out"))
    taken = [after - before for before, after in pairwise(marks)]
    return {"seconds": statistics.median(taken[max(0, chosen.warmup - 1) :]), "peak": max(used)}


def trained(chosen: argparse.Namespace, out: Path) -> None:
    """All steps of the loop."""
    machine = Machine(
        device=chosen.device,
        precision="bfloat16" if chosen.device == "cuda" else "float32",
        micro_batch=chosen.micro,
        engine=chosen.engine,
        fit_check="no",
        checkpoint_seconds=1e9,
    )
    training = Training(learning_rate=1e-5, epochs=1, batch=chosen.rows, max_length=2048)
    loop, start = chosen.loops[0], chosen.model
    if loop == "ppo":
        frame = table(Instructions, chosen)
        objective = proximal(training, chosen)
        online.roll_out((start, start, None), out, frame, objective, machine)
    else:
        kind, method = {"sft": (Demonstrations, SFT), "dpo": (Preferences, DPO)}[loop]
        recipe = method(training=training)
        offline.train((start, None), out, table(kind, chosen), recipe, machine)


def table(kind: Any, chosen: argparse.Namespace) -> pl.DataFrame:
    """As many rows as all steps take, with the columns of a table."""
    made = rows(chosen, chosen.steps * chosen.rows)
    given = [{name: row.get(name) for name in kind.columns} for row in made]
    return pl.DataFrame(given, schema=kind.columns)


def proximal(training: Training, chosen: argparse.Namespace) -> ProximalObjective:
    """One gradient step a pass, and no limit on where the policy goes."""
    return ProximalObjective(
        steps=chosen.steps,
        rollouts=chosen.rows,
        minibatch=chosen.rows,
        inner_epochs=PASSES,
        kl=KLPenalty(limit=1e9),
        sampling=Sampling(temperature=1.0, max_tokens=chosen.answer),
        training=training,
    )


def plain(chosen: argparse.Namespace) -> dict[str, float]:
    """Torch and transformers alone: medians over steps on random ids of the same shape."""
    torch.manual_seed(0)
    count = 1 + (chosen.loops == ["ppo"])
    models = [
        AutoModelForCausalLM.from_pretrained(chosen.model, dtype=torch.float32).to(chosen.device)
        for _ in range(count)
    ]
    weights = [weight for model in models for weight in model.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=1e-5, fused=True)
    taken = []
    for _ in range(chosen.steps):
        began = time.perf_counter()
        stepped(models, optimiser, chosen)
        if chosen.device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return {"seconds": statistics.median(taken[chosen.warmup :]), "peak": peak(chosen)}


def stepped(models: list[Any], optimiser: Any, chosen: argparse.Namespace) -> None:
    """One step of plain torch: PPO's four looks and its passes, else one pass."""
    if chosen.loops == ["ppo"]:
        for model in (*models, *models):
            for _ in range(0, chosen.rows, chosen.micro):
                seen(model, chosen, with_gradient=False)
    for _ in range(PASSES if chosen.loops == ["ppo"] else 1):
        for model in models:
            for _ in range(0, chosen.rows, chosen.micro):
                seen(model, chosen, with_gradient=True)
        optimiser.step()
        optimiser.zero_grad()


def seen(model: Any, chosen: argparse.Namespace, with_gradient: bool) -> None:
    """One micro-batch: the log-probabilities of all tokens and a loss on them."""
    sides = 2 if chosen.loops == ["dpo"] else 1
    shape = (sides * chosen.micro, chosen.prompt + chosen.answer)
    ids = torch.randint(3, SIZES[chosen.size].vocabulary, shape, device=chosen.device)
    half = torch.autocast(chosen.device, torch.bfloat16, enabled=chosen.device == "cuda")
    with half, torch.set_grad_enabled(with_gradient):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        picked = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0].sum(1)
    if not with_gradient:
        return
    if sides == 1:
        picked.mean().neg().backward()
        return
    better, worse = picked.chunk(2)
    torch.nn.functional.logsigmoid(0.1 * (better - worse)).mean().neg().backward()


def peak(chosen: argparse.Namespace) -> float:
    """Most bytes in use: of the GPU, all that is taken on it; else of this process."""
    if chosen.device == "cpu":
        return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    free, whole = torch.cuda.mem_get_info()
    return float(max(whole - free, torch.cuda.max_memory_reserved()))


if __name__ == "__main__":
    main()
