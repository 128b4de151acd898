"""Noise Contrastive Alignment, for pairs; Chen et al. 2024 (arXiv 2402.05369).

Left out: rewards given as numbers and more than two responses, which the paper has too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import Objective, PairLogps, Referenced, log_ratios, logsigmoid
from alpacafarm_core.settings import BUDGET, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class NCA(Objective, Method):
    """Tell each response from what the reference would have written."""

    sources: ClassVar[Mapping[str, str]] = {
        "beta": "Chen et al. 2024; the authors' script",
        "training": "Chen et al. 2024; the authors' script, with adapters there",
    }

    name: Literal["nca"] = "nca"
    beta: float = Field(default=0.01, gt=0, description="Strength of the reference")
    training: Training = Field(
        default=Training(learning_rate=5e-6, epochs=1, batch=32, warmup=0.1),
        description="The paper's optimiser",
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The paper's settings, or those of the built-in world's tiny model."""
        return cls() if scale == "paper" else cls(training=BUDGET)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train on the pairs; the reference is the policy the stage starts from."""
        return farm.train(start.policy, start.preferences, self)

    def loss(self, batch: PairLogps) -> Tensor:
        """Binary cross-entropy of data against the reference, [B]."""
        return nca_loss(batch, self.beta)


def nca_loss(logps: Referenced, beta: float) -> Tensor:
    """The chosen one counts as data, and both, half each, as written by the reference; section 4.

    -log sigmoid(beta d_w) - 1/2 log sigmoid(-beta d_w) - 1/2 log sigmoid(-beta d_l), where d is a
    response's log-ratio to the reference. Summed log-probabilities, each [B]; one loss per pair,
    [B].
    """
    chosen, rejected = (beta * ratio for ratio in log_ratios(logps))
    return -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2
