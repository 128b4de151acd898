"""The training loops beside TRL's: seconds and memory of a step, on the same rows, in one run.

    python -m benchmarks.trl sft|reward|dpo|ppo --peers FOLDER --python PEER/bin/python
        [--model tiny|50m] [--rows even|alpaca] [--steps 20] [--account] [--out docs/trl-table.md]

FOLDER has the scripts that run TRL's trainers (trl_sft.py, trl_reward.py, trl_dpo.py, trl_ppo.py,
make_tiny.py); PEER is an environment of its own:

    python -m venv PEER && PEER/bin/pip install torch==2.13.0 trl==1.16.0 peft
    PEER/bin/pip install --no-deps --target PEER/trl112 trl==1.12.0   # the last with PPO

Both sides get the same model folder, rows, batch, precision (float32), learning rate, threads and
number of steps, in turns, each in a process of its own. With `--rows even` every row has exactly
`--seq` tokens, nothing before the prompt and a prompt of a quarter of it; with `alpaca` there is
the template, a prompt of about 60 tokens and answers of 40 to 60. `--account` adds what the loop
here takes without its own backbone, and without sharing prompts either. First both learn from one
and the same batch a few times over, where their losses must agree.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from benchmarks.trl_rows import laid, longest, rows, written

HERE, THEIRS = "here", "TRL"
MODELS = {"tiny": (256, 4, 4, 4096), "50m": (512, 12, 8, 12000)}  # hidden, layers, heads, words
FIGURES = ("rate", "cpu", "peak", "reference", "reference_wall", "training_peak", "tokens")


class Run(NamedTuple):
    """One process: what it said of itself, and the peak of its resident memory in MiB."""

    said: dict[str, Any]
    peak: float

    def figures(self) -> dict[str, float]:
        """Steps a second, CPU seconds a step and of its share of the reference, MiB, tokens."""
        return {
            "rate": self.said["steps_per_s"],
            "cpu": self.said["cpu_s_per_step"],
            "peak": self.peak,
            "reference": self.said.get("reference_cpu_s_per_step", 0.0),
            "reference_wall": self.said.get("reference_s_per_step", 0.0),
            "training_peak": self.said.get("training_peak_mib", self.peak),
            "tokens": self.said.get("tokens_per_step", 0.0),
        }


class Step(NamedTuple):
    """A step as TRL lays it: its tokens with padding, those of answers, and what the machine does.

    `rate` is of matrix products of the model's sizes, operations a CPU second.
    """

    tokens: float
    answers: float
    rate: float

    def products(self, tokens: float, looks: int, chosen: argparse.Namespace) -> float:
        """CPU seconds of the matrix products alone: of the layers on these tokens, of the head on
        answers. Learning is three looks (Kaplan et al. 2020)."""
        hidden, layers, _, vocabulary = MODELS[chosen.model]
        between = int(hidden * 8 / 3 / 32 + 0.5) * 32  # as make_tiny.py has it
        each = layers * (4 * hidden**2 + 3 * hidden * between)
        head = hidden * vocabulary if chosen.loop != "reward" else 0
        return looks * 2 * (each * tokens + head * self.answers) / self.rate


def main() -> None:
    """Measure in turns and print a table."""
    chosen = arguments()
    if chosen.loop == "ppo" and chosen.rows != "even":
        raise SystemExit("TRL's script makes its own prompts for PPO; leave out --rows")
    with tempfile.TemporaryDirectory(prefix="alpacafarm-") as name:
        folder = Path(name)
        model = made(folder, chosen)
        words = Tokenizer.from_file(str(model / "tokenizer.json"))
        lines = [title(chosen, peer_version(chosen))]
        if chosen.same and chosen.loop != "ppo":
            lines += ["", agreement(chosen, folder, model, words)]
        data = written(folder / "rows.jsonl", rows(words, chosen, chosen.steps * chosen.batch))
        runs: dict[str, list[Run]] = {side: [] for side in sides(chosen)}
        products: list[float] = []
        for _ in range(chosen.rounds):
            products += [rate(chosen, model)] * chosen.account
            for side, held in runs.items():
                held.append(run(side, chosen, model, data))
        step = Step(*laid(words, data, chosen), statistics.median(products or [0.0]))
        lines += ["", *table(runs, step, chosen), "", *ratios(runs), *learned(runs)]
    print(text := "\n".join(lines) + "\n")
    if chosen.out:
        with chosen.out.open("a") as out:
            out.write(
                ("" if out.tell() else "<!-- made by benchmarks/trl.py -->\n\n") + text + "\n"
            )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("loop", choices=("sft", "reward", "dpo", "ppo"))
    parser.add_argument("--peers", type=Path, required=True, help="folder of TRL's scripts")
    parser.add_argument("--python", type=Path, required=True, help="Python that has TRL")
    parser.add_argument("--with-ppo", type=Path, help="TRL that has PPO; PEER/trl112 if left out")
    parser.add_argument("--model", choices=list(MODELS), default="tiny")
    parser.add_argument("--rows", choices=("even", "alpaca"), default="even")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3, help="steps left out of the rate")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=128, help="tokens of a row, `--rows even`")
    parser.add_argument("--rate", type=float, default=2e-5, help="learning rate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--same", type=int, default=4, help="steps on one batch; 0 leaves it out")
    parser.add_argument("--account", action="store_true", help="without this project's short cuts")
    parser.add_argument("--out", type=Path, help="append to this file too")
    return parser.parse_args()


def sides(chosen: argparse.Namespace) -> list[str]:
    """Who is measured, in the order of a round."""
    once = [f"{THEIRS}, reference once"] * (chosen.loop == "dpo")
    bare = [f"{HERE}, transformers' backbone"]
    bare += [f"{HERE}, and no shared prompts"] * (chosen.loop in ("reward", "dpo"))
    return [HERE, THEIRS, *once, *(bare if chosen.account else [])]


def run(side: str, chosen: argparse.Namespace, model: Path, data: Path, passes: int = 1) -> Run:
    """One side in a process of its own, over all rows so many times."""
    count = sum(1 for _ in data.open()) // chosen.batch * passes
    words = ["--model", str(model), "--steps", str(count), "--batch", str(chosen.batch)]
    words += ["--seq", str(longest(chosen)), "--threads", str(chosen.threads)]
    words += ["--warmup", str(min(chosen.warmup, count - 1)), "--lr", str(chosen.rate)]
    if side.startswith(HERE):
        without = {"backbone": ["lean"], "prompts": ["lean", "sharing"]}.get(side.split()[-1], [])
        words += ["--data", str(data), "--passes", str(passes), "--without", *without]
        words += ["--bare"] * (chosen.rows == "even")
        return measured([sys.executable, "-m", "benchmarks.trl_ours", chosen.loop, *words], chosen)
    words += [] if chosen.loop == "ppo" else ["--data", str(data)]
    words += ["--precompute-ref", "1"] if side.endswith("once") else []
    script = chosen.peers / f"trl_{chosen.loop}.py"
    return measured([str(chosen.python), str(script), *words], chosen)


def rate(chosen: argparse.Namespace, model: Path) -> float:
    """Operations a CPU second, of matrix products of the model's sizes."""
    words = [sys.executable, "-m", "benchmarks.trl_ours", "rate", "--model", str(model)]
    said = measured([*words, "--threads", str(chosen.threads)], chosen).said
    return float(said["operations_per_cpu_s"])


