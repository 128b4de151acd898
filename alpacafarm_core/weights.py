"""Artifacts that are weights, and the ways a policy can decode.

Both are folders any transformers program can load: `config.json`, safetensors, tokenizer files.
"""

from typing import Annotated, Literal

from pydantic import Field

from alpacafarm_core.artifacts import Artifact
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


Decoder = Annotated[Plain | BestOf, Field(discriminator="name")]


class Policy(Artifact):
    """A language model and how it decodes; a policy that only decodes otherwise keeps its key."""

    kind = "policy"

    decode: Decoder = Field(default=Plain(), description="How answers are drawn")
