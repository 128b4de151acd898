"""Verbs of the farm that are made of several stages, so that methods share what is between.

Each takes the farm of single stages first: the cached ones, or a plan's. Both compose alike, so a
plan can never name other stages than a run makes.
"""

from typing import Protocol

from alpacafarm_core.artifacts import (
    Candidates,
    Clusters,
    Comparisons,
    Demonstrations,
    Logps,
    Preferences,
    Scores,
)
from alpacafarm_core.clustering import Clustering, Entailment, Told
from alpacafarm_core.farm import Judge, Known
from alpacafarm_core.objective import Objective
from alpacafarm_core.settings import Looking
from alpacafarm_core.setup import Pretrained
from alpacafarm_core.sources import pretrained
from alpacafarm_core.weights import Policy


class Stages(Protocol):
    """The single stages that composed verbs ask for."""

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

    def compare_scored(self, scored: Scores) -> Comparisons:
        """Every answer to a prompt against every answer to it, by their scores."""

    def cluster_told(self, scored: Scores, clustering: Told) -> Clusters:
        """Which answers to a prompt say the same, as their texts tell."""

    def cluster_read(self, scored: Scores, clustering: Entailment, reader: Policy) -> Clusters:
        """Which answers to a prompt say the same, as a model reads them."""


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


def adopt(stages: Stages, model: str) -> Policy:
    """Take a language model by name: what lies there under it now is what the stage is told."""
    return stages.base(pretrained(model))


def compare(stages: Stages, candidates: Candidates, judge: Judge) -> Comparisons:
    """Compare answers by a judge that gives a score to each, in a stage of its own."""
    return stages.compare_scored(stages.score(candidates, judge))


def cluster(stages: Stages, scored: Scores, clustering: Clustering) -> Clusters:
    """Put answers that say the same together; taking in the model that reads them is a stage."""
    if isinstance(clustering, Entailment):
        return stages.cluster_read(scored, clustering, adopt(stages, clustering.model))
    return stages.cluster_told(scored, clustering)
