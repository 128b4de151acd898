"""What reward models are fitted for, and what each aim does on the built-in world, on some seeds.

    python -m benchmarks.reward_effects [--seeds 3] [--scale small] [--out docs/reward-models.md]

Every reward model scores the same pool of answers of the SFT model to fresh prompts, and some of
the PPO policy's. Printed are means over prompts and seeds; `±` is a standard error over them, of
the value, or where a row has a row to be held against, of the difference on the same prompts. With
`--out` the table replaces what stands below the mark in that file.
"""

import argparse
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import StatisticsError, correlation, fmean, stdev
from typing import Literal, NamedTuple

import polars as pl

import tasks
from alpacafarm_core.artifacts import Candidates, Ranked, Scores
from alpacafarm_core.committees import Ensemble
from alpacafarm_core.farm import Farm, Judge, Start
from alpacafarm_core.fitting import Margin, Odin, Views
from alpacafarm_core.methods.rlp import RLP
from alpacafarm_core.search import best
from alpacafarm_core.settings import Fitting, Ranking, Sampling, Truth
from alpacafarm_core.setup import Setup
from alpacafarm_core.weights import Policy
from benchmarks.world_effects import markdown
from flows.prepare import started
from tasks.stage import store

FARM: Farm = tasks
POOL = 16
PROMPT = ["instruction", "input"]
MARK = "<!-- made by benchmarks/reward_effects.py -->"
ACCURACY, MOVED = "accuracy %", "accuracy % on PPO's answers"
LENGTH, BEST = "correlation with length", f"utility of best of {POOL}"
COLUMNS = (ACCURACY, MOVED, LENGTH, BEST)
Prompt = tuple[str, str]
Figures = dict[str, float | None]
"""What is seen of one prompt's answers, by the name of a column."""


class Ground(NamedTuple):
    """What all reward models of a seed share: the start, and answers with their true utility."""

    setup: Setup
    start: Start
    fitting: Fitting
    own: Candidates
    moved: Candidates
    samples: Candidates


Scoring = Judge | Callable[[Candidates], Scores]
"""What gives a number to each answer: a judge, or a way to score a table."""


class Row(NamedTuple):
    """A line of the table: its name, how its judge is made, and the line it is held against."""

    name: str
    judge: Callable[[Ground], Scoring]
    against: str | None = "order alone"


def ground(setup: Setup) -> Ground:
    """SFT model, labels, PPO policy, and answers of both to prompts nobody trained on."""
    start, method = started(setup), RLP.at(setup.scale).seeded(setup.seed)
    first = FARM.fit_reward(start.policy, start.preferences, method.fitting)
    policy = method.improved(FARM, start, first)
    samples = FARM.generate(policy, start.instructions, method.sampling)
    own, moved = (answers(setup, each) for each in (start.policy, policy))
    return Ground(setup, start, method.fitting, own, moved, samples)


def answers(setup: Setup, policy: Policy) -> Candidates:
    """A pool of answers to the validation prompts."""
    sizes = setup.sizes
    sampling = Sampling(n=POOL, temperature=sizes.temperature, max_tokens=sizes.max_tokens,
                        seed=setup.seed + 1)  # fmt: skip
    return FARM.generate(policy, FARM.instructions(setup.source, "val", sizes.val), sampling)


def labelled_by_truth(on: Ground) -> Ranked:
    """The pairs of the labels, ordered by true utility; its difference is the gap."""
    setup, sizes = on.setup, on.setup.sizes
    prompts = FARM.instructions(setup.source, "preference", sizes.preference)
    sampling = Sampling(n=2, temperature=sizes.temperature, max_tokens=sizes.max_tokens,
                        seed=setup.seed)  # fmt: skip
    pairs = FARM.generate(on.start.policy, prompts, sampling)
    return FARM.rank(FARM.score(pairs, Truth()), Ranking())


def fitted(
    data: Literal["labels", "truth"] = "labels", samples: bool = False, **changes: object
) -> Callable[[Ground], Judge]:
    """A reward model of the labels, or of the same pairs in true order, with settings changed.

    That it may order no worse than length does is what is measured here, and is not demanded.
    """

    def judge(on: Ground) -> Judge:
        pairs = on.start.preferences if data == "labels" else labelled_by_truth(on)
        fitting = on.fitting.replace(above_length=False, **changes) if changes else on.fitting
        return FARM.fit_reward(on.start.policy, pairs, fitting, on.samples if samples else None)

    return judge


def less_length(on: Ground) -> Scoring:
    """The scores of order alone less what length explains among the SFT model's answers."""
    judge = fitted()(on)
    return lambda pool: FARM.residual(FARM.score(pool, judge), FARM.score(on.own, judge))


