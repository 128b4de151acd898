"""RLP on the built-in world: reward models fitted again on a policy's answers, and their policies.

    python -m benchmarks.relearning_effects [--seeds 1] [--scale small] [--out docs/relearning.md]

Prints Markdown tables, the toy's last. A reward model is asked about fresh answers of the policy
that PPO made with the fixed one: which of two is better in truth, where they differ, and which of
16 is best. New labels are right where the chosen answer has the higher true utility. Differences
are paired: over prompts within a seed, over seeds where there are several. With `--out` the tables
replace what stands below the mark in that file.
"""

import argparse
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import polars as pl

import tasks
from alpacafarm_core.artifacts import Candidates, Preferences, Scores
from alpacafarm_core.clustering import Agreement, Canonical, Clustering, Exact, Overlap
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.methods.rlp import RLP
from alpacafarm_core.panel import load
from alpacafarm_core.settings import Ranking, Truth
from alpacafarm_core.setup import Setup
from alpacafarm_core.weights import Policy, Reward
from alpacafarm_core.world.understanding import understand
from alpacafarm_core.world.utility import utility
from benchmarks.toy_relearning import markdown, tables
from flows.evaluate import evaluated
from flows.prepare import started
from tasks.stage import store

FARM: Farm = tasks
MARK = "<!-- made by benchmarks/relearning_effects.py -->"
FIXED, SPG, RANDOM, UML = "fixed", "SPG, argmax", "SPG, random winner", "UML"
PROMPT = ["instruction", "input"]
FRESH = 16
CLUSTERINGS: Mapping[str, Clustering] = {
    "what the world reads": Canonical(),
    "equal words": Exact(),
    "content words, 0.8": Overlap(),
    "content words, 0.5": Overlap(threshold=0.5),
}


class Scene(NamedTuple):
    """One seed: where all begins, the fixed reward model, its policy, and that one's answers."""

    setup: Setup
    method: RLP
    start: Start
    reward: Reward
    policy: Policy
    scored: Scores

    @classmethod
    def of(cls, setup: Setup) -> "Scene":
        """Everything up to the first policy, as the method makes it."""
        method = RLP.at(setup.scale).seeded(setup.seed)
        start = started(setup)
        reward = FARM.fit_reward(start.policy, start.preferences, method.fitting)
        policy = method.improved(FARM, start, reward)
        answers = FARM.generate(policy, start.instructions, method.sampling)
        return cls(setup, method, start, reward, policy, FARM.score(answers, reward))

    def pairs(self, agreement: Agreement, clustering: Clustering | None = None) -> Preferences:
        """The pairs that agreement makes of the policy's answers."""
        clusters = FARM.cluster(self.scored, clustering or self.method.clustering)
        return FARM.rank(clusters, agreement)

    def two(self) -> Candidates:
        """Two answers of the policy to each prompt."""
        sampling = self.method.sampling.replace(n=2, seed=self.setup.seed + 1)
        return FARM.generate(self.policy, self.start.instructions, sampling)

    def fresh(self) -> Candidates:
        """Answers of the policy that nothing was learned from."""
        prompts = FARM.instructions(self.setup.source, "val", self.setup.sizes.val)
        return FARM.generate(self.policy, prompts, self.method.sampling.replace(n=FRESH))


def own_ranking(scene: Scene) -> Preferences:
    """Two answers in the order of the fixed reward model."""
    return FARM.rank(FARM.score(scene.two(), scene.reward), Ranking())


def annotated(scene: Scene) -> Preferences:
    """Two answers labelled by the panel that labelled the start's."""
    setup, two = scene.setup, scene.two()
    return FARM.annotate(two, two, load(setup.panel, setup.flip, setup.seed))


def known(scene: Scene) -> Preferences:
    """Two answers in their true order."""
    return FARM.rank(FARM.score(scene.two(), Truth()), Ranking())


