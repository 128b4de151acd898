"""One training loop of this project on a model folder and rows of JSON, for `benchmarks.trl`.

    python -m benchmarks.trl_ours sft|reward|dpo|ppo --model FOLDER --data ROWS.jsonl [...]

Prints one line of JSON: steps a second and CPU seconds a step (medians after a warm-up, all that
happens between two steps included), the loss of every step, tokens that went through the backbone,
the peak of the resident memory while it trained. `head` writes the model with a reward model's head
into the folder `--data`, and `rate` says how fast the machine multiplies matrices of its sizes.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import torch

from alpacafarm_core import prompts, reward
from alpacafarm_core.artifacts import Demonstrations, Instructions, Preferences
from alpacafarm_core.machine import Machine
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.proximal import KLPenalty, ProximalObjective, Shaping
from alpacafarm_core.settings import Fitting, Sampling, Training
from alpacafarm_core.train import forward, lean, models, offline, online
from alpacafarm_core.train.logbook import Logbook
from benchmarks.trl_rows import PASSES


class Clock:
    """Wall and CPU seconds and tokens at the end of every step; of the running process only."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float, int]] = []
        self.tokens, self.peak = 0, 0.0
        self.reference = [0.0, 0.0]

    def watch(self) -> None:
        """Have the loops tell this clock."""
        Logbook.note = self._marked(Logbook.note)  # type: ignore[method-assign]
        offline.reference_logprobs = self._timed(offline.reference_logprobs)
        forward._hidden_at = self._counted(forward._hidden_at)

    def figures(self, warmup: int) -> dict[str, float]:
        """Medians over the steps after the warm-up, from the end of one to the end of the next."""
        late = self.marks[max(1, warmup) :]
        early = self.marks[max(1, warmup) - 1 :]
        wall, cpu, tokens = (
            [after[c] - before[c] for before, after in zip(early, late, strict=False)]
            for c in range(3)
        )
        return {
            "steps_per_s": 1 / statistics.median(wall),
            "best_steps_per_s": 1 / min(wall),
            "cpu_s_per_step": statistics.median(cpu),
            "reference_s_per_step": self.reference[0] / len(self.marks),
            "reference_cpu_s_per_step": self.reference[1] / len(self.marks),
            "tokens_per_step": statistics.mean(tokens),
            "training_peak_mib": self.peak,
        }

    def _marked(self, note: Callable[..., None]) -> Callable[..., None]:
        def marked(*given: Any) -> None:
            note(*given)
            self.marks.append((time.perf_counter(), time.process_time(), self.tokens))
            self.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        return marked

    def _timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            began = time.perf_counter(), time.process_time()
            found = work(*given)
            self.reference = [time.perf_counter() - began[0], time.process_time() - began[1]]
            return found

        return timed

    def _counted(self, look: Callable[..., Any]) -> Callable[..., Any]:
        def counted(model: Any, batch: Any, rows: Any, at: Any) -> Any:
            self.tokens += computed(model, batch)
            return look(model, batch, rows, at)

        return counted


def computed(model: Any, batch: Any) -> int:
    """Tokens that go through the layers: with the own backbone no padding, a beginning once."""
    if not lean.suits(model):
        return int(batch.ids.numel())
    ends = torch.zeros(len(batch.ids), dtype=torch.long)
    ends = ends.scatter_reduce(0, batch.rows, batch.last, "amax") + 1
    beginning = lean.common(batch)
    return int(ends.sum()) - beginning * (len(ends) - 1)


def main() -> None:
    """Train once and say how it went."""
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    if chosen.loop in ("head", "rate"):
        return head(chosen) if chosen.loop == "head" else rate(chosen)
    clock = Clock()
    strip(chosen)
    clock.watch()
    with tempfile.TemporaryDirectory() as folder:
        steps = LOOPS[chosen.loop](chosen, Path(folder, "out"))
    loss = "policy_loss" if chosen.loop == "ppo" else "loss"
    said: dict[str, Any] = {"loss": [round(step[loss], 5) for step in steps]}
    for name in ("reward", "kl"):
        if name in steps[-1]:
            said[name] = [round(steps[at][name], 4) for at in (0, -1)]
    print(json.dumps(clock.figures(chosen.warmup) | said))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loop", choices=[*LOOPS, "head", "rate"])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--without", nargs="*", choices=("lean", "sharing"), default=[])
    parser.add_argument("--bare", action="store_true", help="no template around an instruction")
    return parser.parse_args()


