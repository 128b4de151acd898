"""What the built-in world shows: methods, reward model and over-optimisation on several seeds.

    python -m benchmarks.world_effects [--seeds 3] [--out docs/world-effects.md]

Prints Markdown tables: methods against SFT (by the judges and by true utility, paired over the
same prompts), the reward model beside its baseline and its ceiling, and best-of-n for every n from
one pool of answers by the unbiased order statistic, with noisy and with clean labels.
"""

import argparse
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import polars as pl

import tasks
from alpacafarm_core.artifacts import Candidates, Preferences
from alpacafarm_core.farm import Farm, Judge, Start
from alpacafarm_core.methods.best_of_n import BestOfN
from alpacafarm_core.panel import load
from alpacafarm_core.search import best_of_n_kl, expected_best_of_n
from alpacafarm_core.settings import Sampling, Truth
from alpacafarm_core.setup import Setup
from alpacafarm_core.weights import Reward
from flows.leaderboard import DEMO, methods_named, ranked
from flows.prepare import started
from tasks.stage import store

FARM: Farm = tasks
POOL = 32
PAIRS = 4
PROMPT = ["instruction", "input"]
PAIR = [*PROMPT, "pair"]


def main() -> None:
    """Run every seed, print the tables, write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    methods, rewards, curves = [], [], []
    for seed in range(chosen.seeds):
        setup = Setup(seed=seed)
        methods += method_rows(setup)
        for labels, changed in (
            ("pool, 25% flips", setup),
            ("clean judge", setup.replace(panel="world_clean", flip=0.0)),
        ):
            start = started(changed)
            reward = fitted(changed, start)
            rewards.append({"seed": seed, "labels": labels, **accuracies(changed, start, reward)})
            curves.append({"seed": seed, "labels": labels, **curve(changed, start, reward)})
    text = "\n\n".join(
        f"{title}\n\n{markdown(rows)}"
        for title, rows in (
            ("### Methods against SFT", methods),
            ("### Reward models", rewards),
            (f"### True utility of best-of-n, one pool of {POOL} answers a prompt", curves),
        )
    )
    print(text)
    if chosen.out:
        chosen.out.write_text(f"<!-- made by benchmarks/world_effects.py -->\n\n{text}\n")


def method_rows(setup: Setup) -> list[dict[str, object]]:
    """The leaderboard of one seed, differences to SFT in standard errors."""
    board = store().read(ranked(methods_named(DEMO, setup), setup))
    return [
        {
            "seed": setup.seed,
            "model": row["model"],
            "win rate": _pm(row["win_rate"], row["standard_error"], 1),
            "vs SFT": _pm(row["win_rate_minus_sft"], row["paired_error"], 1),
            "in SE": _ratio(row["win_rate_minus_sft"], row["paired_error"]),
            "utility": f"{row['utility']:.3f}",
            "utility vs SFT": _pm(row["utility_minus_sft"], row["utility_paired_error"], 3),
            "utility in SE": _ratio(row["utility_minus_sft"], row["utility_paired_error"]),
            "chars": row["avg_length"],
        }
        for row in board.to_dicts()
    ]


def fitted(setup: Setup, start: Start) -> Reward:
    """The reward model that best-of-n uses in this setup."""
    method = BestOfN.at(setup.scale).seeded(setup.seed)
    return FARM.fit_reward(start.policy, start.preferences, method.fitting)


def accuracies(setup: Setup, start: Start, reward: Reward) -> dict[str, str]:
    """Share of fresh pairs ordered as the truth and as the labels have them, in percent.

    The ceiling is how often the truth itself agrees with the labels. Pairs of one prompt are not
    independent, so take the error of a share from the number of prompts.
    """
    prompts = FARM.instructions(setup.source, "val", setup.sizes.val)
    sampling = Sampling(
        n=2 * PAIRS,
        temperature=setup.sizes.temperature,
        max_tokens=setup.sizes.max_tokens,
        seed=setup.seed + 1,
    )
    answers = FARM.generate(start.policy, prompts, sampling)
    labels = FARM.annotate(answers, answers, load(setup.panel, setup.flip, setup.seed))
    truth, model = margins(answers, Truth()), margins(answers, reward)
    length = margins_of(store().read(answers).with_columns(score=pl.col("output").str.len_chars()))
    label = labelled(labels)
    return {
        "RM vs truth": _share(model, truth),
        "length vs truth": _share(length, truth),
        "RM vs labels": _share(model, label),
        "ceiling (truth vs labels)": _share(truth, label),
        "length vs labels": _share(length, label),
    }


def margins(answers: Candidates, judge: Judge) -> pl.DataFrame:
    """Second answer's score minus the first's, a prompt a row."""
    return margins_of(store().read(FARM.score(answers, judge)))


def margins_of(scored: pl.DataFrame) -> pl.DataFrame:
    """The same from rows with a score; samples 0 and 1 are pair 0, 2 and 3 are pair 1, ..."""
    paired = scored.with_columns(pair=pl.col("sample_index") // 2)
    first, second = (paired.filter(pl.col("sample_index") % 2 == side) for side in (0, 1))
    joined = first.join(second, on=PAIR, suffix="_2")
    return joined.select(*PAIR, margin=pl.col("score_2").cast(float) - pl.col("score").cast(float))


def labelled(labels: Preferences) -> pl.DataFrame:
    """The labels as margins: positive where the second answer was preferred."""
    # `annotate` keeps the pairs of a prompt in their order.
    numbered = store().read(labels).with_columns(pair=pl.int_range(pl.len()).over(PROMPT))
    return numbered.select(*PAIR, margin=pl.col("preference") - 1.5)


def curve(setup: Setup, start: Start, reward: Reward) -> dict[str, str]:
    """Mean true utility of best-of-n over the validation prompts, n = 1, 2, 4, ..."""
    prompts = FARM.instructions(setup.source, "val", setup.sizes.val)
    sampling = Sampling(
        n=POOL,
        temperature=setup.sizes.temperature,
        max_tokens=setup.sizes.max_tokens,
        seed=setup.seed + 1,
    )
    answers = FARM.generate(start.policy, prompts, sampling)
    keys = [*PROMPT, "sample_index"]
    gold = store().read(FARM.score(answers, Truth())).select(*keys, gold="score")
    both = store().read(FARM.score(answers, reward)).join(gold, on=keys)
    pools = [
        (group["score"].to_list(), group["gold"].to_list()) for _, group in both.group_by(PROMPT)
    ]
    sizes = [2**power for power in range(int(math.log2(POOL)) + 1)]
    return {f"n={n} (KL {best_of_n_kl(n):.2f})": f"{_mean(pools, n):.3f}" for n in sizes}


def _mean(pools: Sequence[tuple[list[float], list[float]]], n: int) -> float:
    return sum(expected_best_of_n(proxy, gold, n) for proxy, gold in pools) / len(pools)


def _share(guess: pl.DataFrame, known: pl.DataFrame) -> str:
    both = guess.join(known, on=PAIR, suffix="_known").filter(
        (pl.col("margin_known") != 0) & (pl.col("margin") != 0)
    )
    right = (both["margin"].sign() == both["margin_known"].sign()).mean()
    return f"{100 * float(right or 0):.1f} (n={both.height})"


def _pm(value: float | None, error: float | None, digits: int) -> str:
    return "" if value is None or error is None else f"{value:.{digits}f} ± {error:.{digits}f}"


def _ratio(value: float | None, error: float | None) -> str:
    return "" if value is None or not error else f"{value / error:+.1f}"


def markdown(rows: Sequence[dict[str, object]]) -> str:
    """Rows as a Markdown table."""
    names = list(rows[0])
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    lines += [" | ".join(str(row[name]) for name in names) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    main()
