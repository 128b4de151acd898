"""Verbs of the farm that are made of several stages, so that methods share what is between.

Each takes the farm of single stages first: the cached ones, or a plan's. Both compose alike, so a
plan can never name other stages than a run makes.
"""

from typing import Protocol

from alpacafarm_core.artifacts import (
    Branches,
    Candidates,
    Clusters,
    Comparisons,
    Demonstrations,
    Instructions,
    Logps,
    Preferences,
    Scores,
    Uncertain,
)
from alpacafarm_core.assessors import Assessors
from alpacafarm_core.clustering import Clustering, Entailment, Told
from alpacafarm_core.committees import Verdict
from alpacafarm_core.farm import Judge, Judging, Known
from alpacafarm_core.objective import Objective
from alpacafarm_core.ratings import Critiques, Ratings
from alpacafarm_core.settings import Fitting, Looking, Sampling
from alpacafarm_core.setup import Pretrained
from alpacafarm_core.sources import pretrained
from alpacafarm_core.synthesising import synthesise as synthesise
from alpacafarm_core.trees import Pruning, segments
from alpacafarm_core.weights import (
    Committee,
    Pairwise,
    Plain,
    Policy,
    Ranker,
    Reward,
    RewardModel,
    Tree,
)


class Stages(Protocol):
    """The single stages that composed verbs ask for."""

    def sample(
        self, policy: Policy, instructions: Instructions | Demonstrations, sampling: Sampling
    ) -> Candidates:
        """Answers of a policy that draws them whole."""

    def grow(
        self,
        policy: Policy,
        instructions: Instructions | Demonstrations,
        sampling: Sampling,
        parents: Branches | None = None,
    ) -> Branches:
        """Roots of search trees, or children of the survivors of a layer."""

    def weigh(self, branches: Branches, ranker: Ranker) -> Branches:
        """A layer with a number for each branch."""

    def prune(self, branches: Branches, pruning: Pruning) -> Branches:
        """A layer with what becomes of each branch."""

    def leaves(self, layers: tuple[Branches, ...]) -> Branches:
        """The last layer, and every branch that ended before it."""

    def choose(self, branches: Branches, width: int) -> Candidates:
        """The branch of each tree with the highest number."""

    def base(self, model: Pretrained) -> Policy:
        """A language model from a folder or the hub, taken into the store."""

    def look(self, policy: Policy, data: Demonstrations | Preferences, looking: Looking) -> Logps:
        """What a policy makes of every response."""

    def train_policy(
        self, policy: Policy, data: Demonstrations | Preferences, objective: Objective, known: Known
    ) -> Policy:
        """A policy trained on fixed data, told what its loss needs of the reference."""

    def score(self, candidates: Candidates, judge: Judge) -> Scores:
        """A number for each answer."""

    def score_alone(self, candidates: Candidates, judge: Judging) -> Scores:
        """A number for each answer, from one judge."""

    def agree(self, scored: tuple[Scores, ...], verdict: Verdict) -> Uncertain:
        """The scores of several judges of the same answers as one, and their spread."""

    def fit_alone(
        self,
        policy: Policy,
        preferences: Preferences,
        fitting: Fitting,
        samples: Candidates | None = None,
    ) -> RewardModel:
        """One reward model."""

    def soup_rewards(
        self, models: tuple[RewardModel, ...], weights: tuple[float, ...]
    ) -> RewardModel:
        """Reward models averaged weight by weight."""

    def compare_in_pairs(self, candidates: Candidates, judge: Pairwise) -> Comparisons:
        """Every answer to a prompt against every answer to it, asked about in both orders."""

    def compare_scored(self, scored: Scores) -> Comparisons:
        """Every answer to a prompt against every answer to it, by their scores."""

    def cluster_told(self, scored: Scores, clustering: Told) -> Clusters:
        """Which answers to a prompt say the same, as their texts tell."""

    def cluster_read(self, scored: Scores, clustering: Entailment, reader: Policy) -> Clusters:
        """Which answers to a prompt say the same, as a model reads them."""

    def critique(self, candidates: Candidates | Ratings, critics: Assessors) -> Critiques:
        """Feedback on each answer, with an overall score."""

    def repair(self, ratings: Ratings, critiques: Critiques, critics: Assessors) -> Ratings:
        """Ratings with critiques and overall scores, doubtful ones asked for again."""