def strip(chosen: argparse.Namespace) -> None:
    """Take away what this run is to do without; of the running process only."""
    if "lean" in chosen.without:
        lean.suits = lambda _: False
    if "sharing" in chosen.without:
        models.SHARING = ()
    if chosen.bare:
        prompts.alpaca = lambda: {"prompt_noinputs": "{instruction}"}


def machine(chosen: argparse.Namespace) -> Machine:
    """The whole batch at once, in float32, no checkpoint before the last step."""
    return Machine(
        device="cpu",
        precision="float32",
        engine="transformers",
        fit_check="no",
        micro_batch=chosen.batch,
        threads=chosen.threads,
        checkpoint_seconds=1e9,
    )


def training(chosen: argparse.Namespace) -> Training:
    """AdamW at a constant rate, as the peer's scripts have it."""
    return Training(
        learning_rate=chosen.lr,
        epochs=chosen.passes,
        batch=chosen.batch,
        schedule="constant",
        warmup=0,
        max_length=chosen.seq,
    )


def sft(chosen: argparse.Namespace, out: Path) -> list[dict[str, float]]:
    """Demonstrations."""
    made = rows(chosen.data, Demonstrations, output="output")
    start = (chosen.model, None)
    return steps(offline.train(start, out, made, SFT(training=training(chosen)), machine(chosen)))


def dpo(chosen: argparse.Namespace, out: Path) -> list[dict[str, float]]:
    """Pairs; the reference is the start."""
    objective = DPO(beta=0.1, training=training(chosen))
    start = (chosen.model, None)
    return steps(offline.train(start, out, pairs(chosen.data), objective, machine(chosen)))


def fitted(chosen: argparse.Namespace, out: Path) -> list[dict[str, float]]:
    """Pairs, none of them held out."""
    fitting = Fitting(training=training(chosen), held_out=0, above_length=False)
    return steps(reward.fit(chosen.model, out, pairs(chosen.data), fitting, machine(chosen)))


def ppo(chosen: argparse.Namespace, out: Path) -> list[dict[str, float]]:
    """Rollouts of half of `--seq` tokens, scored by a random head; a batch is a minibatch."""
    objective = ProximalObjective(
        steps=chosen.steps,
        rollouts=chosen.batch,
        minibatch=chosen.batch,
        inner_epochs=PASSES,
        kl=KLPenalty(coef=0.05, limit=1e9),
        shaping=Shaping(whiten=False, missing_eos=None),
        sampling=Sampling(temperature=1.0, max_tokens=chosen.seq // 2),
        training=training(chosen),
    )
    made = rows(chosen.data, Instructions)
    start = (chosen.model, chosen.model, None)
    return steps(online.roll_out(start, out, made, objective, machine(chosen)))


def head(chosen: argparse.Namespace) -> None:
    """The model with a new head of one number, from a fixed seed."""
    torch.manual_seed(0)
    models.save(models.load_scorer(chosen.model, Machine(device="cpu")), chosen.data)


def rate(chosen: argparse.Namespace) -> None:
    """Operations a CPU second of a layer's largest matrix product, forward and backward."""
    said = json.loads((chosen.model / "config.json").read_text())
    states = torch.randn(2048, said["hidden_size"])
    weights = torch.randn(said["hidden_size"], said["intermediate_size"])
    seconds = []
    for _ in range(20):
        began = time.process_time()
        wide = states @ weights
        _ = (wide @ weights.t(), states.t() @ wide)
        seconds.append(time.process_time() - began)
    operations = 3 * 2 * states.numel() * weights.shape[1]
    print(json.dumps({"operations_per_cpu_s": operations / statistics.median(seconds)}))


def pairs(data: Path) -> pl.DataFrame:
    """Preferences, the first output always the better one."""
    return rows(
        data, Preferences, output_1="chosen", output_2="rejected", preference=1.0, status="ok"
    )


def rows(data: Path, kind: Any, **filled: str | float) -> pl.DataFrame:
    """A table whose columns are taken from the file's, or filled with a value."""
    made = []
    for line in data.open():
        row = json.loads(line)
        blank = {name: [] if name.endswith("_ids") else None for name in kind.columns}
        given = {name: row.get(value, value) for name, value in filled.items()}
        made.append(blank | {"instruction": row["instruction"], "input": ""} | given)
    return pl.DataFrame(made, schema=kind.columns)


def steps(result: dict[str, Any]) -> list[dict[str, float]]:
    """The figures of every step."""
    history: list[dict[str, float]] = result["steps"]
    return history


LOOPS = {"sft": sft, "reward": fitted, "dpo": dpo, "ppo": ppo}

if __name__ == "__main__":
    main()
