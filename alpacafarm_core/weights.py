"""Artifacts that are weights, and the ways a policy can decode.

Both are folders any transformers program can load: `config.json`, safetensors, tokenizer files.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.artifacts import Artifact
from alpacafarm_core.committees import Verdict
from alpacafarm_core.errors import BadInput
from alpacafarm_core.recipe import digest, plain
from alpacafarm_core.settings import Sampling
from alpacafarm_core.trees import WEIGHTINGS, Branching, PartialScore
from alpacafarm_core.values import Value


class RewardModel(Artifact):
    """A scalar judge: a sequence classifier with one label, read at the last response token."""

    kind = "reward_model"


class Pairwise(Artifact):
    """A judge of two answers at once: a sequence classifier that gives the first one's log-odds."""

    kind = "pairwise"


class Committee(Value):
    """Reward models that judge together; raises BadInput where one of them would count twice."""

    name: Literal["committee"] = "committee"
    members: tuple[RewardModel, ...] = Field(min_length=1, description="Who judges")
    verdict: Verdict = Field(default=Verdict(), description="How their scores become one")

    @model_validator(mode="after")
    def _all_different(self) -> Self:
        twice = {each.key for each in self.members if self.members.count(each) > 1}
        if twice:
            raise BadInput(f"{min(twice)} sits twice on a committee; give every member once")
        return self


Reward = RewardModel | Committee
"""Whatever gives a learned reward."""


class Plain(Value):
    """Sample as asked; one answer a draw."""

    name: Literal["plain"] = "plain"


class BestOf(Value):
    """Draw n answers, keep the one the reward model scores highest."""

    name: Literal["best_of"] = "best_of"
    n: int = Field(default=16, ge=1, le=1024, description="Answers drawn per prompt")
    reward: Reward = Field(description="Reward model that picks")
    temperature: float = Field(default=1.0, gt=0, description="Temperature of the draws")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus of the draws")


class Tagged(Value):
    """Put a reward token before the prompt: answer as those that were tagged with it."""

    name: Literal["tagged"] = "tagged"
    tag: int = Field(default=0, ge=0, description="Reward token; 0 is the best")


class Ranker(Value):
    """What gives a number to each branch of a layer: a partial score, with all that it reads."""

    partial: PartialScore = Field(description="How the number is made")
    dpo: "Policy | None" = Field(default=None, description="Policy that has learned from labels")
    dpo_reference: "Policy | None" = Field(default=None, description="Policy it began as")
    reward: Reward | None = Field(default=None, description="Reward model")
    decay: float | None = Field(default=None, description="Factor a token")

    @property
    def label(self) -> str:
        """What it is called in a table: the score's name, and a digest of what it reads."""
        return f"{self.partial} {digest(plain(self))[:16]}"


class Tree(Branching):
    """Grow answers in segments, keep those a DPO policy likes; the reward model picks at the end.

    With one layer it is best-of-n.
    """

    name: Literal["tree"] = "tree"
    dpo: "Policy" = Field(description="Policy that ranks unfinished answers")
    dpo_reference: "Policy" = Field(description="Policy that it was trained against")
    reward: Reward = Field(description="Reward model that picks")

    def draws(self, sampling: Sampling) -> Sampling:
        """How a layer is drawn: `sampling.n` trees to a prompt, of `width` branches each."""
        return sampling.replace(
            n=self.width * sampling.n, temperature=self.temperature, top_p=self.top_p
        )

    @property
    def ranker(self) -> Ranker:
        """What ranks unfinished answers, with no more than it reads."""
        if self.partial == "rm_prefix":
            return self.judge
        if self.partial == "random":
            return Ranker(partial="random")
        measured = WEIGHTINGS[self.partial].against_reference
        return Ranker(
            partial=self.partial,
            dpo=self.dpo.replace(decode=Plain()),
            dpo_reference=self.dpo_reference.replace(decode=Plain()) if measured else None,
            decay=self.decay if self.partial == "exp_decay" else None,
        )

    @property
    def judge(self) -> Ranker:
        """What picks among the answers at the end: the reward model."""
        return Ranker(partial="rm_prefix", reward=self.reward)


Decoder = Annotated[Plain | BestOf | Tagged | Tree, Field(discriminator="name")]


class Policy(Artifact):
    """A language model and how it decodes; a policy that only decodes otherwise keeps its key."""

    kind = "policy"

    decode: Decoder = Field(default=Plain(), description="How answers are drawn")


class Implicit(Value):
    """A policy as a judge: how far it has moved towards an answer, away from a reference.

    R(y) = log policy(y) - log reference(y), in nats a response; DPO's reward without beta. Raises
    BadInput where both are the same, since every answer would be a tie.
    """

    name: Literal["implicit"] = "implicit"
    policy: Policy = Field(description="Policy that has learned from labels")
    reference: Policy = Field(description="Policy it began as")

    @model_validator(mode="after")
    def _has_learned(self) -> Self:
        if self.policy.folder == self.reference.folder:
            raise BadInput(
                f"{self.policy.folder} cannot judge against itself: every answer is a tie; train "
                "it on labelled pairs first"
            )
        return self
