"""ToyFarm: every verb of the farm in memory, so that the methods' own files run on toy worlds.

Tables are frames with the columns of the real ones; choosing, pairing and sharing are the farm's
own functions. Only what needs a model is done otherwise: answers are drawn from tables of logits,
a reward model is linear in how much of an answer each token is, and `train` takes `steps` steps of
Adam whatever the objective's `training` says. The prompt "<world> <number>" is of group
number % 4; its `dataset` is the number of its world.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import polars as pl
import torch
from torch import Tensor

from alpacafarm_core import interactions as users
from alpacafarm_core import pairs, select
from alpacafarm_core.artifacts import (
    Artifact,
    Candidates,
    Comparisons,
    Demonstrations,
    Graded,
    Guided,
    Instructions,
    Interactions,
    Preferences,
    Ranked,
    Scores,
    Table,
)
from alpacafarm_core.conditioning import ConditionedObjective
from alpacafarm_core.farm import Judge, Start
from alpacafarm_core.interactions import Guidance
from alpacafarm_core.objective import Objective
from alpacafarm_core.proximal import OnlineObjective
from alpacafarm_core.select import PROMPT
from alpacafarm_core.settings import Fitting, Pairing, Ranking, Rule, Sampling
from alpacafarm_core.setup import Source
from alpacafarm_core.values import Value
from alpacafarm_core.weights import BestOf, Implicit, Policy, RewardModel, Tagged
from benchmarks.toy_online import imitated, improved
from benchmarks.toy_tables import answered, first, fitted, prompts, with_gold
from benchmarks.toy_training import Data, Lesson, Stage, staged, trained
from benchmarks.toy_users import hints, talks
from benchmarks.toy_world import (
    Answers,
    behind,
    drawn,
    expected_gold,
    first_tables,
    gold,
    groups_of,
    grown,
    sums,
    true_weights,
    worlds_of,
    worth,
)

A = TypeVar("A", bound=Artifact)
PAIRS, ROUNDS, LIKED = 512, 3, 24
PLAIN = Sampling(temperature=1.0)


class Toy(Value):
    """What a toy run is like."""

    worlds: int = 8
    steps: int = 300
    pairs: int = PAIRS
    flip: float = 0.1
    judge: Literal["fitted", "gold"] = "fitted"
    sharpness: float = 2.0
    noise: float = 0.0


class ToyFarm:
    """Every verb that a method asks for, what they begin from, and each training, in order."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.stages: list[Stage] = []
        self.held: dict[str, Any] = {}
        self.start = self._started()

    def share(self, instructions: Instructions, number: int, of: int) -> Instructions:
        """One of `of` parts of every world's prompts."""
        return self._keep(
            Instructions, self._apart(instructions, lambda rows: select.shared(rows, number, of))
        )

    def labels(self, preferences: Preferences, number: int, of: int) -> Preferences:
        """The labels of one of `of` parts of every world's prompts."""
        return self._keep(
            Preferences, self._apart(preferences, lambda rows: select.shared(rows, number, of))
        )

    def generate(
        self, policy: Policy, instructions: Instructions | Demonstrations, sampling: Sampling
    ) -> Candidates:
        """Answers of a table, or the best of many by a reward model."""
        if isinstance(policy.decode, BestOf):
            return self._best(policy, policy.decode, instructions, sampling)
        rows = self.held[instructions.folder].select(pl.col(*PROMPT, "dataset", "^prompt$"))
        rows = rows.with_columns(sample_index=pl.lit(list(range(sampling.n)))).explode(
            "sample_index"
        )
        logits = self._table(policy)[worlds_of(rows), groups_of(rows)] + hints(rows)
        ids, mask = drawn(logits / max(sampling.temperature, 1e-4), sampling.top_p, self._draw())
        return self._keep(Candidates, answered(rows, ids, mask, sampling))

    def score(self, candidates: Candidates, judge: Judge) -> Scores:
        """A number for each answer."""
        rows = self.held[candidates.folder]
        numbers = self._numbers(Answers.of(rows, "output"), judge)
        scored = rows.with_columns(
            score=pl.Series(numbers.tolist(), dtype=pl.Float64), judge=pl.lit("toy")
        )
        return self._keep(Scores, scored)

    def select(self, scored: Scores | Preferences, rule: Rule) -> Demonstrations:
        """The answers worth imitating."""
        return self._keep(Demonstrations, select.select(self.held[scored.folder], rule))

    def compare(self, candidates: Candidates, judge: Judge) -> Comparisons:
        """Every answer to a prompt against every other, by their scores."""
        scored = self.held[self.score(candidates, judge).folder]
        return self._keep(Comparisons, pairs.compared(scored))

    def rank(self, scored: Scores | Comparisons, ranking: Pairing) -> Ranked:
        """Pairs of answers to one prompt, by their numbers."""
        return self._keep(Ranked, pairs.paired(self.held[scored.folder], ranking))

    def grade(self, preferences: Preferences) -> Graded:
        """Both answers of each pair behind a reward token."""
        return self._keep(Graded, select.graded(self.held[preferences.folder]))

    def interactions(self, source: Source, size: int) -> Interactions:
        """Conversations about the start's answers."""
        answers = self.generate(self.start.policy, self.start.instructions, PLAIN.replace(n=8))
        return self._keep(Interactions, talks(with_gold(self.held[answers.folder])))

    def guided(self, interactions: Interactions, guidance: Guidance) -> Guided:
        """Prompts to answer anew, seeing the complaint."""
        return self._keep(Guided, users.guided(self.held[interactions.folder], guidance))

    def corrected(
        self, interactions: Interactions, better: Candidates | None = None
    ) -> Preferences:
        """Disliked answers against fresh ones, or those that users went on to accept."""
        rows = self.held[interactions.folder]
        if better is None:
            return self._keep(Preferences, users.accepted(rows))
        return self._keep(Preferences, users.corrected(rows, self.held[better.folder]))

    def prefer(self, chosen: Demonstrations, rejected: Candidates) -> Preferences:
        """Pairs whose order is known without a judge."""
        both = self.held[chosen.folder], self.held[rejected.folder]
        return self._keep(Preferences, select.prefer(*both))

    def fit_reward(self, policy: Policy, preferences: Preferences, fitting: Fitting) -> RewardModel:
        """Weights of tokens by logistic regression on the pairs, or twice the true ones."""
        if self.toy.judge == "gold":
            return self._keep(RewardModel, self.toy.sharpness * true_weights(self.toy.worlds))
        return self._keep(RewardModel, fitted(Data.of(self.held[preferences.folder])))

    def train(
        self,
        policy: Policy,
        data: Demonstrations | Preferences,
        objective: Objective,
        reference: Policy | None = None,
    ) -> Policy:
        """A table trained on fixed data."""
        learned = Data.of(self.held[data.folder])
        start = grown(self.held[policy.folder], learned.chosen)
        frozen = grown(self.held[(reference or policy).folder], learned.chosen)
        lesson = Lesson.of(objective, learned, frozen)
        end = trained(start, lesson, self.toy.steps, self._draw())
        self.stages.append(staged(start, end, lesson))
        return self._keep(Policy, end)

    def roll_out(
        self,
        policy: Policy,
        reward: RewardModel,
        instructions: Instructions,
        objective: OnlineObjective | ConditionedObjective,
        reference: Policy | None = None,
        ref_rewards: Scores | None = None,
    ) -> Policy:
        """A table trained on its own answers and a reward model's scores of them, as they are."""
        tables = self.held[policy.folder], self.held[reward.folder]
        if isinstance(objective, ConditionedObjective):
            end = imitated(*tables, objective, self.toy.steps, self._draw())
        else:
            end = improved(*tables, objective, self.toy.steps, self._draw())
        return self._keep(Policy, end)

    def gold_of(self, policy: Policy) -> Tensor:
        """True reward that a policy expects in each world, [S]; of the best of many, a mean."""
        if not isinstance(policy.decode, BestOf):
            return expected_gold(self._table(policy))
        asked = self._keep(Instructions, prompts(self.toy.worlds, self.toy.pairs))
        rows = self.held[self.generate(policy, asked, PLAIN).folder]
        return self.means(rows, gold(Answers.of(rows, "output")))

    def _started(self) -> Start:
        """Two policies, prompts, labelled pairs of the start's answers, and its best answers."""
        base, policy = (self._keep(Policy, table) for table in first_tables(range(self.toy.worlds)))
        asked = self._keep(Instructions, prompts(self.toy.worlds, self.toy.pairs * ROUNDS))
        answers = self.held[self.generate(policy, asked, PLAIN.replace(n=2)).folder]
        labels = self._labelled(answers)
        liked = first(with_gold(answers).filter(pl.col("score") >= 0.5), LIKED)
        return Start(
            base=base,
            policy=policy,
            instructions=asked,
            demonstrations=self._keep(Demonstrations, liked.select(list(Demonstrations.columns))),
            preferences=self._keep(Preferences, first(labels, self.toy.pairs)),
        )

    def means(self, rows: pl.DataFrame, numbers: Tensor) -> Tensor:
        """Mean of the rows of each world, [S]."""
        totals = torch.zeros(self.toy.worlds).index_add(0, worlds_of(rows), numbers)
        return totals / torch.bincount(worlds_of(rows))

    def _table(self, policy: Policy) -> Tensor:
        """The logits with which a policy answers, [S, group, position, token]."""
        tag = policy.decode.tag if isinstance(policy.decode, Tagged) else None
        return behind(self.held[policy.folder], tag)

    def _best(self, policy: Policy, decode: BestOf, asked: Table, sampling: Sampling) -> Candidates:
        """As `generate`; one answer a prompt."""
        draws = sampling.replace(n=decode.n, temperature=decode.temperature, top_p=decode.top_p)
        plain = Policy(key=policy.key)
        scored = self.score(self.generate(plain, asked, draws), decode.reward)
        kept = self.held[scored.folder].sort("score", descending=True, maintain_order=True)
        kept = kept.unique(PROMPT, keep="first", maintain_order=True)
        rows = kept.select(list(Candidates.columns)).with_columns(sample_index=pl.lit(0))
        return self._keep(Candidates, rows)

    def _numbers(self, answers: Answers, judge: Judge) -> Tensor:
        """What a judge gives each answer, [N]."""
        if isinstance(judge, Implicit):
            policy, reference = self.held[judge.policy.folder], self.held[judge.reference.folder]
            return sums(policy, answers) - sums(reference, answers)
        if not isinstance(judge, RewardModel):
            return gold(answers)
        exact = worth(self.held[judge.folder], answers)
        return exact + self.toy.noise * torch.randn(exact.shape, generator=self._draw())

    def _labelled(self, answers: pl.DataFrame) -> pl.DataFrame:
        """The two answers to each prompt as a pair labelled by gold; some labels are turned."""
        rows = pairs.ranked(with_gold(answers), Ranking()).select(list(Preferences.columns))
        flipped = torch.rand(rows.height, generator=self._draw()) < self.toy.flip
        return rows.with_columns(
            preference=pl.Series((1.0 + flipped.double()).tolist()), annotator=pl.lit("gold")
        )

    def _apart(
        self, table: Artifact, change: Callable[[pl.DataFrame], pl.DataFrame]
    ) -> pl.DataFrame:
        """The table with each world's rows changed by themselves."""
        worlds = self.held[table.folder].partition_by("dataset", maintain_order=True)
        return pl.concat([change(rows) for rows in worlds])

    def _draw(self) -> torch.Generator:
        """Fresh draws, the same for a farm that was asked the same before."""
        return torch.Generator().manual_seed(1000 + len(self.held))

    def _keep(self, kind: type[A], content: Any) -> A:
        """The receipt of something made."""
        made = kind(key=f"{len(self.held):016x}")
        self.held[made.folder] = content
        return made
