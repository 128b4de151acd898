"""The farm: every stage on one page, and what each method starts from.

`tasks/` is one farm (cached, on Prefect when a server is there); the tests have another that only
writes down what it was asked. A reference policy that is not given is the policy a stage starts
from, so plain DPO is measured against its start and iterated methods refresh it without saying so.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from alpacafarm_core.artifacts import (
    Candidates,
    Clusters,
    Comparisons,
    Demonstrations,
    Graded,
    Guided,
    Instructions,
    Interactions,
    Leaderboard,
    Logps,
    Pooled,
    Preferences,
    Ranked,
    Scores,
)
from alpacafarm_core.assessors import Assessors
from alpacafarm_core.binarise import Binarisation
from alpacafarm_core.clustering import Agreement, Clustering
from alpacafarm_core.conditioning import ConditionedObjective
from alpacafarm_core.interactions import Guidance
from alpacafarm_core.mixture import Mixture
from alpacafarm_core.objective import Objective, view_of
from alpacafarm_core.opposing import Opposing
from alpacafarm_core.panel import Panel
from alpacafarm_core.proximal import OnlineObjective
from alpacafarm_core.ratings import Critiques, Ratings, Tags
from alpacafarm_core.responders import Drawing, Seat
from alpacafarm_core.settings import Fitting, Looking, Pairing, Rule, Sampling, Truth
from alpacafarm_core.setup import Pretrained, Source, Split, World
from alpacafarm_core.shaping import Penalties
from alpacafarm_core.synthesis import Synthesis, Synthetic
from alpacafarm_core.values import Value
from alpacafarm_core.weights import Committee, Implicit, Pairwise, Policy, Reward, RewardModel

Judging = RewardModel | Truth | Implicit
"""A judge that stands alone."""

Judge = Judging | Committee


class Start(Value):
    """What every method begins from; `policy` is the SFT model, trained from `base`.

    `source` is where all of it is from, for methods that begin from something more.
    """

    base: Policy
    policy: Policy
    instructions: Instructions
    demonstrations: Demonstrations
    preferences: Preferences
    source: Source = World()


class Evaluation(Value):
    """One model against the reference: its judged pairs, and the truth about them where known."""

    preferences: Preferences
    truth: Scores | None = None


class Known(Value):
    """What a training is told of its reference: how that judges the data, or the model itself."""

    given: Logps | None = None
    mismatched: Logps | None = None
    reference: Policy | None = None

    @classmethod
    def of(
        cls, reference: Policy, objective: Objective, look: Callable[[Looking], Logps]
    ) -> "Known":
        """What the objective's loss asks for; `look` has the reference look at the data."""
        names, longest = view_of(objective)._fields, objective.training.max_length
        asks, mixes = any(name.startswith("ref_") for name in names), "mixed_chosen" in names
        strange = "mismatch_kl" in names
        return cls(
            given=look(Looking(max_length=longest)) if asks else None,
            mismatched=(
                look(Looking(responses="mismatched", max_length=longest)) if strange else None
            ),
            reference=reference if mixes else None,
        )