def by(**settings: object) -> Callable[[Scene], Preferences]:
    """Pairs by the method's agreement, some settings changed."""
    return lambda scene: scene.pairs(scene.method.agreement.replace(**settings))


LABELS: Mapping[str, Callable[[Scene], Preferences] | None] = {
    FIXED: None,
    "two, ranked by itself": own_ranking,
    SPG: by(),
    RANDOM: by(winner="random"),
    "all prompts, argmax": by(gamma=0.0),
    UML: None,
    "two, the panel's labels": annotated,
    "two, true order": known,
}


def fitted(scene: Scene, name: str) -> tuple[Reward, Preferences | None]:
    """A reward model of the table, and its new labels."""
    start, fitting = scene.start, scene.method.fitting
    if name == FIXED:
        return scene.reward, None
    make = LABELS[name]
    if make is None:
        answers = FARM.generate(scene.policy, start.instructions, scene.method.sampling)
        return FARM.fit_reward(start.policy, start.preferences, fitting, answers), None
    labels = make(scene)
    both = FARM.unite((start.preferences, labels))
    return FARM.fit_reward(start.policy, both, fitting), labels


class Figures(NamedTuple):
    """Of one reward model: accuracy and utility of its best answer by prompt, and its labels'."""

    right: dict[tuple[str, ...], float]
    best: dict[tuple[str, ...], float]
    pairs: int
    labels: float | None
    longer: float | None


def measured(scene: Scene, name: str) -> Figures:
    """A reward model asked about fresh answers of the policy."""
    reward, labels = fitted(scene, name)
    keys = [*PROMPT, "sample_index"]
    truth = store().read(FARM.score(scene.fresh(), Truth())).select(*keys, gold="score")
    rows = store().read(FARM.score(scene.fresh(), reward)).join(truth, on=keys)
    told = None if labels is None else truths(store().read(labels))
    return Figures(
        right=accuracy(rows),
        best=top(rows),
        pairs=0 if told is None else told.height,
        labels=None if told is None else share_right(told),
        longer=None if told is None else mean_of(told["length_1"] - told["length_2"]),
    )


