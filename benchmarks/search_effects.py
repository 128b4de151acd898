"""Tree search against best-of-n at equal generated tokens, on the built-in world.

    python -m benchmarks.search_effects [--seeds 3] [--scale small] [--out docs/search.md]

Every tree is set against best-of-n with the least n that draws no fewer tokens than it: n times the
mean length of an answer, as both stop at the end token. Figures are means over seeds; differences
are paired over the prompts of a seed, errors are of their mean over seeds. Best-of-n is drawn as a
tree of one layer, which is the same to the bit and notes its tokens.
"""

import argparse
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

import tasks
from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.methods.tree_bon import TreeBoN
from alpacafarm_core.settings import Sampling, Truth
from alpacafarm_core.setup import Setup
from alpacafarm_core.tally import paired, points
from alpacafarm_core.trees import Branching, Budget
from alpacafarm_core.weights import Policy, Tree
from flows.evaluate import judged
from flows.prepare import started
from tasks.stage import store

MARK = "<!-- made by benchmarks/search_effects.py -->"
FARM: Farm = tasks
log = logging.getLogger("alpacafarm.effects")
WIDTH = 16
PARTIALS = (
    "weighted", "rm_prefix", "random", "dpo_sum", "exp_decay", "dpo_mean", "dpo_logp", "simpo",
)  # fmt: skip
SHAPES = {
    "weighted, 2 layers": {"layers": 2},
    "weighted, 8 layers": {"layers": 8},
    "weighted, 2 children": {"children": 2},
    "weighted, refilled": {"refill_finished": True},
    "weighted, refilled, 8 layers": {"refill_finished": True, "layers": 8},
    "weighted, pool of finished": {"keep_finished_pool": True},
}
JUDGED = {"proxy": "score", "utility": "score", "win rate": "points"}


class Outcome(NamedTuple):
    """What a search found, a row a prompt for each figure, and what it took."""

    figures: dict[str, pl.DataFrame]
    characters: float
    budget: Budget
    prompts: int

    @property
    def tokens(self) -> float:
        """Tokens drawn for a prompt."""
        return self.budget.sampled_tokens / self.prompts

    def mean(self, figure: str) -> float:
        """Mean over prompts."""
        return float(self.figures[figure][JUDGED[figure]].mean())  # type: ignore[arg-type]


class Compared(NamedTuple):
    """A search and the best-of-n at its tokens, on one seed."""

    found: Outcome
    against: Outcome
    n: int


class Bench:
    """One seed: its start, the policy with its tree, and answers to the evaluation prompts."""

    def __init__(self, seed: int, scale: str) -> None:
        self.setup = Setup(seed=seed, scale=scale)
        self.start: Start = started(self.setup)
        policy = TreeBoN.at(self.setup.scale).seeded(seed).optimise(FARM, self.start)
        assert isinstance(policy.decode, Tree)
        self.policy, self.tree = policy, policy.decode
        self.known: dict[str, Outcome] = {}

    def outcome(self, **shape: object) -> Outcome:
        """What a tree of this shape finds."""
        tree = self.tree.replace(**{"width": WIDTH, **shape})
        if tree.model_dump_json() not in self.known:
            self.known[tree.model_dump_json()] = self._judged(self._answers(tree))
        return self.known[tree.model_dump_json()]

    def best_of(self, n: int) -> Outcome:
        """What best-of-n finds."""
        return self.outcome(width=n, children=1, layers=1)

    def equal_to(self, tokens: float) -> int:
        """The least n with which best-of-n draws no fewer tokens."""
        return math.ceil(tokens / (self.best_of(WIDTH).tokens / WIDTH) - 1e-9)

    def compared(self, **shape: object) -> Compared:
        """A tree beside best-of-n at its tokens."""
        found = self.outcome(**shape)
        n = self.equal_to(found.tokens)
        return Compared(found, self.best_of(n), n)

    def _answers(self, tree: Tree) -> Candidates:
        sizes = self.setup.sizes
        prompts = FARM.instructions(self.setup.source, "eval", sizes.eval)
        sampling = Sampling(temperature=0.7, max_tokens=sizes.max_tokens, seed=self.setup.seed)
        policy: Policy = self.policy.replace(decode=tree)
        return FARM.generate(policy, prompts, sampling)

    def _judged(self, answers: Candidates) -> Outcome:
        rows, notes = store().read(answers), store().manifest(answers).notes
        evaluation = judged(answers, self.setup)
        return Outcome(
            {
                "proxy": store().read(FARM.score(answers, self.tree.reward)),
                "utility": store().read(FARM.score(answers, Truth())),
                "win rate": points(store().read(evaluation.preferences)),
            },
            float(rows["output"].str.len_chars().mean()),  # type: ignore[arg-type]
            Budget(*(notes[name] for name in Budget._fields)),
            rows.height,
        )


