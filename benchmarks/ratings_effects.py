"""What UltraFeedback shows on the built-in world: its pool, pairs, reward models and learners.

    python -m benchmarks.ratings_effects [--seeds 3] [--out docs/ultrafeedback-table.md]

Prints Markdown tables, means over the seeds with their standard error: who answered how well and
how the judge marked it; what each binarisation makes of the marks; reward models fitted to those,
beside preferring the longer answer and beside one of panel labels; best-of-n with them; what DPO,
PPO and best-of-n make of the ratings, beside SFT and DPO on panel labels; and what was paid.
"""

import argparse
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple, get_args

import polars as pl

import tasks
from alpacafarm_core.artifacts import Artifact, Pooled, Preferences
from alpacafarm_core.binarise import Binarisation, Name
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.fitting import Margin
from alpacafarm_core.method import Method
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.methods.ultrafeedback import UltraFeedback
from alpacafarm_core.ratings import Ratings
from alpacafarm_core.search import expected_best_of_n
from alpacafarm_core.settings import Fitting, Sampling, Truth
from alpacafarm_core.setup import Setup
from alpacafarm_core.weights import Policy
from benchmarks.world_effects import PAIR, PAIRS, POOL, PROMPT, margins, margins_of, markdown
from flows.evaluate import answered
from flows.leaderboard import ranked
from flows.prepare import started
from tasks.stage import store

FARM: Farm = tasks
ANSWER = [*PROMPT, "sample_index"]
SIZES = (1, 2, 4, 8, 16)
WAYS: tuple[Name, ...] = get_args(Name)
Learner = Literal["dpo", "ppo", "best_of_n"]
LEARNERS: tuple[Learner, ...] = get_args(Learner)

Row = dict[str, Any]

log = logging.getLogger("alpacafarm.effects")


class Seed(NamedTuple):
    """One seed's experiment up to its ratings."""

    setup: Setup
    start: Start
    method: UltraFeedback
    answers: Pooled
    ratings: Ratings


def main() -> None:
    """Run every seed, print the tables, write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    parser.add_argument("--scale", choices=["smoke", "small"], default="small")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    found: dict[str, list[Row]] = {title: [] for title in TABLES}
    for number in range(chosen.first, chosen.first + chosen.seeds):
        seed = rated(Setup(seed=number, scale=chosen.scale))
        for title, rows in TABLES.items():
            found[title] += rows(seed)
            log.info("seed %d: %s\n%s", number, title, markdown(averaged(found[title])))
    told = f"Scale {chosen.scale}, seeds {chosen.first} to {chosen.first + chosen.seeds - 1}."
    sections = [f"### {title}\n\n{markdown(averaged(rows))}" for title, rows in found.items()]
    text = "\n\n".join([told, *sections])
    print(text)
    if chosen.out:
        chosen.out.write_text(f"<!-- made by benchmarks/ratings_effects.py -->\n\n{text}\n")


def rated(setup: Setup) -> Seed:
    """The pool's answers with marks, critiques and overall scores."""
    start, method = started(setup), UltraFeedback.at(setup.scale).seeded(setup.seed)
    prompts = FARM.mix(start.instructions, start.source, method.mixture)
    answers = method.answers(FARM, start, prompts)
    # Pairs by the overall score ask for both judges.
    both = method.learning.replace(pairs=Binarisation(name="h4"))
    return Seed(setup, start, method, answers, method.replace(learning=both).rated(FARM, answers))


def averaged(rows: list[Row]) -> list[dict[str, object]]:
    """Rows with the same first cell as one: means over seeds, with their standard error."""
    first = next(iter(rows[0]))
    same: dict[object, list[Row]] = {}
    for row in rows:
        same.setdefault(row[first], []).append(row)
    return [
        {first: name, **{key: _over([row[key] for row in some]) for key in some[0] if key != first}}
        for name, some in same.items()
    ]


def _over(figures: list[float | None]) -> str:
    known = [figure for figure in figures if figure is not None]
    if not known:
        return ""
    digits = 0 if all(isinstance(figure, int) for figure in known) else 3
    if len(known) == 1:
        return f"{known[0]:.{digits}f}"
    error = stdev(known) / len(known) ** 0.5
    return f"{mean(known):.{digits}f} ± {error:.{digits}f}"


