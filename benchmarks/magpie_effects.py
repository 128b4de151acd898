"""Magpie on the built-in world: what policies trained on invented instructions do, and the data.

    python -m benchmarks.magpie_effects [--seeds 3] [--scale small] [--out docs/magpie.md]

Prints Markdown tables: policies against the base and against SFT on real demonstrations (paired
over prompts within a seed, over seeds where there are several), what each filter removed and how
good in truth the rows were that it removed, how different the invented instructions are and how
many of them the evaluation asks, and what kinds of them base and SFT policy invent. With `--out`
the tables replace what stands below the mark in that file.
"""

import argparse
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple, get_args

import polars as pl

import tasks
from alpacafarm_core.artifacts import Preferences
from alpacafarm_core.farm import Evaluation, Farm, Start
from alpacafarm_core.lineage import ancestry, receipt
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.magpie import Contrast, Magpie
from alpacafarm_core.settings import BUDGET, Sampling, Scale
from alpacafarm_core.setup import Setup
from alpacafarm_core.synthesis import Filtering, Inventing, Sifted
from alpacafarm_core.tally import paired, points
from alpacafarm_core.weights import Policy
from alpacafarm_core.world.understanding import understand
from alpacafarm_core.world.utility import utility
from benchmarks.world_effects import markdown
from flows.evaluate import evaluated, judged
from flows.prepare import started
from tasks.stage import store

FARM: Farm = tasks
MARK = "<!-- made by benchmarks/magpie_effects.py -->"
BASE, SFT_REAL, MAGPIE = "base", "SFT, real demonstrations", "Magpie"
PLAIN, LIKE_SFT, MORE = "Magpie, no filters", "Magpie, as many rows as SFT", "Magpie, then DPO"
BY_BASE = "Magpie of the base itself"
GREEDY = {SFT_REAL: "SFT, answering greedily", MAGPIE: "Magpie, answering greedily"}
OPEN = Filtering(quality=(), reward_above=None, repeats=True, longest=None)
PROMPT = ["instruction", "input"]
Row = dict[str, object]


class Scene(NamedTuple):
    """One seed: where all begins, and the method with its settings."""

    setup: Setup
    method: Magpie
    start: Start

    @classmethod
    def of(cls, setup: Setup) -> "Scene":
        """Everything that all methods share."""
        return cls(setup, Magpie.at(setup.scale).seeded(setup.seed), started(setup))

    def filtered(self, filtering: Filtering) -> Magpie:
        """The method with other filters."""
        synthesis = self.method.synthesis.replace(filtering=filtering)
        return self.method.replace(synthesis=synthesis)

    def policies(self) -> Iterator[tuple[str, Policy]]:
        """Each policy by its name in the tables."""
        method, start = self.method, self.start
        filtering = method.synthesis.filtering
        sft = self.setup.sizes.sft
        sampling = Sampling(n=5, temperature=0.8, max_tokens=method.synthesis.answering.max_tokens)
        pairs = Contrast(sampling=sampling, objective=DPO(training=BUDGET)).seeded(self.setup.seed)
        yield BASE, start.base
        yield SFT_REAL, start.policy
        yield MAGPIE, method.optimise(FARM, start)
        yield PLAIN, self.filtered(OPEN).optimise(FARM, start)
        yield LIKE_SFT, self.filtered(filtering.replace(longest=sft)).optimise(FARM, start)
        if self.setup.scale != "smoke":  # its answers hardly ever end there
            alone = self.filtered(filtering.replace(difference_above=None))
            yield BY_BASE, alone.optimise(FARM, start.replace(policy=start.base))
        yield MORE, method.replace(contrast=pairs).optimise(FARM, start)

    def judged(self) -> dict[str, tuple[Policy, Evaluation]]:
        """Each policy with its evaluation; two of them also as they answer greedily.

        Invented instructions have greedy answers, so a policy may seem better than the one that
        wrote them only because evaluation samples from both.
        """
        setup, found = self.setup, dict(self.policies())
        longest = setup.sizes.max_tokens
        sampling = Sampling(temperature=0.0, max_tokens=longest, seed=setup.seed)
        prompts = FARM.instructions(setup.source, "eval", setup.sizes.eval)
        made = {name: (policy, evaluated(policy, setup)) for name, policy in found.items()}
        for name, greedy in GREEDY.items():
            answers = FARM.generate(found[name], prompts, sampling)
            made[greedy] = found[name], judged(answers, setup)
        return made


