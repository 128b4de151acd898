"""SALSA beside PPO, and a judge of pairs beside a reward model, on the built-in world.

    python -m benchmarks.soup_effects [--seeds 3] [--scale small] [--out docs/soups.md]
        [--prices 0.03 0.1 0.3] [--models 2] [--without pairwise]

PPO and SALSA begin at one SFT model, share the reward model and differ in the reference alone, at
each price of a nat. Figures are of fresh answers at temperature 1 to the validation prompts; KLs
are mean log-ratios of those answers, in nats a response, to each method's own reference and to the
start. `±` is a standard error of a difference, over seeds where there are several, else over
prompts.
"""

import argparse
import logging
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import polars as pl

import tasks
from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.farm import Farm, Judge, Start
from alpacafarm_core.methods.ppo import PPO
from alpacafarm_core.methods.salsa import SALSA
from alpacafarm_core.pairs import probable
from alpacafarm_core.settings import Fitting, Sampling, Truth, Winning
from alpacafarm_core.setup import Setup
from alpacafarm_core.weights import Implicit, Policy
from benchmarks.world_effects import markdown
from flows.prepare import started
from tasks.stage import store

FARM: Farm = tasks
PROMPT = ["instruction", "input"]
POOL = 8
MARK = "<!-- made by benchmarks/soup_effects.py -->"
HEADINGS = (
    "At the same price of a nat",
    "At the same KL to each method's own reference",
    "Soups and their parents on held-out demonstrations, nats a token",
    "A judge of pairs beside a reward model",
)


TITLES = ("proxy", "utility", "KL to own reference", "KL to start")


class Seen(NamedTuple):
    """Means of one policy's answers, by prompt: reward, true utility and KLs, [P] each."""

    proxy: list[float]
    utility: list[float]
    own: list[float]
    start: list[float]


class Race(NamedTuple):
    """One seed: what each method came to at each price, and the figures of the soup."""

    seed: int
    ppo: dict[float, Seen]
    salsa: dict[float, Seen]
    soup: dict[str, Any]


def race(setup: Setup, prices: Sequence[float], models: int) -> Race:
    """PPO and SALSA at each price of a nat."""
    start = started(setup)
    salsa = SALSA.at(setup.scale).seeded(setup.seed)
    salsa = salsa.replace(weights=(1 / models,) * models)
    ppo = PPO.at(setup.scale).seeded(setup.seed)
    soup = salsa.reference(FARM, start)
    found: dict[str, dict[float, Seen]] = {"ppo": {}, "salsa": {}}
    for price in prices:
        for method, reference in ((ppo, start.policy), (salsa, soup)):
            kl = method.objective.kl.replace(coef=price)
            priced = method.replace(objective=method.objective.replace(kl=kl))
            policy = priced.optimise(FARM, start)
            found[method.name][price] = seen(setup, start, policy, reference)
    return Race(setup.seed, found["ppo"], found["salsa"], store().manifest(soup).notes)


def seen(setup: Setup, start: Start, policy: Policy, reference: Policy) -> Seen:
    """What fresh answers of a policy are like."""
    fitting = PPO.at(setup.scale).seeded(setup.seed).fitting
    reward = FARM.fit_reward(start.policy, start.preferences, fitting)
    answers = drawn(setup, policy, n=2, temperature=1.0)
    judges: list[Judge] = [reward, Truth()]
    judges += [Implicit(policy=policy, reference=each) for each in (reference, start.policy)]
    return Seen(*(by_prompt(answers, judge) for judge in judges))


def drawn(setup: Setup, policy: Policy, n: int, temperature: float) -> Candidates:
    """Answers to the validation prompts, which nobody trained on."""
    prompts = FARM.instructions(setup.source, "val", setup.sizes.val)
    longest, seed = setup.sizes.max_tokens, setup.seed + 1
    sampling = Sampling(n=n, temperature=temperature, max_tokens=longest, seed=seed)
    return FARM.generate(policy, prompts, sampling)


def by_prompt(answers: Candidates, judge: Judge) -> list[float]:
    """The mean score of each prompt's answers, prompts in their order."""
    rows = store().read(FARM.score(answers, judge)).group_by(PROMPT, maintain_order=True)
    means: list[float] = rows.agg(pl.col("score").mean())["score"].to_list()
    return means


def at_equal_price(races: Sequence[Race]) -> list[dict[str, object]]:
    """A line for each price and method, with the gain of SALSA over PPO."""
    lines = []
    for price in races[0].ppo:
        pairs = [(each.salsa[price], each.ppo[price]) for each in races]
        for name, at in (("PPO", 1), ("SALSA", 0)):
            line: dict[str, object] = {"eta": price, "method": name}
            for field, title in zip(Seen._fields, TITLES, strict=True):
                line[title] = f"{fmean(fmean(getattr(pair[at], field)) for pair in pairs):.3f}"
            for field in ("proxy", "utility"):
                gaps = [_gap(getattr(one, field), getattr(two, field)) for one, two in pairs]
                line[f"{field} gain"] = "" if at else _said(gaps)
            lines.append(line)
    return lines


