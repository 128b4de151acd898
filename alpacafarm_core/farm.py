"""The farm: every stage on one page, and what each method starts from.

`tasks/` is one farm (cached, on Prefect when a server is there); the tests have another that only
writes down what it was asked. A reference policy that is not given is the policy a stage starts
from, so plain DPO is measured against its start and iterated methods refresh it without saying so.
"""

from collections.abc import Mapping
from typing import Protocol

from alpacafarm_core.artifacts import (
    Candidates,
    Demonstrations,
    Instructions,
    Leaderboard,
    Preferences,
    Scores,
)
from alpacafarm_core.objective import Objective, ProximalObjective
from alpacafarm_core.panel import Panel
from alpacafarm_core.settings import Fitting, Rule, Sampling, Truth
from alpacafarm_core.setup import Pretrained, Source, Split
from alpacafarm_core.values import Value
from alpacafarm_core.weights import Policy, RewardModel

Judge = RewardModel | Truth


class Start(Value):
    """What every method begins from; `policy` is the SFT model, trained from `base`."""

    base: Policy
    policy: Policy
    instructions: Instructions
    demonstrations: Demonstrations
    preferences: Preferences


class Evaluation(Value):
    """One model against the reference: its judged pairs, and the truth about them where known."""

    preferences: Preferences
    truth: Scores | None = None


class Farm(Protocol):
    """Every stage."""

    def base(self, model: Pretrained) -> Policy:
        """A language model from a folder or the hub, taken into the store."""

    def instructions(self, source: Source, split: Split, size: int) -> Instructions:
        """Prompts of one split."""

    def demonstrations(self, source: Source, size: int) -> Demonstrations:
        """Prompts of the sft split with answers to imitate."""

    def published(self, source: Source, size: int) -> Candidates:
        """The reference's outputs for the evaluation prompts."""

    def recorded(self, source: Source) -> Preferences:
        """Labels somebody recorded, for prompts that are not evaluated."""

    def generate(
        self, policy: Policy, instructions: Instructions, sampling: Sampling
    ) -> Candidates:
        """Answers of a policy, as it decodes."""

    def annotate(self, candidates: Candidates, rivals: Candidates, panel: Panel) -> Preferences:
        """The panel's label of each pair; the same table twice pairs a policy's own samples."""

    def score(self, candidates: Candidates, judge: Judge) -> Scores:
        """A number for each answer."""

    def select(self, scored: Scores | Preferences, rule: Rule) -> Demonstrations:
        """The answers worth imitating."""

    def prefer(self, chosen: Demonstrations, rejected: Candidates) -> Preferences:
        """Pairs whose order is known without a judge."""

    def fit_reward(self, policy: Policy, preferences: Preferences, fitting: Fitting) -> RewardModel:
        """A reward model from labelled pairs, starting from a policy's weights."""

    def train(
        self,
        policy: Policy,
        data: Demonstrations | Preferences,
        objective: Objective,
        reference: Policy | None = None,
    ) -> Policy:
        """A policy trained on fixed data."""

    def roll_out(
        self,
        policy: Policy,
        reward: RewardModel,
        instructions: Instructions,
        objective: ProximalObjective,
        reference: Policy | None = None,
    ) -> Policy:
        """A policy trained on its own samples and a reward model's scores of them."""

    def tally(self, evaluations: Mapping[str, Evaluation]) -> Leaderboard:
        """One row a model."""