def main() -> None:
    """Run every seed, print the tables, write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", choices=get_args(Scale), default="small")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    scenes = [Scene.of(Setup(scale=chosen.scale, seed=seed)) for seed in range(chosen.seeds)]
    found = [scene.judged() for scene in scenes]
    made = [behind(each[MAGPIE][0]) for each in found]
    seeds = "seed 0" if chosen.seeds == 1 else f"seeds 0 to {chosen.seeds - 1}"
    tables = {
        f"### Policies: {seeds}, scale {chosen.scale}": board([
            {name: evaluation for name, (_, evaluation) in each.items()} for each in found
        ]),
        "### What the filters removed, and the true utility of it": removed(made),
        "### The instructions": [told(*one) for one in zip(scenes, made, strict=True)],
        "### Kinds of instructions, percent, first seed": kinds(scenes[0]),
    }  # fmt: skip
    text = "\n\n".join(f"{title}\n\n{markdown(rows)}" for title, rows in tables.items())
    print(text)
    if chosen.out:
        written = chosen.out.read_text() if chosen.out.is_file() else ""
        chosen.out.write_text(f"{written.partition(MARK)[0]}{MARK}\n\n{text}\n")


def board(judged: Sequence[Mapping[str, Evaluation]]) -> list[Row]:
    """A row a policy: win rate and truth, and both against the base and against SFT."""
    return [
        {
            "policy": name,
            "win rate %": _pm([paired_points(each[name], None) for each in judged], 1),
            "vs base": _against(judged, name, BASE),
            "vs SFT": _against(judged, name, SFT_REAL),
            "utility": _pm([_utility(each[name], None) for each in judged], 3),
            "utility vs base": _against(judged, name, BASE, of_truth=True),
            "utility vs SFT": _against(judged, name, SFT_REAL, of_truth=True),
            "characters": f"{fmean(_length(each[name].preferences) for each in judged):.0f}",
        }
        for name in judged[0]
    ]


def removed(made: Sequence[Sifted]) -> list[Row]:
    """A row a filter: how many rows it removed in each seed, and how good those were in truth."""
    tables = [store().read(each) for each in made]
    names = [*store().manifest(made[0]).notes["removed"], ""]
    lines: list[Row] = []
    for name in names:
        some = [table.filter(pl.col("removed_by") == name) for table in tables]
        truth = [
            utility(*row)
            for rows in some
            for row in rows.select("asked", "input", "output").iter_rows()
        ]
        lines.append(
            {
                "filter": name or "(kept)",
                "rows": ", ".join(str(rows.height) for rows in some),
                "true utility": f"{fmean(truth):.3f}" if truth else "",
                "characters": _mean([n for rows in some for n in rows["length"]]),
            }
        )
    return lines


def told(scene: Scene, made: Sifted) -> Row:
    """How many draws came to what in one seed, and what the evaluation asks of them."""
    inputs = store().manifest(made).recipe.inputs
    notes = store().manifest(receipt(inputs["invented"][0])).notes
    rows = store().read(made)
    prompts = FARM.instructions(scene.setup.source, "eval", scene.setup.sizes.eval)
    both = rows.join(store().read(prompts), on=PROMPT, how="semi").height
    real = store().read(FARM.instructions(scene.setup.source, "unlabeled", 4000))
    return {
        "seed": scene.setup.seed,
        "draws": notes["draws"],
        "not usable": notes["draws"] - notes.get("status_ok", 0),
        "asked in the evaluation": notes["evaluated"],
        "left": rows.height,
        "of these in the evaluation": both,
        "different": notes["distinct"],
        "near an earlier one": rows.filter(pl.col("repeat_count") > 0).height,
        "understood %": f"{100 * fmean(_understood(rows)):.1f}",
        "real ones understood %": f"{100 * fmean(_understood(real)):.1f}",
    }


def kinds(scene: Scene) -> list[Row]:
    """Shares of the families that each policy invents, and of the real instructions."""
    inventing = scene.method.synthesis.inventing
    shares = {
        "base invents": _families(_drawn(scene.start.base, inventing)),
        "SFT policy invents": _families(_drawn(scene.start.policy, inventing)),
        "SFT was trained on": _families(store().read(scene.start.demonstrations)),
    }
    known = shares["base invents"]
    lines: list[Row] = [
        {"family": name, **{said: f"{100 * held[name]:.1f}" for said, held in shares.items()}}
        for name in sorted(known, key=lambda name: -known[name])
    ]
    apart: Row = {"family": "distance to the base's"}
    for said, held in shares.items():
        every = known.keys() | held.keys()
        apart[said] = f"{50 * sum(abs(held[name] - known[name]) for name in every):.1f}"
    return [*lines, apart]


def behind(policy: Policy) -> Sifted:
    """The sifted rows that a policy was trained on the best of."""
    held = ancestry(store(), policy)
    return next(each.artifact for each in held if isinstance(each.artifact, Sifted))


def _drawn(policy: Policy, inventing: Inventing) -> pl.DataFrame:
    rows = store().read(tasks.invent(policy, inventing))
    return rows.filter(pl.col("status") == "ok")


def _families(rows: pl.DataFrame) -> defaultdict[str, float]:
    """Shares of the families of the instructions that the world understands."""
    tasks_of = (understand(*row) for row in rows.select(PROMPT).iter_rows())
    found = Counter(task.family for task in tasks_of if task is not None)
    return defaultdict(float, {name: count / found.total() for name, count in found.items()})


def _understood(rows: pl.DataFrame) -> list[float]:
    return [float(understand(*row) is not None) for row in rows.select(PROMPT).iter_rows()]


def paired_points(one: Evaluation, other: Evaluation | None) -> tuple[float, float]:
    """Win rate in percent, or how far it is ahead, with its standard error over prompts."""
    own = points(store().read(one.preferences))
    return _ahead(own, None if other is None else points(store().read(other.preferences)), "points")


def _utility(one: Evaluation, other: Evaluation | None) -> tuple[float, float]:
    assert one.truth is not None
    theirs = None if other is None or other.truth is None else store().read(other.truth)
    return _ahead(store().read(one.truth), theirs, "score")


def _ahead(own: pl.DataFrame, theirs: pl.DataFrame | None, value: str) -> tuple[float, float]:
    if theirs is None:
        theirs = own.with_columns(pl.lit(0.0).alias(value))
    ahead = paired(own, theirs, value)
    return float(ahead.difference or 0.0), float(ahead.standard_error or 0.0)


def _against(
    judged: Sequence[Mapping[str, Evaluation]], name: str, rival: str, of_truth: bool = False
) -> str:
    if name == rival:
        return ""
    measure, digits = (_utility, 3) if of_truth else (paired_points, 1)
    return _pm([measure(each[name], each[rival]) for each in judged], digits, "+")


def _pm(found: Sequence[tuple[float, float]], digits: int, sign: str = "") -> str:
    """The mean over seeds with its error over seeds, of one seed over its prompts."""
    means = [mean for mean, _ in found]
    error = found[0][1] if len(found) == 1 else stdev(means) / len(means) ** 0.5
    return f"{fmean(means):{sign}.{digits}f} ± {error:.{digits}f}"


def _mean(numbers: Sequence[float]) -> str:
    return f"{fmean(numbers):.0f}" if numbers else ""


def _length(judged: Preferences) -> float:
    return fmean(store().read(judged)["output_2"].str.len_chars())


if __name__ == "__main__":
    main()
