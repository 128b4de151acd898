"""What a reward model is fitted for beside the order of pairs: margins, length, policy samples.

Each is off unless chosen, as a setting of every method that fits a reward model; together they add
up. `docs/reward-models.md` says what they did on the built-in world.
"""

from typing import Self

from pydantic import Field, model_validator

from alpacafarm_core.values import Value


class Margin(Value):
    """How far apart a pair's rewards should be: its annotated gap, scaled into (0, 1].

    UltraFeedback (arXiv 2310.01377). A gap counts as a share of the largest one, so the pair that
    annotators found clearest has margin 1. Pairs without a gap have margin 0.
    """

    largest: float | None = Field(
        default=None, gt=0, description="Gap of margin 1; none: largest seen"
    )


class Odin(Value):
    """Two heads on one backbone, of which one takes up length and is then thrown away.

    Chen et al. 2024 (ODIN, arXiv 2402.07319). The pairs are ordered by the sum of both heads; the
    quality head is kept uncorrelated with length, the other is kept correlated.
    """

    length: float = Field(default=1.0, ge=0, description="Weight of the correlations with length")
    orthogonality: float = Field(default=1.0, ge=0, description="Weight of the heads' cosine")


class Views(Value):
    """What is learned from samples of a policy, without labels; RLP-UML (arXiv 2403.19279).

    Two samples of one prompt are two views of it: what they share should be kept, and what tells
    them apart be dropped. Counts only where samples are given.
    """

    weight: float = Field(default=0.5, ge=0, description="Weight of the multi-view loss")
    size: int = Field(default=64, ge=1, description="Dimensions of a view's representation")
    width: int = Field(default=1024, ge=1, description="Width of heads and critic")
    information: float = Field(default=1.0, ge=0, description="Weight of mutual information")
    skl: float = Field(default=1.0, ge=0, description="Weight of the symmetric KL")
    skl_first: float | None = Field(
        default=None, gt=0, description="Weight of the KL at first; none: same"
    )
    hold: float = Field(default=0.2, ge=0, lt=1, description="Share of steps at first weight")
    rise: float = Field(default=0.4, ge=0, le=1, description="Share of steps of rising")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.hold + self.rise > 1:
            raise ValueError(
                f"hold {self.hold} and rise {self.rise} are shares of one training; make them 1 "
                "or less together"
            )
        if self.skl_first is not None and not self.skl:
            raise ValueError("skl 0 cannot be risen to; raise skl, or leave skl_first out")
        return self
