"""Supervised fine-tuning on demonstrations; AlpacaFarm, section 3.

Left out: packing several demonstrations into one row, which changes no figure at these lengths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import Objective, TokenLogps
from alpacafarm_core.settings import Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class SFT(Objective, Method):
    """Imitate demonstrations, token by token."""

    sources: ClassVar[Mapping[str, str]] = {"training": "AlpacaFarm, SFT10k"}

    name: Literal["sft"] = "sft"
    training: Training = Field(default=Training(), description="AlpacaFarm's SFT10k recipe")

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """AlpacaFarm's settings, or those of the built-in world's tiny model."""
        if scale == "paper":
            return cls()
        return cls(training=Training(learning_rate=5e-4, epochs=1, batch=32, max_length=256))

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train the base policy on the demonstrations."""
        return farm.train(start.base, start.demonstrations, self)

    def loss(self, batch: TokenLogps) -> Tensor:
        """Cross-entropy of each response token, [B, R]."""
        return -batch.logprobs