def train(
    stages: Stages,
    policy: Policy,
    data: Demonstrations | Preferences,
    objective: Objective,
    reference: Policy | None = None,
) -> Policy:
    """Train a policy on fixed data.

    What the reference makes of the data is looked at in a stage of its own, so that objectives
    share it.
    """
    measure = reference or policy
    known = Known.of(measure, objective, lambda looking: stages.look(measure, data, looking))
    return stages.train_policy(policy, data, objective, known)


def generate(
    stages: Stages, policy: Policy, instructions: Instructions | Demonstrations, sampling: Sampling
) -> Candidates:
    """Sample a policy as it decodes; a search tree is grown layer by layer, each a stage or three.

    A stage is told no more than its layer depends on, so trees that begin alike share layers.
    """
    tree = policy.decode
    if not isinstance(tree, Tree):
        return stages.sample(policy, instructions, sampling)
    first, *rest = segments(sampling.max_tokens, tree.layers)
    plain, draw = policy.replace(decode=Plain()), tree.draws(sampling)
    layers = [stages.grow(plain, instructions, draw.replace(max_tokens=first))]
    for tokens in rest:
        kept = stages.prune(stages.weigh(layers[-1], tree.ranker), tree.pruning)
        layers.append(stages.grow(plain, instructions, draw.replace(max_tokens=tokens), kept))
    last = stages.leaves(tuple(layers)) if tree.keep_finished_pool else layers[-1]
    return stages.choose(stages.weigh(last, tree.judge), tree.width)


def adopt(stages: Stages, model: str) -> Policy:
    """Take a language model by name: what lies there under it now is what the stage is told."""
    return stages.base(pretrained(model))


def score(stages: Stages, candidates: Candidates, judge: Judge) -> Scores:
    """Score answers; each member of a committee does so in a stage that others can share."""
    if not isinstance(judge, Committee):
        return stages.score_alone(candidates, judge)
    scored = tuple(stages.score_alone(candidates, member) for member in judge.members)
    return stages.agree(scored, judge.verdict)


def fit_reward(
    stages: Stages,
    policy: Policy,
    preferences: Preferences,
    fitting: Fitting,
    samples: Candidates | None = None,
) -> Reward:
    """Fit a reward model, or several: a committee, or their average.

    Each is a stage of its own, so a larger committee takes in the members of a smaller one.
    """
    fitted = tuple(stages.fit_alone(policy, preferences, one, samples) for one in fitting.members())
    if fitting.committee is None:
        return fitted[0]
    if fitting.committee.combine == "weights":
        return stages.soup_rewards(fitted, (1 / len(fitted),) * len(fitted))
    return Committee(members=fitted, verdict=fitting.committee.verdict)


def compare(stages: Stages, candidates: Candidates, judge: Judge | Pairwise) -> Comparisons:
    """Compare answers two at a time, or by a judge that gives a score to each, in its own stage."""
    if isinstance(judge, Pairwise):
        return stages.compare_in_pairs(candidates, judge)
    return stages.compare_scored(stages.score(candidates, judge))


def cluster(stages: Stages, scored: Scores, clustering: Clustering) -> Clusters:
    """Put answers that say the same together; taking in the model that reads them is a stage."""
    if isinstance(clustering, Entailment):
        return stages.cluster_read(scored, clustering, adopt(stages, clustering.model))
    return stages.cluster_told(scored, clustering)


def criticise(stages: Stages, ratings: Ratings, critics: Assessors) -> Ratings:
    """Criticise rated answers, then put scores to them that the marks bear out."""
    critiques = stages.critique(ratings, critics.but("critique"))
    return stages.repair(ratings, critiques, critics.but("repair"))
