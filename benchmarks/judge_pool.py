"""The judges of the built-in world on their own card, beside the figures of the paper.

    python -m benchmarks.judge_pool [--pairs 3000] [--out docs/judge-pool-table.md]

Pairs are two answers of a writer to one instruction, at about the skill of the demonstrator. Every
panel labels each pair with four seeds; gold is four people a pair. `truth` is agreement with true
utility, `asked` the share of rows for which a judge was asked at all.
"""

import argparse
import tempfile
from pathlib import Path

import polars as pl

from alpacafarm_core.annotate import annotate, pair
from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.card import card
from alpacafarm_core.endpoints import ask_for
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.panel import load
from alpacafarm_core.world.instructions import instructions
from alpacafarm_core.world.writers import write
from benchmarks.world_effects import markdown

SKILL, SEEDS = 0.6, 4
PANELS = (
    ("people", "people", 0.0),
    ("pool", "world", 0.0),
    ("pool, 25% flips", "world", 0.25),
    ("greedy", "world_greedy", 0.0),
)
PAPER = {
    "people": (66.0, 34.3, 0.64, 0.60),
    "pool": (65.0, None, 0.64, 0.63),
    "greedy": (66.4, 19.3, 0.60, 0.65),
}
"""Of arXiv 2305.14387 and its later tables: agreement %, variance %, longer, list."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    pairs = drawn_pairs(chosen.pairs, seed=0)
    gold, truth = labels(pairs, "people", 0.0), labels(pairs, "world_clean", 0.0)
    rows = [row(name, labels(pairs, panel, flip), gold, truth) for name, panel, flip in PANELS]
    text = f"{pairs.height} pairs, {SEEDS} labels each.\n\n{markdown(rows)}"
    print(text)
    if chosen.out:
        chosen.out.write_text(f"<!-- made by benchmarks/judge_pool.py -->\n\n{text}\n")


def row(
    name: str, found: pl.DataFrame, gold: pl.DataFrame, truth: pl.DataFrame
) -> dict[str, object]:
    """One line of the table; people agree with the usual label of the other people."""
    known = {measure: held.value for measure, held in card(found, gold).items()}
    right = card(found, truth)["agreement"].value
    agreement = known["agreement_leave_one_out" if name == "people" else "agreement"]
    paper = PAPER.get(name, (None,) * 4)
    figures = {
        "agreement %": (agreement, 1, paper[0]),
        "variance %": (known["variance"], 1, paper[1]),
        "longer": (known["probability_prefer_longer"], 2, paper[2]),
        "list": (known["probability_prefer_list"], 2, paper[3]),
        "bias %": (known["bias"], 1, None),
        "first shown": (known["probability_prefer_first_shown"], 2, None),
        "truth %": (right, 1, None),
        "asked %": (100 - 100 * found["raw_completion"].null_count() / found.height, 1, None),
    }
    return {"judges": name} | {
        title: _beside(value, digits, of_paper)
        for title, (value, digits, of_paper) in figures.items()
    }


def _beside(value: float | None, digits: int, of_paper: float | None) -> str:
    ours = "" if value is None else f"{value:.{digits}f}"
    return ours if of_paper is None else f"{ours} (paper {of_paper:g})"


def labels(pairs: pl.DataFrame, name: str, flip: float) -> pl.DataFrame:
    """Four labels of each pair by a panel, one a seed."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        panels = [load(name, flip, seed) for seed in range(SEEDS)]
        found = [annotate(pairs, panel, ask_for(panel.endpoint), ledger) for panel in panels]
        ledger.close()
    return pl.concat(found)


def drawn_pairs(size: int, seed: int) -> pl.DataFrame:
    """Pairs of different answers by one writer."""
    rows: list[tuple[object, ...]] = []
    for asked in instructions("preference", size, seed):
        texts = [write(asked["instruction"], asked["input"], SKILL, 2 * seed + k) for k in (0, 1)]
        if texts[0] == texts[1]:
            continue
        prompt = asked["instruction"], asked["input"], asked["dataset"]
        rows += [
            (*prompt, text, [], "", "stop", "writer", index, 1.0, 1.0, 300, seed)
            for index, text in enumerate(texts)
        ]
    table = pl.DataFrame(rows, schema=pl.Schema(Candidates.columns), orient="row")
    return pair(table, table)


if __name__ == "__main__":
    main()
