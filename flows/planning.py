"""A farm that makes nothing: it says what a run would make, buy and cost.

Keys are known before anything is made, so every stage of a flow can be named, and looked for in the
store, ahead. Tables that do not exist yet are imagined with the right prompts and answers as long
as the demonstrations', enough to draw judges and to count tokens.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from statistics import median
from typing import Any, NamedTuple, TypeVar

import polars as pl

import tasks
from alpacafarm_core import sources
from alpacafarm_core.annotate import outstanding, pair
from alpacafarm_core.artifacts import (
    Artifact,
    Candidates,
    Comparisons,
    Demonstrations,
    Graded,
    Guided,
    Instructions,
    Interactions,
    Leaderboard,
    Logps,
    Preferences,
    Ranked,
    Scores,
    Table,
)
from alpacafarm_core.conditioning import ConditionedObjective
from alpacafarm_core.estimate import Estimate, estimated
from alpacafarm_core.farm import Evaluation, Judge, Known
from alpacafarm_core.interactions import Guidance
from alpacafarm_core.interactions import guided as shown
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.method import Method
from alpacafarm_core.objective import Objective
from alpacafarm_core.panel import Panel
from alpacafarm_core.proximal import OnlineObjective
from alpacafarm_core.select import shared
from alpacafarm_core.settings import Fitting, Looking, Pairing, Rule, Sampling
from alpacafarm_core.setup import Pretrained, Setup, Source, Split
from alpacafarm_core.store import Store
from alpacafarm_core.weights import Policy, RewardModel
from flows.leaderboard import ranked
from tasks.stage import Stage, opened, root

A = TypeVar("A", bound=Artifact)
ORDER = (
    *("base", "instructions", "demonstrations", "published", "recorded", "train_policy"),
    *("share", "labels", "interactions", "guided", "corrected"),
    *(
        "generate",
        "annotate",
        "select",
        "grade",
        "rank",
        "prefer",
        "look",
        "fit_reward",
        "roll_out",
    ),
    *("score", "compare_scored", "tally"),
)
TYPICAL = 500
"""Demonstrations whose lengths stand for those of answers nobody has drawn yet."""


class Line(NamedTuple):
    """One stage of a plan; rows and seconds are None where nothing is known of them."""

    stage: str
    artifact: str
    state: str
    rows: int | None
    calls: int
    tokens: int
    usd_low: float
    usd_high: float
    seconds: float | None


def planned(methods: Sequence[Method], setups: Sequence[Setup]) -> dict[str, Any]:
    """The document of `alpacafarm plan`; nothing is asked, made or written."""
    with opened(root()) as (store, ledger):
        lines = [line for setup in setups for line in _lines(methods, setup, store, ledger)]
    return {
        "stages": [line._asdict() for line in lines],
        "usd_low": sum(line.usd_low for line in lines),
        "usd_high": sum(line.usd_high for line in lines),
        "calls": sum(line.calls for line in lines),
        "tokens": sum(line.tokens for line in lines),
        "seconds": sum(line.seconds or 0.0 for line in lines),
    }


def _lines(
    methods: Sequence[Method], setup: Setup, store: Store | None, ledger: Ledger
) -> list[Line]:
    planner = Planner(setup, store, ledger)
    ranked(methods, setup, planner)
    return sorted(planner.lines.values(), key=lambda line: (ORDER.index(line.stage), line.artifact))


class Planner:
    """A farm whose stages return their receipts and note what making them would take."""

    def __init__(self, setup: Setup, store: Store | None, ledger: Ledger) -> None:
        self.setup, self.store, self.ledger = setup, store, ledger
        self.lines: dict[str, Line] = {}
        self.tables: dict[str, pl.DataFrame] = {}
        self._pace = _pace(store)
        self._one_at_a_time = threading.RLock()

    def base(self, model: Pretrained) -> Policy:
        """A language model taken into the store."""
        return self._note(tasks.base, (model,))

    def instructions(self, source: Source, split: Split, size: int) -> Instructions:
        """Prompts of one split."""
        asked = (source, split, size)
        return self._note(tasks.instructions, asked, lambda: sources.instructions(*asked))

    def share(self, instructions: Instructions, number: int, of: int) -> Instructions:
        """One of several parts of the prompts."""
        asked = (instructions, number, of)
        return self._note(tasks.share, asked, lambda: shared(self._rows(instructions), number, of))

    def labels(self, preferences: Preferences, number: int, of: int) -> Preferences:
        """The labels of one of several parts of the prompts."""
        return self._note(tasks.labels, (preferences, number, of))

    def demonstrations(self, source: Source, size: int) -> Demonstrations:
        """Prompts of the sft split with answers to imitate."""
        asked = (source, size)
        return self._note(tasks.demonstrations, asked, lambda: sources.demonstrations(*asked))

    def published(self, source: Source, size: int) -> Candidates:
        """The reference's outputs."""
        asked = (source, size)
        return self._note(tasks.published, asked, lambda: sources.published(*asked))

    def interactions(self, source: Source, size: int) -> Interactions:
        """Answers and what their users made of them."""
        asked = (source, size)
        return self._note(tasks.interactions, asked, lambda: sources.interactions(*asked))

    def guided(self, interactions: Interactions, guidance: Guidance) -> Guided:
        """Prompts that show what was disliked."""
        return self._note(
            tasks.guided,
            (interactions, guidance),
            lambda: shown(self._rows(interactions), guidance),
        )

    def corrected(
        self, interactions: Interactions, better: Candidates | None = None
    ) -> Preferences:
        """Disliked answers against better ones."""
        return self._note(tasks.corrected, (interactions, better))

    def recorded(self, source: Source) -> Preferences:
        """Labels somebody recorded."""
        return self._note(tasks.recorded, (source,), lambda: sources.recorded(source))

    def generate(
        self, policy: Policy, instructions: Instructions | Demonstrations, sampling: Sampling
    ) -> Candidates:
        """Answers, imagined to be as long as demonstrations."""
        asked = (policy, instructions, sampling)
        return self._note(
            tasks.generate, asked, lambda: self._answers(self._rows(instructions), sampling)
        )

    def annotate(self, candidates: Candidates, rivals: Candidates, panel: Panel) -> Preferences:
        """Labels, and what buying those that the ledger lacks would cost."""
        return self._note(
            tasks.annotate,
            (candidates, rivals, panel),
            lambda: pair(self._rows(candidates), self._rows(rivals)),
            lambda pairs: estimated(outstanding(pairs, panel, self.ledger)),
        )

    def score(self, candidates: Candidates, judge: Judge) -> Scores:
        """A number for each answer."""
        return self._note(tasks.score, (candidates, judge), lambda: self._rows(candidates))

    def select(self, scored: Scores | Preferences, rule: Rule) -> Demonstrations:
        """The answers worth imitating."""
        return self._note(tasks.select, (scored, rule))

    def grade(self, preferences: Preferences) -> Graded:
        """Both answers of each decided pair."""
        return self._note(tasks.grade, (preferences,))

    def compare(self, candidates: Candidates, judge: Judge) -> Comparisons:
        """Every answer to a prompt against every other."""
        return self._note(tasks.compare_scored, (self.score(candidates, judge),))

    def rank(self, scored: Scores | Comparisons, ranking: Pairing) -> Ranked:
        """Pairs of answers to one prompt."""
        return self._note(tasks.rank, (scored, ranking))

    def prefer(self, chosen: Demonstrations, rejected: Candidates) -> Preferences:
        """Pairs whose order is known."""
        return self._note(tasks.prefer, (chosen, rejected), lambda: self._rows(rejected))

    def fit_reward(self, policy: Policy, preferences: Preferences, fitting: Fitting) -> RewardModel:
        """A reward model."""
        return self._note(tasks.fit_reward, (policy, preferences, fitting))

    def train(
        self,
        policy: Policy,
        data: Demonstrations | Preferences,
        objective: Objective,
        reference: Policy | None = None,
    ) -> Policy:
        """A policy trained on fixed data."""
        measure = reference or policy
        known = Known.of(measure, objective, lambda looking: self.look(measure, data, looking))
        return self._note(tasks.train_policy, (policy, data, objective, known))

    def look(self, policy: Policy, data: Demonstrations | Preferences, looking: Looking) -> Logps:
        """What a policy makes of every response."""
        return self._note(tasks.look, (policy, data, looking))

    def roll_out(
        self,
        policy: Policy,
        reward: RewardModel,
        instructions: Instructions,
        objective: OnlineObjective | ConditionedObjective,
        reference: Policy | None = None,
    ) -> Policy:
        """A policy trained on its own samples."""
        return self._note(tasks.roll_out, (policy, reward, instructions, objective, reference))

    def tally(self, evaluations: Mapping[str, Evaluation]) -> Leaderboard:
        """One row a model."""
        return self._note(tasks.tally, (evaluations,))

    def _note(
        self,
        stage: Stage[Any, A],
        asked: tuple[Any, ...],
        imagine: Callable[[], pl.DataFrame] | None = None,
        cost: Callable[[pl.DataFrame], Estimate] = lambda _: Estimate(),
    ) -> A:
        """The receipt of a stage; the first time it is met, also its line."""
        with self._one_at_a_time:
            artifact = stage.receipt(*asked)
            if artifact.folder not in self.lines:
                self.lines[artifact.folder] = self._line(stage.name, artifact, imagine, cost)
            return artifact

    def _line(
        self,
        stage: str,
        artifact: Artifact,
        imagine: Callable[[], pl.DataFrame] | None,
        cost: Callable[[pl.DataFrame], Estimate],
    ) -> Line:
        if self.store is not None and self.store.has(artifact):
            rows = self.store.manifest(artifact).rows
            return Line(stage, artifact.folder, "cached", rows, 0, 0, 0.0, 0.0, 0.0)
        table = None if imagine is None else imagine()
        if table is not None:
            self.tables[artifact.folder] = table
        rows, whole = (None, Estimate()) if table is None else (table.height, cost(table))
        seconds = self._seconds(stage, rows)
        return Line(stage, artifact.folder, "to do", rows, *whole[1:], seconds)

    def _rows(self, table: Table) -> pl.DataFrame:
        """What the table holds, or what it is imagined to hold."""
        if table.folder in self.tables or self.store is None:
            return self.tables[table.folder]
        return self.store.read(table)

    def _answers(self, prompts: pl.DataFrame, sampling: Sampling) -> pl.DataFrame:
        """A row each sample; texts of demonstrations stand for what will be answered."""
        typical = sources.demonstrations(self.setup.source, TYPICAL)["output"].to_list()
        drawn = prompts.with_columns(sample_index=pl.lit(list(range(sampling.n)))).explode(
            "sample_index"
        )
        # Told apart, because equal outputs are a tie that nobody is asked about.
        texts = [f"{text} {n}" for n, text in enumerate(islice(cycle(typical), drawn.height))]
        return pl.DataFrame(
            [
                drawn[name].cast(kind)
                if name in drawn.columns
                else pl.Series(name, texts, dtype=kind)
                if name == "output"
                else pl.Series(name, [None] * drawn.height, dtype=kind)
                for name, kind in Candidates.columns.items()
            ]
        )

    def _seconds(self, stage: str, rows: int | None) -> float | None:
        """By how long the same stage took before, for each row where it has rows."""
        known = self._pace.get(stage)
        return None if known is None else round(known * (rows or 1), 1)


def _pace(store: Store | None) -> dict[str, float]:
    """Median seconds of every stage in the store, a row where it has rows."""
    took: dict[str, list[float]] = {}
    for made in () if store is None else store.all():
        took.setdefault(made.recipe.stage, []).append(made.seconds / (made.rows or 1))
    return {stage: median(seconds) for stage, seconds in took.items()}