def pool(seed: Seed) -> list[Row]:
    """Of each responder how good its answers are, and how they were marked."""
    truth = store().read(FARM.score(seed.answers, Truth())).select(*ANSWER, "score")
    who = store().read(seed.answers).select(*ANSWER, "responder")
    marked = store().read(seed.ratings).select(*ANSWER, "fine", "overall", "output")
    rows = who.join(truth, on=ANSWER).join(marked, on=ANSWER)
    made = rows.group_by("responder").agg(
        answers=pl.len(),
        utility=pl.col("score").mean(),
        fine=pl.col("fine").mean(),
        overall=pl.col("overall").mean(),
        characters=pl.col("output").str.len_chars().mean(),
    )
    whole = {
        "responder": "correlation with utility",
        **dict.fromkeys(("answers", "utility")),
        **{name: _correlation(rows, name) for name in ("fine", "overall")},
        "characters": _correlation(rows.with_columns(n=pl.col("output").str.len_chars()), "n"),
    }
    return [*made.sort("utility").to_dicts(), whole]


def _correlation(rows: pl.DataFrame, name: str) -> float:
    return float(rows.select(pl.corr(name, "score")).item() or 0.0)


def binarisations(seed: Seed) -> list[Row]:
    """Of each way to make pairs how many, how clear, and how often the truth agrees."""
    truth = store().read(FARM.score(seed.answers, Truth())).select(*PROMPT, "output", "score")
    known = truth.unique([*PROMPT, "output"])
    rows = []
    for way in WAYS:
        table = FARM.rank(seed.ratings, Binarisation(name=way))
        pairs = store().read(table)
        for side in ("1", "2"):
            pairs = pairs.join(
                known.rename({"output": f"output_{side}", "score": f"truth_{side}"}),
                on=[*PROMPT, f"output_{side}"],
                maintain_order="left",
            )
        apart = pairs.filter(pl.col("truth_1") != pl.col("truth_2"))
        right = apart["truth_1"] > apart["truth_2"]
        rows.append(
            {
                "pairs": way,
                "rows": pairs.height,
                "prompts without": store().manifest(table).notes["prompts_without_pair"],
                "gap": pairs["gap"].mean(),
                "as the truth has them, %": 100 * right.sum() / max(1, right.len()),
                "utility of chosen": pairs["truth_1"].mean(),
                "utility of rejected": pairs["truth_2"].mean(),
            }
        )
    return rows


def fits(seed: Seed) -> Iterator[tuple[str, Preferences, Fitting]]:
    """The reward models that are compared: their pairs, and how they are fitted."""
    plain = seed.method.learning.ppo.fitting.replace(margin=None)
    margin = plain.replace(margin=Margin())
    yield "panel labels", seed.start.preferences, plain
    for way in ("argilla", "argilla-multi", "all-pairs", "best-worst", "h4"):
        yield way, FARM.rank(seed.ratings, Binarisation(name=way)), plain
    for way in ("argilla", "all-pairs"):
        yield f"{way}, margin", FARM.rank(seed.ratings, Binarisation(name=way)), margin


def rewards(seed: Seed) -> list[Row]:
    """Of each reward model how often it is right, on its own held-out pairs and on fresh ones."""
    prompts = FARM.instructions(seed.setup.source, "val", seed.setup.sizes.val)
    answers = FARM.generate(seed.start.policy, prompts, _sampling(seed, 2 * PAIRS))
    truth = margins(answers, Truth())
    long = margins_of(store().read(answers).with_columns(score=pl.col("output").str.len_chars()))
    rows = []
    for name, pairs, fitting in fits(seed):
        reward = FARM.fit_reward(seed.start.policy, pairs, fitting)
        notes = _notes(reward)
        rows.append(
            {
                "pairs": name,
                "rows": notes["rows"] + notes["held_out_rows"],
                "held-out, %": 100 * (notes["accuracy"] or 0.0),
                "longer there, %": 100 * (notes["length_accuracy"] or 0.0),
                "fresh pairs as the truth, %": share(margins(answers, reward), truth),
                "longer of those, %": share(long, truth),
            }
        )
    return rows


def _notes(artifact: Any) -> dict[str, Any]:
    return dict(store().manifest(artifact).notes)


def _sampling(seed: Seed, n: int) -> Sampling:
    sizes = seed.setup.sizes
    return Sampling(
        n=n, temperature=sizes.temperature, max_tokens=sizes.max_tokens, seed=seed.setup.seed + 1
    )


def share(guess: pl.DataFrame, known: pl.DataFrame) -> float:
    """Percent of the pairs that are apart in both which are in the same order."""
    both = guess.join(known, on=PAIR, suffix="_known")
    apart = both.filter(pl.col("margin_known") != 0, pl.col("margin") != 0)
    right = apart["margin"].sign() == apart["margin_known"].sign()
    return 100 * int(right.sum()) / max(1, right.len())


