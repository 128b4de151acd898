"""Artifacts that are weights, and the ways a policy can decode.

Both are folders any transformers program can load: `config.json`, safetensors, tokenizer files.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.artifacts import Artifact
from alpacafarm_core.errors import BadInput
from alpacafarm_core.values import Value


class RewardModel(Artifact):
    """A scalar judge: a sequence classifier with one label, read at the last response token."""

    kind = "reward_model"


class Plain(Value):
    """Sample as asked; one answer a draw."""

    name: Literal["plain"] = "plain"


class BestOf(Value):
    """Draw n answers, keep the one the reward model scores highest."""

    name: Literal["best_of"] = "best_of"
    n: int = Field(default=16, ge=1, le=1024, description="Answers drawn per prompt")
    reward: RewardModel = Field(description="Reward model that picks")
    temperature: float = Field(default=1.0, gt=0, description="Temperature of the draws")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus of the draws")


class Tagged(Value):
    """Put a reward token before the prompt: answer as those that were tagged with it."""

    name: Literal["tagged"] = "tagged"
    tag: int = Field(default=0, ge=0, description="Reward token; 0 is the best")


Decoder = Annotated[Plain | BestOf | Tagged, Field(discriminator="name")]


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
