"""A million preference rows on one machine: seconds, and memory beyond the imports and the model.

    python -m benchmarks.million_rows [--rows 1000000] [--shuffled]

Answers are sentences of the world's writers, about 60 tokens under the shipped base model's
tokenizer; half of the demonstrations have their ids. Each part runs in a process of its own: the
stage `prefer`; the batches of a reward model (read, split, one epoch of batches, no training); the
stage `tally`, of two models. Memory is the peak of the resident set less what the process held,
imports and model, before it began. Leaves with status 1 above 1 GiB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import polars as pl

from alpacafarm_core.artifacts import Candidates, Demonstrations, Preferences
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.sources import WORLD_BASE
from alpacafarm_core.store import Made

LIMIT = 1024.0  # MiB
PART = 50_000
CHOSEN, REJECTED = Demonstrations(key="c" * 16), Candidates(key="d" * 16)


def main() -> None:
    """Make the rows, run every part in its own process and judge the peaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shuffled", action="store_true", help="rejected rows in another order")
    parser.add_argument("--part", choices=list(PARTS), help="run one part here")
    chosen = parser.parse_args()
    if chosen.part:
        return PARTS[chosen.part](chosen)
    with tempfile.TemporaryDirectory(prefix="alpacafarm-") as folder:
        words = [sys.executable, "-m", "benchmarks.million_rows", *sys.argv[1:], "--part"]
        surroundings = os.environ | {"ALPACAFARM_STORE": folder, "ALPACAFARM_DEVICE": "cpu"}
        failed = [p for p in PARTS if subprocess.run([*words, p], env=surroundings).returncode]
    sys.exit(1 if failed else 0)


def made(chosen: argparse.Namespace) -> None:
    """Demonstrations and candidates for them, in the store."""
    from tasks.stage import store

    order = list(range(chosen.rows))
    for table, seed in ((CHOSEN, 0), (REJECTED, 1)):
        recipe = Recipe.of("million_rows", 1, {"rows": chosen.rows})
        parts = (part.select(*table.columns) for part in _answers(order, seed))
        store().write(table, Made(parts), recipe, time.time())
        if chosen.shuffled:
            Random(0).shuffle(order)


def preferred(chosen: argparse.Namespace) -> None:
    """The stage that pairs them."""
    from tasks import prefer

    _measured("prefer", lambda: prefer(CHOSEN, REJECTED))


def batched(chosen: argparse.Namespace) -> None:
    """All that fitting a reward model does to its data, and nothing that learns."""
    from alpacafarm_core.machine import Machine
    from alpacafarm_core.settings import Fitting
    from alpacafarm_core.train.batches import Room, batch_of, plan
    from alpacafarm_core.train.judged import split_of
    from alpacafarm_core.train.models import load_scorer, sharing
    from tasks.stage import store

    machine, fitting = Machine.here(), Fitting.at("small")
    scorer = load_scorer(WORLD_BASE, machine)
    scorer.tokenizer.model_max_length = fitting.training.max_length

    def run() -> None:
        split = split_of(store().rows(_preferences()), scorer, fitting)
        once = fitting.training.replace(epochs=1)
        for step in plan(split.learned, once, Room.of(machine)):
            for micro in step:
                batch_of([split.learned[row] for row in micro], sharing(scorer.model))

    _measured("reward model batches", run)


def tallied(chosen: argparse.Namespace) -> None:
    """The stage that counts, of two models on the same million prompts."""
    from tasks import tally

    judged = Evaluation(preferences=_preferences())
    _measured("tally", lambda: tally({"sft": judged, "dpo": judged}))


def _preferences() -> Preferences:
    from tasks import prefer

    return prefer.receipt(CHOSEN, REJECTED)


def _measured(name: str, run: Callable[[], object]) -> None:
    """Print seconds and the peak beyond what the process holds now; leave above the limit."""
    before, started = _memory("VmRSS"), time.perf_counter()
    run()
    beyond, seconds = _memory("VmHWM") - before, time.perf_counter() - started
    print(f"{name:22}{seconds:8.1f} s{beyond:8.0f} MiB beyond {before:.0f} MiB", flush=True)
    if beyond > LIMIT:
        sys.exit(f"{name}: more than {LIMIT:.0f} MiB")


def _memory(name: str) -> float:
    """A line of the process's status, in MiB."""
    status = Path("/proc/self/status").read_text()
    return float(status.partition(f"{name}:")[2].split()[0]) / 1024


def _answers(order: Sequence[int], seed: int) -> Iterator[pl.DataFrame]:
    """An answer of three sentences to the prompt of each number; every other one without ids."""
    from alpacafarm_core.train.models import load_tokenizer
    from alpacafarm_core.train.tokens import tokenizer_digest
    from benchmarks.judge_pool import drawn_pairs

    drawn, tokenizer = drawn_pairs(2000, seed=0), load_tokenizer(WORLD_BASE)
    texts = drawn["output_1"] + "\n"
    ids = pl.Series(tokenizer(texts.to_list(), add_special_tokens=False).input_ids)
    held = pl.DataFrame({"text": texts, "ids": ids.cast(pl.List(pl.Int32))})
    digest, random = tokenizer_digest(tokenizer), Random(seed)
    for start in range(0, len(order), PART):
        numbers = pl.Series("number", order[start : start + PART])
        parts = [held[random.choices(range(held.height), k=len(numbers))] for _ in range(3)]
        yield _filled(drawn[(numbers % drawn.height).to_list()], numbers, parts, digest)


def _filled(
    asked: pl.DataFrame, numbers: pl.Series, parts: Sequence[pl.DataFrame], digest: str
) -> pl.DataFrame:
    """Rows with the columns of both tables."""
    is_sampled = numbers % 2 == 0
    ids = pl.concat_list(*(part["ids"] for part in parts))
    return asked.select(
        instruction=pl.col("instruction") + " (" + numbers.cast(pl.String) + ")",
        input="input",
        dataset="dataset",
        output=pl.concat_str(*(part["text"] for part in parts)),
        output_ids=pl.when(is_sampled).then(ids).otherwise(pl.lit([], dtype=pl.List(pl.Int32))),
        tokenizer=pl.when(is_sampled).then(pl.lit(digest)).otherwise(pl.lit("")),
        finish_reason=pl.lit("stop"),
        generator=pl.lit("policy"),
        sample_index=pl.lit(0),
        temperature=pl.lit(1.0),
        top_p=pl.lit(1.0),
        max_tokens=pl.lit(300),
        seed=pl.lit(0),
    )


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "make": made,
    "prefer": preferred,
    "batches": batched,
    "tally": tallied,
}

if __name__ == "__main__":
    main()