def best_of_n(seed: Seed) -> list[Row]:
    """Mean true utility of the best of n by each reward model, on the validation prompts."""
    prompts = FARM.instructions(seed.setup.source, "val", seed.setup.sizes.val)
    answers = FARM.generate(seed.start.policy, prompts, _sampling(seed, POOL))
    gold = store().read(FARM.score(answers, Truth())).select(*ANSWER, gold="score")
    rows = []
    for name, pairs, fitting in fits(seed):
        if name not in ("panel labels", "all-pairs", "all-pairs, margin"):
            continue
        reward = FARM.fit_reward(seed.start.policy, pairs, fitting)
        both = store().read(FARM.score(answers, reward)).join(gold, on=ANSWER)
        pools = [(each["score"].to_list(), each["gold"].to_list()) for _, each in
                 both.group_by(PROMPT, maintain_order=True)]  # fmt: skip
        rows.append(
            {
                "reward model of": name,
                **{f"n = {n}": mean(expected_best_of_n(*each, n) for each in pools) for n in SIZES},
            }
        )
    return rows


def learners(seed: Seed) -> list[Row]:
    """True utility on the evaluation prompts of what is made of the ratings, paired with SFT."""
    start, scale = seed.start, seed.setup.scale
    methods: dict[str, Method] = {
        "DPO on panel labels": DPO.at(scale).seeded(seed.setup.seed),
        **{f"ratings, {by}": learning_by(seed.method, by) for by in LEARNERS},
    }
    worth = {"SFT": _utilities(start.policy, seed.setup)}
    for name, method in methods.items():
        worth[name] = _utilities(method.optimise(FARM, start), seed.setup)
    sft = worth["SFT"]
    rows = []
    for name, table in worth.items():
        both = table.join(sft, on=PROMPT, suffix="_sft")
        change = (both["score"] - both["score_sft"]).to_list()
        rows.append(
            {
                "policy": name,
                "utility": table["score"].mean(),
                "to SFT": mean(change),
                "its error over prompts": stdev(change) / len(change) ** 0.5,
                "characters": table["length"].mean(),
            }
        )
    return rows


def learning_by(method: UltraFeedback, by: Learner) -> UltraFeedback:
    """The same with another use of the ratings."""
    return method.replace(learning=method.learning.replace(by=by))


def _utilities(policy: Policy, setup: Setup) -> pl.DataFrame:
    rows = store().read(FARM.score(answered(policy, setup), Truth()))
    return rows.select(*PROMPT, "score", length=pl.col("output").str.len_chars())


def board(seed: Seed) -> list[Row]:
    """The method's row beside SFT and DPO, against the reference, by the judges."""
    at = seed.setup.scale
    methods = [type(seed.method).at(at), DPO.at(at)]
    rows = store().read(ranked([SFT.at(at), *methods], seed.setup)).to_dicts()
    names = {
        "win_rate": "win rate, %",
        "standard_error": "error",
        "win_rate_minus_sft": "to SFT",
        "paired_error": "paired error",
        "utility": "utility",
        "price": "judging, $",
    }
    return [{"model": row["model"], **{names[key]: row[key] for key in names}} for row in rows]


def prices(seed: Seed) -> list[Row]:
    """What the judges cost, with all that was bought before at its price."""
    critics = seed.method.critics()
    critiques = FARM.critique(seed.answers, critics)
    raw = FARM.rate(seed.answers, seed.method.rating_panel())
    stages: dict[str, Artifact] = {
        "panel labels of pairs": seed.start.preferences,
        "marks of four aspects": raw,
        "critiques": critiques,
    }
    rows = []
    for name, table in stages.items():
        read = store().read(table)  # type: ignore[arg-type]
        rows.append(
            {
                "bought": name,
                "rows": read.height,
                "dollars": read["price"].sum(),
                "dollars a thousand rows": 1000 * read["price"].sum() / read.height,
            }
        )
    return rows


TABLES: dict[str, Callable[[Seed], list[Row]]] = {
    "The pool: true utility, and the judge's marks": pool,
    "Pairs of the same ratings, seven ways": binarisations,
    "Reward models": rewards,
    "True utility of best-of-n, unbiased over one pool of 32 answers a prompt": best_of_n,
    "What is made of the ratings": learners,
    "Against the reference, by the judges": board,
    "Prices": prices,
}


if __name__ == "__main__":
    main()
