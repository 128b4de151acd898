"""Best-of-n by the order statistic of a pool, beside best-of-n drawn afresh, on the same prompts.

    python -m benchmarks.fresh_best_of_n [--n 4] [--seeds 3]

The pool has 32 answers to every evaluation prompt of the world (scale small) and gives the exact
mean over all subsets of n; the fresh answers are drawn with seeds of their own. Prints both means
and their paired difference in standard errors, for the reward model, true utility and win rate.
"""

import argparse
import logging

import polars as pl

from alpacafarm_core.curves import PROMPT, best_of_points
from alpacafarm_core.methods.best_of_n import BestOfN
from alpacafarm_core.settings import Truth
from alpacafarm_core.setup import Setup
from alpacafarm_core.tally import points
from benchmarks.world_effects import markdown
from flows.evaluate import answered
from flows.prepare import FARM, admitted, started
from flows.study import best_of_pool, judged_by
from tasks.stage import store
from tasks.study import pooled

FRESH = 1_000


def main() -> None:
    """Print a line for each seed and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    rows = [row for seed in range(chosen.seeds) for row in compared(seed, chosen.n)]
    print(markdown(rows))


def compared(seed: int, n: int) -> list[dict[str, object]]:
    """The three lines of a seed."""
    setup = admitted(Setup(seed=seed))
    start = started(setup)
    method = BestOfN.at(setup.scale).replace(n=n).seeded(seed)
    reward = FARM.fit_reward(start.policy, start.preferences, method.fitting)
    samples = pooled(best_of_pool("pool", setup, start, reward))
    prompts = samples.select(PROMPT).unique(maintain_order=True)
    (point,) = best_of_points("pool", samples, [n])
    answers = answered(
        start.policy.replace(decode=method.decoding(reward)), setup.replace(seed=seed + FRESH)
    )
    fresh = {
        "proxy": store().read(FARM.score(answers, reward)).select(*PROMPT, value="score"),
        "utility": store().read(FARM.score(answers, Truth())).select(*PROMPT, value="score"),
        "win_rate": points(store().read(judged_by(answers, setup, setup.judges))).select(
            *PROMPT, value=pl.col("points") / 100
        ),
    }
    return [
        line(seed, name, prompts.with_columns(pool=pl.Series(point.measures[name])), drawn)
        for name, drawn in fresh.items()
    ]


def line(seed: int, name: str, pool: pl.DataFrame, fresh: pl.DataFrame) -> dict[str, object]:
    """Both means and their paired difference."""
    both = pool.join(fresh, on=PROMPT).select("pool", "value").drop_nulls().drop_nans()
    away = both["value"] - both["pool"]
    error = float(away.std() or 0.0) / both.height**0.5  # type: ignore[arg-type]
    mean = float(away.mean() or 0.0)  # type: ignore[arg-type]
    return {
        "seed": seed,
        "measure": name,
        "pool": f"{both['pool'].mean():.4f}",
        "fresh": f"{both['value'].mean():.4f}",
        "fresh - pool": f"{mean:+.4f} ± {error:.4f}",
        "in SE": f"{mean / error:+.1f}",
    }


if __name__ == "__main__":
    main()