ROWS = [
    Row("order alone", fitted(), None),
    Row("Reg, b 0.005", fitted(penalty=0.005)),
    Row("Reg, b 0.05", fitted(penalty=0.05)),
    Row("ODIN", fitted(odin=Odin())),
    Row("order alone, less length", less_length),
    Row("UML, coefficient 1", fitted(samples=True)),
    Row("UML, rising", fitted(samples=True, views=Views(skl_first=1e-3))),
    Row("committee of 3, mean", fitted(committee=Ensemble(members=3))),
    Row("committee of 3, lowest", fitted(committee=Ensemble(members=3, combine="lowest"))),
    Row("committee of 3, cautious", fitted(committee=Ensemble(members=3, combine="cautious"))),
    Row("WARM of 3", fitted(committee=Ensemble(members=3, combine="weights"))),
    Row("true order", fitted("truth"), None),
    Row("true order, margin", fitted("truth", margin=Margin()), "true order"),
    Row("true order, ODIN", fitted("truth", odin=Odin()), "true order"),
    Row("true utility", lambda _: Truth(), None),
]
"""The table's lines; a way to make a judge is all that a further one takes."""


def seen(on: Ground, judge: Scoring) -> dict[Prompt, Figures]:
    """Figures of each prompt, of the SFT model's answers and of the PPO policy's."""
    own, moved = (_of_prompts(each, judge) for each in (on.own, on.moved))
    names = (ACCURACY, LENGTH, BEST)
    return {
        prompt: {name: own[prompt][name] for name in names}
        | {MOVED: moved[prompt][ACCURACY] if prompt in moved else None}
        for prompt in own
    }


def _of_prompts(pool: Candidates, judge: Scoring) -> dict[Prompt, Figures]:
    keys = [*PROMPT, "sample_index"]
    gold = store().read(FARM.score(pool, Truth())).select(*keys, gold="score")
    scored = judge(pool) if callable(judge) else FARM.score(pool, judge)
    rows = store().read(scored).join(gold, on=keys).sort(keys)
    groups = rows.with_columns(chars=pl.col("output").str.len_chars()).group_by(PROMPT)
    return {(str(name[0]), str(name[1])): of_prompt(group.sort(keys)) for name, group in groups}


def of_prompt(pool: pl.DataFrame) -> Figures:
    """Of one prompt's answers with `score`, `gold` and `chars`.

    Accuracy is over neighbours of which one is truly better, in percent, a tie counting half; None
    where nothing can be told.
    """
    scores, gold = pool["score"].to_list(), pool["gold"].to_list()
    told = [
        50.0 * (1 + _sign(scores[at] - scores[at + 1]) * _sign(gold[at] - gold[at + 1]))
        for at in range(0, len(scores) - 1, 2)
        if gold[at] != gold[at + 1]
    ]
    return {
        ACCURACY: fmean(told) if told else None,
        LENGTH: _correlation(scores, pool["chars"].to_list()),
        BEST: gold[best(scores)],
    }


def table(found: Mapping[str, Sequence[Mapping[Prompt, Figures]]]) -> list[dict[str, object]]:
    """A line for each row, from its figures of every seed."""
    rows = {row.name: row for row in ROWS if row.name in found}
    lines = list[dict[str, object]]()
    for name, row in rows.items():
        other = found.get(row.against or "")
        line: dict[str, object] = {"reward model": name, "against": row.against or ""}
        for column in COLUMNS:
            own, gaps = _values(found[name], column), _gaps(found[name], other, column)
            line[column] = _said(own, gaps)
        lines.append(line)
    return lines


def _values(seeds: Sequence[Mapping[Prompt, Figures]], column: str) -> list[float]:
    each = (figures[column] for seed in seeds for figures in seed.values())
    return [value for value in each if value is not None]


def _gaps(
    seeds: Sequence[Mapping[Prompt, Figures]],
    others: Sequence[Mapping[Prompt, Figures]] | None,
    column: str,
) -> list[float]:
    """Differences to the row it is held against, on the same prompts of the same seeds."""
    pairs = [
        (figures[column], other[prompt][column])
        for one, other in zip(seeds, others or (), strict=False)
        for prompt, figures in one.items()
    ]
    return [one - other for one, other in pairs if one is not None and other is not None]


def _said(own: Sequence[float], gaps: Sequence[float]) -> str:
    if not own:
        return ""
    told = f"{fmean(own):.3f}"
    spread = gaps or own
    error = stdev(spread) / math.sqrt(len(spread)) if len(spread) > 1 else float("nan")
    return f"{told} ({fmean(gaps):+.3f} ± {error:.3f})" if gaps else f"{told} ± {error:.3f}"


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    try:
        return correlation(one, other)
    except StatisticsError:
        return None


def main() -> None:
    """Run every seed, print the table, write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", choices=("smoke", "small"), default="small")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    found: dict[str, list[dict[Prompt, Figures]]] = {row.name: [] for row in ROWS}
    for seed in range(chosen.seeds):
        on = ground(Setup(seed=seed, scale=chosen.scale))
        for row in ROWS:
            found[row.name].append(seen(on, row.judge(on)))
            logging.info("%s is done", row.name)
        text = f"Scale {chosen.scale}, seeds 0 to {seed}.\n\n{markdown(table(found))}"
        print(text, flush=True)
        if chosen.out:
            head = chosen.out.read_text().partition(MARK)[0] if chosen.out.is_file() else ""
            chosen.out.write_text(f"{head}{MARK}\n\n{text}\n")


if __name__ == "__main__":
    main()
