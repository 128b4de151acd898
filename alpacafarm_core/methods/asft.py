"""Aligned Supervised Fine-Tuning; Wang et al. 2024 (arXiv 2409.10571).

The paper's own numbers were not found: settings are those of an independent comparison (arXiv
2502.01237). One stage starts from the base model; `start="sft"` with `imitation=0` and a beta below
one is that comparison's tempered variant, which only aligns. Not the "anchored" ASFT of other code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import MeanLogps, Objective, log_odds, logsigmoid, mean_logps
from alpacafarm_core.settings import BUDGET, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class ASFT(Objective, Method):
    """Make the chosen response likely and the rejected one unlikely, each by itself."""

    sources: ClassVar[Mapping[str, str]] = {
        "beta": "Wang et al. 2024: one",
        "lam": "arXiv 2502.01237, best of four",
        "imitation": "Wang et al. 2024",
        "start": "Wang et al. 2024",
        "training": "arXiv 2502.01237, one stage",
    }

    name: Literal["asft"] = "asft"
    beta: float = Field(default=1.0, gt=0, description="Scale of the log-odds")
    lam: float = Field(default=1.0, ge=0, description="Weight of aligning")
    imitation: float = Field(default=1.0, ge=0, description="Weight of imitating the chosen")
    start: Literal["base", "sft"] = Field(default="base", description="The policy it starts from")
    training: Training = Field(
        default=Training(learning_rate=6e-6, epochs=1, batch=128, schedule="linear", clip=2.0),
        description="The comparison's optimiser",
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The comparison's settings, or those of the built-in world's tiny model."""
        return cls() if scale == "paper" else cls(training=BUDGET)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train the base policy, or the SFT policy, on the pairs; there is no reference."""
        policy = start.base if self.start == "base" else start.policy
        return farm.train(policy, start.preferences, self)

    def loss(self, batch: MeanLogps) -> Tensor:
        """Cross-entropy of the chosen response, and both alignment losses, [B]."""
        return asft_loss(batch, self.lam, self.imitation, self.beta)


def asft_loss(logps: MeanLogps, lam: float, imitation: float, beta: float) -> Tensor:
    """The chosen response's mean cross-entropy plus lam times the alignment loss.

    -imitation a_w + lam * align, where a is a response's log-probability by its tokens. Summed
    log-probabilities and lengths, each [B]; one loss per pair, [B].
    """
    return -imitation * mean_logps(logps)[0] + lam * align_loss(logps, beta)


def align_loss(logps: MeanLogps, beta: float) -> Tensor:
    """Binary cross-entropy of each response: the chosen one likely, the rejected one not.

    -log sigmoid(beta o(a_w)) - log sigmoid(-beta o(a_l)), where o(a) = a - log(1 - e^a) are the
    log-odds; with beta = 1 that is -a_w - log(1 - e^a_l). Shapes as above; [B].
    """
    chosen, rejected = (beta * log_odds(mean) for mean in mean_logps(logps))
    return -logsigmoid(chosen) - logsigmoid(-rejected)
