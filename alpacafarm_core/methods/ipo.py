"""Identity Preference Optimisation; Azar et al. 2023 (arXiv 2310.12036).

Left out: nothing; the paper sums over the tokens of a response, TRL now takes their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.method import Method
from alpacafarm_core.objective import LengthLogps, Objective, log_ratios
from alpacafarm_core.settings import BUDGET, Scale, Training
from alpacafarm_core.weights import Policy

if TYPE_CHECKING:
    from torch import Tensor


class IPO(Objective, Method):
    """Bring the margin to a target instead of pushing it ever further."""

    sources: ClassVar[Mapping[str, str]] = {
        "tau": "TRL's default; the paper's bandits take several values",
        "per": "Azar et al. 2023, eq. 17",
        "training": "AlpacaFarm's DPO recipe; the paper trains no language model",
    }

    name: Literal["ipo"] = "ipo"
    tau: float = Field(default=0.1, gt=0, description="Strength of the reference")
    per: Literal["response", "token"] = Field(
        default="response", description="Sums of log-probabilities, or means (TRL)"
    )
    training: Training = Field(
        default=Training(learning_rate=1e-6, epochs=2, batch=64),
        description="AlpacaFarm's DPO recipe",
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """AlpacaFarm's optimiser, or those of the built-in world's tiny model."""
        return cls() if scale == "paper" else cls(training=BUDGET)

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """Train on the pairs; the reference is the policy the stage starts from."""
        return farm.train(start.policy, start.preferences, self)

    def loss(self, batch: LengthLogps) -> Tensor:
        """Squared distance of the margin to its target, [B]."""
        return ipo_loss(batch, self.tau, per_token=self.per == "token")


def ipo_loss(logps: LengthLogps, tau: float, *, per_token: bool = False) -> Tensor:
    """Squared distance of the margin to 1 / (2 tau), (h - 1 / (2 tau))^2; eq. 17.

    h is the chosen response's log-ratio to the reference less the rejected one's, or with
    `per_token` each log-ratio by its response's tokens. All fields [B]; one loss per pair, [B].
    """
    chosen, rejected = log_ratios(logps)
    if per_token:
        chosen = chosen / logps.chosen_length.clamp(min=1)
        rejected = rejected / logps.rejected_length.clamp(min=1)
    return (chosen - rejected - 1 / (2 * tau)) ** 2
