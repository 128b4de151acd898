"""One seed of RLP on the built-in world: the reward models fitted again, and what each gets right.

A reward model is asked about fresh answers of the policy that PPO made with the fixed one: which of
two is better in truth, where they differ, and which of 16 is best. New labels are right where the
chosen answer has the higher true utility.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import polars as pl

import tasks
from alpacafarm_core.artifacts import Candidates, Preferences, Scores
from alpacafarm_core.clustering import Agreement, Clustering
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.methods.rlp import RLP
from alpacafarm_core.panel import load
from alpacafarm_core.settings import Ranking, Truth
from alpacafarm_core.setup import Setup
from alpacafarm_core.weights import Policy, Reward
from alpacafarm_core.world.understanding import understand
from alpacafarm_core.world.utility import utility
from flows.prepare import started
from tasks.stage import store

FARM: Farm = tasks
FIXED, SPG, RANDOM, UML = "fixed", "SPG, argmax", "SPG, random winner", "UML"
PROMPT = ["instruction", "input"]
FRESH = 16
By = dict[tuple[str, ...], float]
"""A figure by prompt."""


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

    right: By
    best: By
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


def accuracy(rows: pl.DataFrame) -> By:
    """By prompt the share of neighbouring answers, of different truth, in the right order."""
    pair = [*PROMPT, pl.col("sample_index") // 2]
    sides = rows.sort("sample_index").group_by(pair, maintain_order=True).agg("score", "gold")
    apart = sides.filter(pl.col("gold").list.n_unique() > 1).with_columns(
        right=(pl.col("score").list.diff().list.last().sign()
               == pl.col("gold").list.diff().list.last().sign())
    )  # fmt: skip
    return by_prompt(apart.group_by(PROMPT).agg(pl.col("right").cast(float).mean()), "right")


def top(rows: pl.DataFrame) -> By:
    """By prompt the true utility of the answer with the highest score."""
    best = rows.sort("score", descending=True, maintain_order=True).unique(PROMPT, keep="first")
    return by_prompt(best, "gold")


def by_prompt(rows: pl.DataFrame, column: str) -> By:
    """A column by prompt, in an order of its own."""
    held = rows.sort(PROMPT)
    return dict(zip(held.select(PROMPT).iter_rows(), held[column].to_list(), strict=True))


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


def family(prompt: Mapping[str, str]) -> str:
    """The family of an instruction, as the world reads it."""
    task = understand(prompt["instruction"], prompt["input"])
    return task.family if task else "not understood"