def row(name: str, held: Sequence[Compared]) -> dict[str, str]:
    """A line of the table: what it took, what it found, and the difference to best-of-n."""
    budgets = [(each.found.budget, each.found.prompts) for each in held]
    spent = [
        _mean([budget[place] / prompts for budget, prompts in budgets])
        for place in range(len(Budget._fields))
    ]
    told = {
        "search": name,
        "tokens drawn": f"{spent[0]:.0f}",
        "tokens scored": f"{spent[2]:.0f}",
        "RM calls": f"{spent[3]:.1f}",
        "equal n": ", ".join(str(each.n) for each in held),
        "chars": f"{_mean([each.found.characters for each in held]):.0f}",
    }
    for figure, digits in (("win rate", 1), ("utility", 3), ("proxy", 2)):
        told[figure] = f"{_mean([each.found.mean(figure) for each in held]):.{digits}f}"
        told[f"{figure} vs best-of-n"] = _difference(held, figure, digits)
    log.info("%s", told)
    return told


def _difference(held: Sequence[Compared], figure: str, digits: int) -> str:
    """Mean of the seeds' paired differences, its error, and how many of them are above zero."""
    found = [
        paired(each.found.figures[figure], each.against.figures[figure], JUDGED[figure])
        for each in held
    ]
    gaps = [each.difference or 0.0 for each in found]
    error = math.sqrt(sum((each.standard_error or 0.0) ** 2 for each in found)) / len(found)
    above = sum(gap > 0 for gap in gaps)
    return f"{_mean(gaps):+.{digits}f} ± {error:.{digits}f} ({above}/{len(gaps)})"


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def tables(benches: Sequence[Bench]) -> dict[str, list[dict[str, str]]]:
    """The rows of every table."""
    shape = Branching()
    partials = [
        row(partial, [bench.compared(partial=partial) for bench in benches]) for partial in PARTIALS
    ]
    shapes = [
        row(name, [bench.compared(**changed) for bench in benches])  # type: ignore[arg-type]
        for name, changed in SHAPES.items()
    ]
    plain = [
        row(
            f"best of {n}",
            [Compared(bench.best_of(n), bench.best_of(WIDTH), n) for bench in benches],
        )
        for n in (1, 4, 8, WIDTH)
    ]
    return {
        f"What ranks unfinished answers: {WIDTH} wide, {shape.children} children, "
        f"{shape.layers} layers": partials,
        "Other shapes": shapes,
        f"Best-of-n alone, against best of {WIDTH}": plain,
    }


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """Rows as a Markdown table."""
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
    lines += [" | ".join(each.values()) for each in rows]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Run every seed, print the tables, put them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", default="small", choices=("smoke", "small", "paper"))
    parser.add_argument("--out", type=Path, help="page whose tables are replaced")
    chosen = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    found = tables([Bench(seed, chosen.scale) for seed in range(chosen.seeds)])
    of = f"Scale {chosen.scale}, seeds 0 to {chosen.seeds - 1}. Tokens and calls are a prompt's."
    text = "\n\n".join([of, *(f"### {title}\n\n{markdown(rows)}" for title, rows in found.items())])
    print(text)
    if chosen.out:
        by_hand = chosen.out.read_text().split(MARK)[0] if chosen.out.exists() else ""
        chosen.out.write_text(f"{by_hand}{MARK}\n\n{text}\n")


if __name__ == "__main__":
    main()