def measured(words: Sequence[str], chosen: argparse.Namespace) -> Run:
    """What a process printed on its last line, and its peak; leaves with its complaint."""
    threads = {"OMP_NUM_THREADS": str(chosen.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = os.environ | threads | offline
    if "trl_ppo.py" in words[1]:
        older = chosen.with_ppo or chosen.python.parent.parent / "trl112"
        environment["PYTHONPATH"] = str(older)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as complaint:
        child = subprocess.Popen(words, stdout=out, stderr=complaint, env=environment)
        # Not getrusage: that of the children is the largest of all of them.
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        complaint.seek(0)
        if child.returncode:
            raise SystemExit(f"{' '.join(words)}\n{complaint.read()[-3000:]}")
        return Run(json.loads(out.read().strip().splitlines()[-1]), usage.ru_maxrss / 1024)


def made(folder: Path, chosen: argparse.Namespace) -> Path:
    """The model that both start from; for the reward model with a head, the same for both."""
    model = folder / "model"
    sizes = map(str, MODELS[chosen.model])
    maker = [sys.executable, str(chosen.peers / "make_tiny.py"), str(model), *sizes]
    subprocess.run(maker, check=True, capture_output=True)
    if chosen.loop != "reward":
        return model
    words = [sys.executable, "-m", "benchmarks.trl_ours", "head", "--model", str(model)]
    subprocess.run([*words, "--data", str(folder / "scorer")], check=True, capture_output=True)
    return folder / "scorer"


def agreement(chosen: argparse.Namespace, folder: Path, model: Path, words: Tokenizer) -> str:
    """How far the losses of both are apart, learning from one batch over and over."""
    data = written(folder / "batch.jsonl", rows(words, chosen, chosen.batch))
    ours, theirs = (run(s, chosen, model, data, chosen.same).said["loss"] for s in (HERE, THEIRS))
    gap = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
    both = "; ".join(f"{o:.5f} and {t:.5f}" for o, t in zip(ours, theirs, strict=True))
    why = " TRL reads a reward at the end token, this project before it." * (
        chosen.loop == "reward"
    )
    said = f"Losses on one batch {chosen.same} times over, here and there: {both}"
    return f"{said} ({gap:.0e} apart).{why}"


def title(chosen: argparse.Namespace, versions: str) -> str:
    """What is compared."""
    size = f"exactly {chosen.seq} tokens" if chosen.rows == "even" else "Alpaca's template"
    return (
        f"### {chosen.loop}, {chosen.model} model, {size}\n\n{versions}; batch {chosen.batch}, "
        f"float32, {chosen.threads} threads, {chosen.steps} steps without the first "
        f"{chosen.warmup}, medians of {chosen.rounds} rounds in turns."
    )


def peer_version(chosen: argparse.Namespace) -> str:
    """Versions on both sides."""
    of = "import importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in %r), sep=', ')"
    ours, theirs = ("torch", "transformers"), ("trl", "torch", "transformers")
    here, there = (
        subprocess.run(
            [str(python), "-c", of % (names,)], check=True, capture_output=True, text=True
        )
        for python, names in ((sys.executable, ours), (chosen.python, theirs))
    )
    note = " (PPO: trl 1.12.0)" if chosen.loop == "ppo" else ""
    return f"Here {here.stdout.strip()}; the peer {there.stdout.strip()}{note}"


def middle(held: Sequence[Run]) -> dict[str, float]:
    """Each figure's median over the rounds."""
    each = [run.figures() for run in held]
    return {name: statistics.median(one[name] for one in each) for name in FIGURES}


def table(runs: dict[str, list[Run]], step: Step, chosen: argparse.Namespace) -> list[str]:
    """A line a side; of a reference, its CPU seconds are shared out among the steps."""
    names = ["side", "steps/s", "CPU s a step", "tokens a step", "peak MiB"]
    names[3:3] = ["with the reference"] * (chosen.loop == "dpo")
    with_products = chosen.account and chosen.loop != "ppo"
    names += ["matrix products alone, CPU s"] * with_products
    lines = [f"| {' | '.join(names)} |", "|---" + "|---:" * (len(names) - 1) + "|"]
    for side, held in runs.items():
        seen = middle(held)
        at_every_step = chosen.loop == "dpo" and side == THEIRS
        tokens = seen["tokens"] if side.startswith(HERE) else step.tokens
        cells = [side, f"{seen['rate']:.3f}", "" if at_every_step else f"{seen['cpu']:.3f}"]
        if chosen.loop == "dpo":
            whole = seen["cpu"] + seen["reference"]
            cells.append("" if side.endswith("once") else f"{whole:.3f}")
        cells += [f"{tokens:.0f}", f"{seen['peak']:.0f}"]
        if with_products:
            looks = 4 if at_every_step else 3
            cells.append(f"{step.products(tokens, looks, chosen):.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def ratios(runs: dict[str, list[Run]]) -> list[str]:
    """How many times as fast, and what memory, against each way of TRL's.

    Where TRL's steps have the reference in them, ours get their share of it.
    """
    ours, lines = middle(runs[HERE]), list[str]()
    for side in (side for side in runs if side.startswith(THEIRS)):
        seen, alone = middle(runs[side]), side.endswith("once")
        wall = 1 / ours["rate"] + (0 if alone else ours["reference_wall"])
        cpu = ours["cpu"] + (0 if alone else ours["reference"])
        lines.append(
            f"- {side}: {1 / seen['rate'] / wall:.2f} times as fast by the clock, "
            f"{seen['cpu'] / cpu:.2f} by CPU{', reference included' * (cpu > ours['cpu'])}; "
            f"{ours['peak'] / seen['peak']:.2f} of its peak memory "
            f"({ours['training_peak']:.0f} MiB before the last checkpoint is written)."
        )
    return lines


def learned(runs: dict[str, list[Run]]) -> list[str]:
    """Losses along the way, so that one sees that all of them learn."""
    lines = []
    for side, held in runs.items():
        said = held[-1].said
        loss, last = said["loss"], max(1, len(said["loss"]) // 4)
        some = ", ".join(f"{loss[at]:.4f}" for at in range(0, len(loss), last))
        more = "".join(f"; {k} {said[k]}" for k in ("reward", "kl", "last") if said.get(k))
        lines.append(
            f"- {side}, loss: {some}, last quarter {statistics.mean(loss[-last:]):.4f}{more}"
        )
    return lines


if __name__ == "__main__":
    main()
