"""How fast the client judges: against a judge that answers at once, and one that takes its time.

    python -m benchmarks.judging [--pairs 805] [--concurrency 16] [--peer PYTHON]

Every row is one call to a server on loopback, with its answer in the ledger on disk; the rows, the
prompt and the concurrency are the same for all. `--peer` is a Python that has alpaca-eval 0.6.6:

    python -m venv PEER && PEER/bin/pip install alpaca-eval==0.6.6 'setuptools<80'

Rates are annotations a second, CPU is milliseconds of the asking process a row, both after imports
and 16 rows to be warm; the server has a process of its own.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import polars as pl

from alpacafarm_core.annotate import judge
from alpacafarm_core.client import openai_ask
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.pacing import Limits
from alpacafarm_core.panel import Annotator, Panel
from benchmarks.judge_pool import drawn_pairs
from benchmarks.served import served

WARM = 16
AT_ONCE = "world/always-first"
PROMPT = """<|im_start|>system
You say which of two outputs follows the instruction better.<|im_end|>
<|im_start|>user
### Instruction:
{instruction}

### Output (a):
{output_1}

### Output (b):
{output_2}

## Verdict: Output (a) or Output (b)?<|im_end|>
"""
CONFIG = f"""
judge:
  prompt_template: "judge/prompt.txt"
  fn_completions: "openai_completions"
  completions_kwargs: {{model_name: "{AT_ONCE}", max_tokens: 50, temperature: 0}}
  completion_parser_kwargs:
    outputs_to_match: {{1: '(?:^|\\n) ?Output \\(a\\)', 2: '(?:^|\\n) ?Output \\(b\\)'}}
  batch_size: 1
"""


class Figures(NamedTuple):
    """Rows a second, CPU milliseconds a row, rows with a preference."""

    rate: float
    cpu: float
    judged: int


def main() -> None:
    """Measure, print, and say what falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=805)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds an answer takes")
    parser.add_argument("--peer", type=Path, help="Python that has alpaca-eval 0.6.6")
    chosen = parser.parse_args()
    pairs = drawn_pairs((chosen.pairs + WARM) * 5 // 4, seed=0).head(chosen.pairs + WARM)
    with served() as url:
        ours = [("here", measured(url, pairs, chosen.concurrency))]
        if chosen.peer:
            ours.append(("alpaca-eval", of_peer(url, pairs, chosen)))
    with served("--latency", str(chosen.latency)) as url:
        slow = measured(url, pairs, chosen.concurrency)
    for name, figures in ours:
        print(
            f"{name:12} {figures.rate:8.1f}/s  {figures.cpu:7.2f} ms CPU  {figures.judged} judged"
        )
    if chosen.peer:
        print(f"{ours[0][1].rate / ours[1][1].rate:.1f} times as fast, at once")
    most = chosen.concurrency / chosen.latency
    print(
        f"{chosen.latency} s each, {chosen.concurrency} at a time: {slow.rate:.1f}/s of {most:.1f}"
    )
    print(f"{100 * slow.rate / most:.1f} % of the limit, {slow.cpu:.2f} ms CPU")


def measured(url: str, pairs: pl.DataFrame, concurrency: int) -> Figures:
    """What this project does with the rows after the first few."""
    limits = Limits(concurrency=concurrency)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Ledger(Path(folder, "ledger.sqlite"))) as ledger,
        closing(openai_ask(url, limits)) as ask,
    ):
        judge(pairs[:WARM], panel_at(url), ask, ledger)
        wall, cpu = time.perf_counter(), time.process_time()
        judged = judge(pairs[WARM:], panel_at(url), ask, ledger).preferences
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    counted = int(judged["preference"].is_in([1.0, 2.0]).sum())
    return Figures(judged.height / wall, 1000 * cpu / judged.height, counted)


def of_peer(url: str, pairs: pl.DataFrame, chosen: argparse.Namespace) -> Figures:
    """What alpaca-eval does with the same rows, in its own environment."""
    keys = {"OPENAI_API_BASE": url, "OPENAI_API_KEY": "EMPTY", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "judge")
        folder.mkdir()
        (folder / "configs.yaml").write_text(CONFIG)
        (folder / "prompt.txt").write_text(PROMPT)
        rows = pairs.select("instruction", "output_1", "output_2").to_dicts()
        (folder / "pairs.json").write_text(json.dumps(rows))
        script = str(Path(__file__).with_name("judging_peer.py"))
        words = [str(chosen.peer), script, str(folder), str(folder / "pairs.json")]
        done = subprocess.run(
            [*words, str(chosen.concurrency)],
            env=os.environ | keys,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def panel_at(url: str) -> Panel:
    """One judge, one row a call."""
    judge = Annotator(
        name="judge",
        model=AT_ONCE,
        endpoint=url,
        prompt=PROMPT,
        prompt_with_input=PROMPT.replace("{instruction}", "{instruction}\n\n{input}"),
        temperature=0.0,
        max_tokens=50,
    )
    return Panel(name="bench", annotators=(judge,))


if __name__ == "__main__":
    main()