def at_own_kl(races: Sequence[Race]) -> list[dict[str, object]]:
    """SALSA against PPO where PPO's own KL is SALSA's, between the prices that were run."""
    lines = []
    for each in races:
        for price, ours in each.salsa.items():
            own = fmean(ours.own)
            line: dict[str, object] = {
                "seed": each.seed,
                "eta of SALSA": price,
                "own KL": f"{own:.3f}",
            }
            for field in ("proxy", "utility"):
                known = [(fmean(s.own), fmean(getattr(s, field))) for s in each.ppo.values()]
                theirs, mine = between(own, known), fmean(getattr(ours, field))
                line |= {f"SALSA {field}": f"{mine:.3f}"}
                line |= {f"PPO {field}": "beyond its runs" if theirs is None else f"{theirs:.3f}"}
            lines.append(line)
    return lines


def between(x: float, known: Sequence[tuple[float, float]]) -> float | None:
    """The value at x on straight lines between known points; None beyond them."""
    points = sorted(known)
    for (left, low), (right, high) in pairwise(points):
        if left <= x <= right:
            return low if left == right else low + (high - low) * (x - left) / (right - left)
    return None


def of_soups(races: Sequence[Race]) -> list[dict[str, object]]:
    """What a soup costs on held-out demonstrations, beside its parents."""
    return [
        {
            "seed": each.seed,
            "parents": ", ".join(f"{loss:.4f}" for loss in each.soup["losses_of_parents"]),
            "soup": f"{each.soup['loss']:.4f}",
            "allowed": f"{fmean(each.soup['losses_of_parents']) + each.soup['barrier']:.4f}",
        }
        for each in races
        if "loss" in each.soup
    ]


def of_pairs(setup: Setup) -> list[dict[str, object]]:
    """A reward model and a pairwise judge of the same labels, on the same pool of answers."""
    start, fitting = started(setup), Fitting.at(setup.scale).seeded(setup.seed)
    pool = drawn(setup, start.policy, POOL, setup.sizes.temperature)
    reward = FARM.fit_reward(start.policy, start.preferences, fitting)
    pairwise = FARM.fit_pairwise(start.policy, start.preferences, fitting.for_two())
    lines = []
    for name, judge in (("reward model", reward), ("pairwise", pairwise)):
        compared = FARM.compare(pool, judge)
        notes = store().manifest(compared).notes
        line: dict[str, object] = {"seed": setup.seed, "judge": name}
        lines.append(line | judged(store().read(compared), pool) | _minded(notes))
    return lines


def judged(comparisons: pl.DataFrame, pool: Candidates) -> dict[str, str]:
    """Share of pairs of answers in true order, and true utility of the answer that wins most."""
    keys = [*PROMPT, "sample_index"]
    gold = store().read(FARM.score(pool, Truth())).select(*keys, gold="score")
    told = probable(comparisons, Winning(probability="pairwise")).join(gold, on=keys)
    index, rivals = [*PROMPT, "index"], told.filter(pl.col("index") == pl.col("rival"))
    theirs = rivals.select(*PROMPT, rival="index", rival_gold="gold")
    pairs = told.join(theirs, on=[*PROMPT, "rival"]).filter(
        pl.col("gold") > pl.col("rival_gold"), pl.col("beats") != 0.5
    )
    right = [beats > 0.5 for beats in pairs["beats"]]
    best = told.unique(index).sort("win", descending=True).unique(PROMPT, keep="first")
    return {
        "in true order %": f"{100 * fmean(right):.1f}",
        f"utility of best of {POOL}": f"{fmean(best['gold']):.3f}",
    }


def _minded(notes: dict[str, Any]) -> dict[str, str]:
    """How the judge minded the order; a reward model does not."""
    names = ("agreement", "position_bias", "asymmetry")
    return {name: f"{notes[name]:.3f}" if name in notes else "" for name in names}


def _gap(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(ours, theirs, strict=True)]


def _said(gaps: Sequence[Sequence[float]]) -> str:
    """Mean difference and its error: over seeds, or over the prompts of a single one."""
    over = [fmean(gap) for gap in gaps] if len(gaps) > 1 else gaps[0]
    return f"{fmean(over):+.3f} ± {stdev(over) / math.sqrt(len(over)):.3f}"


def main() -> None:
    """Run every seed, print the tables, write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", choices=("smoke", "small"), default="small")
    parser.add_argument("--prices", type=float, nargs="+", default=[0.03, 0.1, 0.3])
    parser.add_argument("--models", type=int, default=2)
    parser.add_argument("--without", choices=("salsa", "pairwise"))
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    races, pairs = list[Race](), list[dict[str, object]]()
    for seed in range(chosen.seeds):
        setup = Setup(seed=seed, scale=chosen.scale)
        if chosen.without != "salsa":
            races.append(race(setup, chosen.prices, chosen.models))
        if chosen.without != "pairwise":
            pairs += of_pairs(setup)
        tables = [at_equal_price(races), at_own_kl(races), of_soups(races)] if races else [[]] * 3
        told = zip(HEADINGS, (*tables, pairs), strict=True)
        text = f"Scale {chosen.scale}, seeds 0 to {seed}.\n\n" + "\n\n".join(
            f"## {heading}\n\n{markdown(rows)}" for heading, rows in told if rows
        )
        print(text)
        if chosen.out:
            head = chosen.out.read_text().partition(MARK)[0] if chosen.out.is_file() else ""
            chosen.out.write_text(f"{head}{MARK}\n\n{text}\n")


if __name__ == "__main__":
    main()