class Farm(Protocol):
    """Every stage."""

    def base(self, model: Pretrained) -> Policy:
        """A language model from a folder or the hub, taken into the store."""

    def instructions(self, source: Source, split: Split, size: int) -> Instructions:
        """Prompts of one split."""

    def share(self, instructions: Instructions, number: int, of: int) -> Instructions:
        """One of `of` parts without a prompt in common, the first being number 1."""

    def mix(self, instructions: Instructions, source: Source, mixture: Mixture) -> Instructions:
        """So many prompts of each source, without those known from the evaluation."""

    def adopt(self, model: str) -> Policy:
        """A language model by its folder or hub name, as it lies there."""

    def draw(self, instructions: Instructions, drawing: Drawing, seat: Seat) -> Guided:
        """The prompts that one responder of a pool answers, each with its principle."""

    def write(self, prompts: Guided, source: Source, skill: float) -> Candidates:
        """Answers of a writer of the built-in world."""

    def gather(
        self, instructions: Instructions, drawing: Drawing, answers: tuple[Candidates, ...]
    ) -> Pooled:
        """All responders' answers as one table, in the order of the pool's names."""

    def labels(self, preferences: Preferences, number: int, of: int) -> Preferences:
        """The labels of one of `of` parts of the prompts, the first being number 1."""

    def demonstrations(self, source: Source, size: int, split: Split = "sft") -> Demonstrations:
        """Prompts with answers to imitate; those of the val split are for tests, not training."""

    def published(self, source: Source, size: int) -> Candidates:
        """The reference's outputs for the evaluation prompts."""

    def interactions(self, source: Source, size: int) -> Interactions:
        """Answers and what their users made of them."""

    def guided(self, interactions: Interactions, guidance: Guidance) -> Guided:
        """Prompts to answer anew, seeing what was disliked and why."""

    def corrected(
        self, interactions: Interactions, better: Candidates | None = None
    ) -> Preferences:
        """Disliked answers against fresh ones, or those that users went on to accept."""

    def recorded(self, source: Source) -> Preferences:
        """Labels somebody recorded, for prompts that are not evaluated."""

    def generate(
        self, policy: Policy, instructions: Instructions | Demonstrations, sampling: Sampling
    ) -> Candidates:
        """Answers of a policy, as it decodes, to prompts or to those of demonstrations."""

    def annotate(self, candidates: Candidates, rivals: Candidates, panel: Panel) -> Preferences:
        """The panel's label of each pair; the same table twice pairs a policy's own samples."""

    def rate(
        self, candidates: Candidates, raters: Assessors, references: Demonstrations | None = None
    ) -> Ratings:
        """A mark for each aspect of each answer; right answers are shown to raters, where known."""

    def critique(self, candidates: Candidates | Ratings, critics: Assessors) -> Critiques:
        """Feedback on each answer, with an overall score."""

    def repair(self, ratings: Ratings, critiques: Critiques, critics: Assessors) -> Ratings:
        """Critiques and overall scores put to the marks, doubtful scores mended."""

    def criticise(self, ratings: Ratings, critics: Assessors) -> Ratings:
        """Rated answers with their critiques and overall scores, doubtful scores mended."""

    def tag(self, prompts: Instructions | Demonstrations, taggers: Assessors) -> Tags:
        """What each prompt asks for: difficulty, quality, task."""

    def score(self, candidates: Candidates, judge: Judge) -> Scores:
        """A number for each answer."""

    def select(
        self, scored: Scores | Preferences | Critiques | Ratings, rule: Rule
    ) -> Demonstrations:
        """The answers worth imitating."""

    def grade(self, preferences: Preferences) -> Graded:
        """Both answers of each decided pair, tagged as the better or the worse one."""

    def compare(self, candidates: Candidates, judge: Judge | Pairwise) -> Comparisons:
        """Every answer to a prompt against every other."""

    def cluster(self, scored: Scores, clustering: Clustering) -> Clusters:
        """Which answers to a prompt say the same."""

    def rank(
        self,
        scored: Scores | Comparisons | Ratings,
        ranking: Pairing | Agreement | Binarisation | Opposing,
    ) -> Ranked:
        """Pairs of answers to one prompt, by their numbers, by marks, or by how many agree."""

    def unite(self, tables: tuple[Preferences, ...]) -> Preferences:
        """Tables of pairs one below the other, no label twice."""

    def prefer(self, chosen: Demonstrations, rejected: Candidates) -> Preferences:
        """Pairs whose order is known without a judge."""

    def fit_reward(
        self,
        policy: Policy,
        preferences: Preferences,
        fitting: Fitting,
        samples: Candidates | None = None,
    ) -> Reward:
        """A reward model, or a committee, from labelled pairs and perhaps a policy's samples."""

    def fit_pairwise(self, policy: Policy, preferences: Preferences, fitting: Fitting) -> Pairwise:
        """A judge of two answers at once from labelled pairs, from a policy's weights."""

    def train(
        self,
        policy: Policy,
        data: Demonstrations | Preferences,
        objective: Objective,
        reference: Policy | None = None,
    ) -> Policy:
        """A policy trained on fixed data."""

    def look(self, policy: Policy, data: Demonstrations | Preferences, looking: Looking) -> Logps:
        """What a policy makes of every response; `train` asks for it where its loss does."""

    def roll_out(
        self,
        policy: Policy,
        reward: Reward,
        instructions: Instructions,
        objective: OnlineObjective | ConditionedObjective,
        reference: Policy | None = None,
        ref_rewards: Scores | None = None,
    ) -> Policy:
        """A policy trained on its own samples and a reward model's scores of them.

        `ref_rewards` are scored answers of the start, where the objective's reshaping reads them.
        """

    def penalise(self, scores: Scores, penalties: Penalties) -> Scores:
        """Scores less what an answer loses by its length, a ceiling, or having no end."""

    def residual(self, scores: Scores, seen: Scores) -> Scores:
        """Scores less what length explains, by the line through those in `seen`."""

    def soup(
        self,
        policies: tuple[Policy, ...],
        weights: tuple[float, ...],
        held_out: Demonstrations | None = None,
    ) -> Policy:
        """Policies of one start averaged weight by weight; tested where there is something to."""

    def soup_rewards(
        self, models: tuple[RewardModel, ...], weights: tuple[float, ...]
    ) -> RewardModel:
        """Reward models of one start averaged weight by weight."""

    def synthesise(
        self,
        policy: Policy,
        synthesis: Synthesis,
        source: Source,
        reward: Reward | None = None,
        base: Policy | None = None,
    ) -> Synthetic:
        """Instructions that a policy invents, answered by itself, looked at and sifted."""

    def tally(self, evaluations: Mapping[str, Evaluation]) -> Leaderboard:
        """One row a model."""
