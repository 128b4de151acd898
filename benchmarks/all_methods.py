"""Every method from the same start at an equal budget, over several seeds.

    python -m benchmarks.all_methods [--seeds 3] [--methods a,b] [--scale small]
                                     [--out docs/leaderboard.md]

Prints the leaderboard with paired errors over prompts and seeds, what each method used beyond the
start it shares with all (optimiser steps, answers drawn and scored), and the tables that several
methods stand on with how often each was made; `--out` writes that below a mark, and the rows as CSV
beside it. Stages done before come from the store, so a run that was stopped goes on.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import polars as pl

from alpacafarm_core.artifacts import Leaderboard
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.lineage import ancestry, receipt
from alpacafarm_core.methods import METHODS
from alpacafarm_core.settings import Scale
from alpacafarm_core.setup import Setup
from alpacafarm_core.store import Manifest
from benchmarks.world_effects import markdown
from flows.racing import race
from tasks.stage import store
from tasks.train import METRICS

SHARED = ("generate", "annotate", "fit_reward", "score", "compare", "rank", "look")
FIRST, ROLLED = "sft", "roll_out"
MARK = "<!-- made by benchmarks/all_methods.py -->"


def main() -> None:
    """Run, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default="")
    parser.add_argument("--scale", choices=get_args(Scale), default="small")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    names = chosen.methods.split(",") if chosen.methods else sorted(METHODS)
    names.sort(key=lambda name: name != FIRST)
    setups = [Setup(scale=chosen.scale, seed=seed) for seed in range(chosen.seeds)]
    raced = race(names, setups)
    seeds = "seed 0" if chosen.seeds == 1 else f"seeds 0 to {chosen.seeds - 1}"
    text = page(raced, f"{seeds}, scale {chosen.scale}")
    print(text)
    if chosen.out:
        written = chosen.out.read_text() if chosen.out.is_file() else ""
        chosen.out.write_text(f"{written.partition(MARK)[0]}{MARK}\n\n{text}\n")
        rows = pl.DataFrame(raced["leaderboard"]).with_columns(seeds=pl.lit(chosen.seeds))
        rows.write_csv(chosen.out.with_suffix(".csv"), float_precision=4)


def page(raced: dict[str, Any], title: str) -> str:
    """The three tables as Markdown."""
    boards = [Leaderboard(key=key) for key in raced["keys"]]
    parts = {
        f"### Leaderboard: {title}": [_row(each) for each in raced["leaderboard"]],
        "### What each method used beyond the common start, first seed": list(budgets(boards[0])),
        "### Tables that several stages stand on, first seed": list(shared(boards[0])),
    }
    return "\n\n".join(f"{title}\n\n{markdown(rows)}" for title, rows in parts.items() if rows)


def budgets(board: Leaderboard) -> Iterator[dict[str, object]]:
    """Of each model, what its policy took beyond SFT and the labelled pairs all may use."""
    made = {model: _behind(judged) for model, judged in _evaluations(board).items()}
    common = set(made.get(FIRST, {}))
    for held in made.values():
        for each in held.values():
            if each.recipe.stage == "annotate":
                common |= {other.artifact.folder for other in ancestry(store(), each.artifact)}
    for model, held in made.items():
        own = [each for folder, each in held.items() if folder not in common]
        yield {
            "model": model,
            "optimiser steps": sum(map(_steps, own)),
            "answers drawn": _rows(own, "generate") + _sampled(own),
            "answers scored": _rows(own, "score") + _sampled(own),
            "stages": len(own),
            "seconds": round(sum(each.seconds for each in own)),
        }


def shared(board: Leaderboard) -> Iterator[dict[str, object]]:
    """Artifacts that at least two stages were made from, and how often each was made."""
    held = ancestry(store(), board)
    users = Counter(folder for made in held for folder in _inputs(made))
    runs = Counter(event["artifact"] for event in store().journal() if event.get("ran"))
    for made in held:
        folder = made.artifact.folder
        if made.recipe.stage in SHARED and users[folder] > 1:
            yield {
                "artifact": folder,
                "stage": made.recipe.stage,
                "rows": made.rows if made.rows is not None else "",
                "used by": users[folder],
                "times made": runs[folder],
            }


def _evaluations(board: Leaderboard) -> dict[str, Evaluation]:
    settings = store().manifest(board).recipe.settings["evaluations"]
    return {model: Evaluation.model_validate(said) for model, said in settings.items()}


def _behind(judged: Evaluation) -> dict[str, Manifest]:
    """What the policy came from that answered, by folder."""
    (answers,) = store().manifest(judged.preferences).recipe.inputs["candidates"]
    inputs = store().manifest(receipt(answers)).recipe.inputs["policy"]
    held = [each for folder in inputs for each in ancestry(store(), receipt(folder))]
    return {each.artifact.folder: each for each in held}


def _inputs(made: Manifest) -> set[str]:
    return {folder for folders in made.recipe.inputs.values() for folder in folders}


def gradient_steps(objective: Mapping[str, Any]) -> int:
    """Optimiser steps of a policy that learns from its own samples, by its settings."""
    if "gradient_steps" in objective:
        return int(objective["steps"] * objective["gradient_steps"])
    minibatches = -(-objective["rollouts"] // objective["minibatch"])
    return int(objective["steps"] * objective["inner_epochs"] * minibatches)


def own_samples(objective: Mapping[str, Any]) -> int:
    """Answers that such a policy gave, each of which was scored."""
    return int(objective["steps"] * objective["rollouts"])


def _sampled(made: Sequence[Manifest]) -> int:
    rolled = [each.recipe for each in made if each.recipe.stage == ROLLED]
    return sum(own_samples(recipe.settings["objective"]) for recipe in rolled)


def _rows(made: Sequence[Manifest], stage: str) -> int:
    return sum(each.rows or 0 for each in made if each.recipe.stage == stage)


def _steps(made: Manifest) -> int:
    """Optimiser steps of a policy or a reward model: one for each line of its figures, or several
    where a line is a round of sampling and learning.
    """
    if made.recipe.stage == ROLLED:
        return gradient_steps(made.recipe.settings["objective"])
    figures = store().path(made.artifact) / METRICS
    return pl.scan_parquet(figures).select(pl.len()).collect().item() if figures.is_file() else 0


def _row(line: dict[str, Any]) -> dict[str, object]:
    return {
        "model": line["model"],
        "win rate %": _pm(line["win_rate"], line["standard_error"], 1),
        "vs SFT": _pm(line["win_rate_minus_sft"], line["paired_error"], 1),
        "utility": f"{line['utility']:.3f}",
        "utility vs SFT": _pm(line["utility_minus_sft"], line["utility_paired_error"], 3),
        "chars": line["avg_length"],
        "$ a seed": f"{line['price']:.2f}",
    }


def _pm(value: float | None, error: float | None, digits: int) -> str:
    return "" if value is None or error is None else f"{value:.{digits}f} ± {error:.{digits}f}"


if __name__ == "__main__":
    main()
