"""From a policy alone to demonstrations: draw, answer, look, sift, and ask on; Magpie.

Xu et al. 2024 (arXiv 2406.08464), figure 1. Takes the farm of single stages first, as all composed
verbs do.
"""

from typing import Protocol

from alpacafarm_core import assessors
from alpacafarm_core.artifacts import Candidates, Demonstrations, Instructions, Scores
from alpacafarm_core.assessors import Assessors
from alpacafarm_core.farm import Judge
from alpacafarm_core.ratings import Tags
from alpacafarm_core.settings import Sampling
from alpacafarm_core.setup import Source
from alpacafarm_core.synthesis import (
    Drafts,
    Evidence,
    Filtering,
    Following,
    Invented,
    Inventing,
    Nearness,
    Neighbours,
    Sifted,
    Synthesis,
    Synthetic,
)
from alpacafarm_core.weights import Policy, Reward

SHEETS = ("difficulty", "quality", "task")
WELL_FORMED = Filtering(quality=(), reward_above=None, repeats=True, longest=None)
"""What a further turn must be: answered to the end."""


class Stages(Protocol):
    """The single stages that this asks for."""

    def invent(self, policy: Policy, inventing: Inventing) -> Drafts:
        """Draws from the text before a user's turn."""

    def follow_up(
        self, policy: Policy, said: Synthetic, inventing: Inventing, following: Following
    ) -> Drafts:
        """A next question for each conversation."""

    def admit(self, drafts: Drafts, source: Source) -> Invented:
        """The usable draws that no evaluation asks."""

    def generate(
        self, policy: Policy, instructions: Instructions | Demonstrations, sampling: Sampling
    ) -> Candidates:
        """Answers of a policy, as it decodes."""

    def score(self, candidates: Candidates, judge: Judge) -> Scores:
        """A number for each answer."""

    def tag(self, prompts: Instructions | Demonstrations, taggers: Assessors) -> Tags:
        """What a judge says of prompts."""

    def neighbours(
        self, instructions: Instructions | Demonstrations, nearness: Nearness
    ) -> Neighbours:
        """How near the nearest other row is."""

    def sift(
        self, invented: Invented, answers: Candidates, evidence: Evidence, filtering: Filtering
    ) -> Sifted:
        """Instructions with answers, all that was found out, and what the filters say."""

    def keep(self, sifted: Sifted) -> Synthetic:
        """The rows that no filter removed."""

    def collect(self, tables: tuple[Synthetic, ...]) -> Synthetic:
        """The rows of several tables in one."""


def synthesise(
    stages: Stages,
    policy: Policy,
    synthesis: Synthesis,
    source: Source,
    reward: Reward | None = None,
    base: Policy | None = None,
) -> Synthetic:
    """Have a policy ask and answer itself; nothing that the source evaluates is in it.

    With a reward model answers are scored, with a base policy also that one's answers to the same
    instructions, for the difference. Further turns are drawn after the rows that were kept.
    """
    # Read first: a panel that is not there is refused before anything is drawn.
    seed = synthesis.inventing.seed
    taggers = synthesis.taggers and assessors.load(synthesis.taggers, "tagging", seed).but(*SHEETS)
    invented = stages.admit(stages.invent(policy, synthesis.inventing), source)
    answers = stages.generate(policy, invented, synthesis.answering)
    given = None if reward is None or base is None else base
    rival = None if given is None else stages.generate(given, invented, synthesis.answering)
    evidence = Evidence(
        tags=stages.tag(invented, taggers) if taggers else None,
        scores=None if reward is None else stages.score(answers, reward),
        base_scores=None if reward is None or rival is None else stages.score(rival, reward),
        neighbours=stages.neighbours(invented, synthesis.nearness),
    )
    tables = [stages.keep(stages.sift(invented, answers, evidence, synthesis.filtering))]
    for _ in range(1, synthesis.turns):
        tables.append(_next_turn(stages, policy, tables[-1], synthesis, source))
    return stages.collect(tuple(tables)) if len(tables) > 1 else tables[0]


def _next_turn(
    stages: Stages, policy: Policy, said: Synthetic, synthesis: Synthesis, source: Source
) -> Synthetic:
    drafts = stages.follow_up(policy, said, synthesis.inventing, synthesis.following)
    invented = stages.admit(drafts, source)
    answers = stages.generate(policy, invented, synthesis.answering)
    return stages.keep(stages.sift(invented, answers, Evidence(), WELL_FORMED))