def accuracy(rows: pl.DataFrame) -> dict[tuple[str, ...], float]:
    """By prompt the share of neighbouring answers, of different truth, in the right order."""
    pair = [*PROMPT, pl.col("sample_index") // 2]
    sides = rows.sort("sample_index").group_by(pair, maintain_order=True).agg("score", "gold")
    apart = sides.filter(pl.col("gold").list.n_unique() > 1).with_columns(
        right=(pl.col("score").list.diff().list.last().sign()
               == pl.col("gold").list.diff().list.last().sign())
    )  # fmt: skip
    return by_prompt(apart.group_by(PROMPT).agg(pl.col("right").cast(float).mean()), "right")


def top(rows: pl.DataFrame) -> dict[tuple[str, ...], float]:
    """By prompt the true utility of the answer with the highest score."""
    best = rows.sort("score", descending=True, maintain_order=True).unique(PROMPT, keep="first")
    return by_prompt(best, "gold")


def by_prompt(rows: pl.DataFrame, column: str) -> dict[tuple[str, ...], float]:
    """A column by prompt, in an order of its own."""
    made = rows.sort(PROMPT).select(*PROMPT, column).iter_rows()
    return {prompt: value for *prompt_, value in made for prompt in [tuple(prompt_)]}


def truths(labels: pl.DataFrame) -> pl.DataFrame:
    """Decided labels with the true utilities of the chosen and of the other answer, and lengths."""
    first = pl.col("preference") < 1.5
    decided = labels.filter(pl.col("preference") != 1.5).with_columns(
        chosen=pl.when(first).then("output_1").otherwise("output_2"),
        other=pl.when(first).then("output_2").otherwise("output_1"),
    )
    sides = {
        f"gold_{number}": [utility(*row) for row in decided.select(*PROMPT, side).iter_rows()]
        for number, side in ((1, "chosen"), (2, "other"))
    }
    return decided.with_columns(
        *(pl.Series(name, held, dtype=pl.Float64) for name, held in sides.items()),
        length_1=pl.col("chosen").str.len_chars().cast(float),
        length_2=pl.col("other").str.len_chars().cast(float),
    )


def share_right(told: pl.DataFrame) -> float | None:
    """Share of labels whose chosen answer is better in truth, equal ones left out."""
    apart = told.filter(pl.col("gold_1") != pl.col("gold_2"))
    return mean_of(apart["gold_1"] > apart["gold_2"])


def mean_of(values: pl.Series) -> float | None:
    """The mean of numbers or truths; None where there are none."""
    return float(values.cast(float).mean()) if len(values) else None  # type: ignore[arg-type]


def reward_models(found: Sequence[Mapping[str, Figures]]) -> str:
    """The table of reward models."""
    head = ["reward model", "new pairs", "labels right %", "chosen longer by",
            "right order %", "to fixed", "utility of best of 16", "to fixed"]  # fmt: skip
    rows = []
    for name in found[0]:
        each = [seed[name] for seed in found]
        fixed = [seed[FIXED] for seed in found]
        rights = [(one.right, other.right) for one, other in zip(each, fixed, strict=True)]
        bests = [(one.best, other.best) for one, other in zip(each, fixed, strict=True)]
        rows.append(
            [
                name,
                plain([float(one.pairs) for one in each if one.pairs], 1, 0),
                plain([one.labels for one in each if one.labels is not None], 100, 1),
                plain([one.longer for one in each if one.longer is not None], 1, 1),
                plain([fmean(one.right.values()) for one in each], 100, 1),
                "" if name == FIXED else difference(rights, 100, 1),
                plain([fmean(one.best.values()) for one in each], 1, 3),
                "" if name == FIXED else difference(bests, 1, 3),
            ]
        )
    return markdown(head, rows)


def plain(values: Sequence[float], factor: float, digits: int) -> str:
    """A mean over seeds."""
    return f"{factor * fmean(values):.{digits}f}" if values else ""


By = dict[tuple[str, ...], float]


def difference(pairs: Sequence[tuple[By, By]], factor: float, digits: int) -> str:
    """Mean difference of paired figures with its error: over seeds, or over prompts of one."""
    gaps = [[one[prompt] - other[prompt] for prompt in one] for one, other in pairs]
    each = [fmean(gap) for gap in gaps] if len(gaps) > 1 else gaps[0]
    error = stdev(each) / len(each) ** 0.5
    return f"{factor * fmean(each):+.{digits}f} ± {factor * error:.{digits}f}"


def families(scenes: Sequence[Scene]) -> str:
    """Agreement, acceptance and right labels by family of instructions, most agreement first."""
    frames = []
    for scene in scenes:
        clusters = store().read(FARM.cluster(scene.scored, scene.method.clustering))
        pairs = truths(store().read(scene.pairs(scene.method.agreement)))
        prompts = clusters.unique(PROMPT).select(*PROMPT, "confidence")
        frames.append(
            prompts.join(pairs.select(*PROMPT, "gold_1", "gold_2"), on=PROMPT, how="left")
        )
    rows = pl.concat(frames).with_columns(
        family=pl.struct(PROMPT).map_elements(family, return_dtype=pl.String)
    )
    made = [
        [str(name), str(some.height), f"{mean_of(some['confidence']):.2f}",
         plain([mean_of(some["gold_1"].is_not_null()) or 0.0], 100, 0),
         plain([right] if (right := share_right(some.drop_nulls())) is not None else [], 100, 0)]
        for (name,), some in rows.group_by("family")
    ]  # fmt: skip
    head = ["family", "prompts", "mean agreement", "accepted %", "labels right %"]
    return markdown(head, sorted(made, key=lambda row: row[2], reverse=True))


def family(prompt: Mapping[str, str]) -> str:
    """The family of an instruction, as the world reads it."""
    task = understand(prompt["instruction"], prompt["input"])
    return task.family if task else "not understood"


def clusterings(scenes: Sequence[Scene]) -> str:
    """How much is accepted and right, by what counts as the same."""
    rows = []
    for name, clustering in CLUSTERINGS.items():
        found = [store().read(scene.pairs(scene.method.agreement, clustering)) for scene in scenes]
        prompts = [store().read(scene.start.instructions).height for scene in scenes]
        shares = [each.height / count for each, count in zip(found, prompts, strict=True)]
        labels = [right for each in found if (right := share_right(truths(each))) is not None]
        rows.append([name, plain(shares, 100, 1), plain(labels, 100, 1)])
    return markdown(["the same are answers with", "accepted %", "labels right %"], rows)


def policies(scene: Scene) -> Iterator[tuple[str, dict[str, object]]]:
    """Every policy beside SFT on the leaderboard of one seed, as the method makes them."""
    setup, start, method = scene.setup, scene.start, scene.method
    variants = {
        "sft": start.policy,
        "ppo": scene.policy,
        "rlp": method.optimise(FARM, start),
        "rlp, random winner": method.replace(
            agreement=method.agreement.replace(winner="random")
        ).optimise(FARM, start),
        "rlp, uml": method.replace(variant="uml").optimise(FARM, start),
    }
    board = FARM.tally({name: evaluated(policy, setup) for name, policy in variants.items()})
    yield from ((str(row["model"]), row) for row in store().read(board).to_dicts())


def standings(scenes: Sequence[Scene]) -> str:
    """The table of policies; differences to PPO are those of each seed."""
    boards = [dict(policies(scene)) for scene in scenes]
    head = ["policy", "win rate %", "to PPO", "utility", "to PPO", "characters"]
    rows = []
    for name in boards[0]:
        means = [
            plain([float(str(board[name][column])) for board in boards], 1, digits)
            for column, digits in (("win_rate", 1), ("utility", 3), ("avg_length", 0))
        ]
        to_ppo = [
            against([(board[name][column], board["ppo"][column]) for board in boards], digits)
            for column, digits in (("win_rate", 1), ("utility", 3))
        ]
        rows.append([name, means[0], to_ppo[0], means[1], to_ppo[1], means[2]])
    return markdown(head, rows)


def against(pairs: Sequence[tuple[object, object]], digits: int) -> str:
    """The mean difference; with its standard error where there are several seeds."""
    gaps = [float(str(one)) - float(str(other)) for one, other in pairs]
    error = f" ± {stdev(gaps) / len(gaps) ** 0.5:.{digits}f}" if len(gaps) > 1 else ""
    return f"{fmean(gaps):+.{digits}f}{error}"


def main() -> None:
    """Run every seed, print the tables, put them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--scale", choices=("smoke", "small"), default="small")
    parser.add_argument("--out", type=Path, help="page whose tables are replaced")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    scenes = [Scene.of(Setup(seed=seed, scale=asked.scale)) for seed in range(asked.seeds)]
    found = [{name: measured(scene, name) for name in LABELS} for scene in scenes]
    parts = {
        "Reward models asked about the policy's answers": reward_models(found),
        "Agreement by family": families(scenes),
        "What counts as the same": clusterings(scenes),
        "Policies": standings(scenes),
    }
    said = f"Scale {asked.scale}, {asked.seeds} seed{'s' * (asked.seeds > 1)} of the world."
    text = "\n\n".join([said, *(f"### {title}\n\n{table}" for title, table in parts.items()),
                        *tables(10)])  # fmt: skip
    print(text)
    if asked.out:
        by_hand = asked.out.read_text().split(MARK)[0] if asked.out.exists() else ""
        asked.out.write_text(f"{by_hand}{MARK}\n\n{text}\n")


if __name__ == "__main__":
    main()
