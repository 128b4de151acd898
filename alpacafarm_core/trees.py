"""Tree search over unfinished answers: how wide, what a prefix is worth, who lives on. Pure.

TreeBoN; Qiu et al. 2024 (arXiv 2410.16033). Answers grow a segment at a time; after each segment
only the best are grown further, each into several. N is branches, T their tokens, padded, k the
place of a token counted from 1 and K the number of tokens a branch has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from alpacafarm_core.errors import BadInput, TrainingFailed
from alpacafarm_core.recipe import digest
from alpacafarm_core.values import Value

if TYPE_CHECKING:
    from torch import Tensor

PartialScore = Literal[
    "weighted", "dpo_sum", "exp_decay", "dpo_mean", "dpo_logp", "simpo", "rm_prefix", "random"
]


class Pruning(Value):
    """How a layer is cut: width / children branches live on, each grows so many children."""

    width: int = Field(default=128, ge=1, le=1024, description="Branches of every layer")
    children: int = Field(default=4, ge=1, description="Children of a survivor; divides the width")
    refill_finished: bool = Field(
        default=False, description="Give slots of finished branches to others"
    )

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.children:
            raise ValueError(
                f"children {self.children} does not divide width {self.width}, so layers would "
                "not be equally wide; change one of them"
            )
        return self

    @property
    def survivors(self) -> int:
        """Branches of a layer that live on."""
        return self.width // self.children


class Branching(Pruning):
    """The shape of a tree and how its branches are drawn and ranked."""

    layers: int = Field(default=4, ge=1, description="Segments of an answer; 1: best-of-n")
    partial: PartialScore = Field(default="weighted", description="What ranks unfinished answers")
    decay: float = Field(default=0.95, gt=0, le=1, description="Factor a token, for exp_decay")
    temperature: float = Field(default=1.0, gt=0, description="Temperature of the draws")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus of the draws")
    keep_finished_pool: bool = Field(
        default=False, description="Choose among all finished branches ever"
    )

    @property
    def pruning(self) -> Pruning:
        """The part of it that cuts a layer."""
        return Pruning(**{name: getattr(self, name) for name in Pruning.model_fields})


class Budget(NamedTuple):
    """What a tree has taken: tokens drawn, prefixes scored, and by whom.

    `scored_tokens` are response tokens read by the DPO policy; its reference reads as many again
    where the score asks for it. `reward_calls` are answers, whole or not, that the reward model
    read, or each member of a committee.
    """

    sampled_tokens: int = 0
    partial_scores: int = 0
    scored_tokens: int = 0
    reward_calls: int = 0

    def plus(self, other: Budget) -> Budget:
        """Both together."""
        return Budget(*map(sum, zip(self, other, strict=True)))


class PrefixLogps(NamedTuple):
    """Log-probabilities of the tokens of branches, [N, T], and which are tokens, not padding."""

    dpo: Tensor
    reference: Tensor
    mask: Tensor


class Weighting(NamedTuple):
    """A partial score is a sum over tokens: what a token counts for, and whether by log-ratio.

    `weight` takes k [N, T], K [N, 1] and the decay. With the reference, a token counts with
    lr = log pi_dpo - log pi_reference, without it with log pi_dpo.
    """

    weight: Callable[[Tensor, Tensor, float], Tensor]
    against_reference: bool = True


WEIGHTINGS: Mapping[str, Weighting] = {
    "weighted": Weighting(lambda k, _, __: 1 / k),
    "dpo_sum": Weighting(lambda k, _, __: k**0),
    "exp_decay": Weighting(lambda k, _, decay: decay ** (k - 1)),
    "dpo_mean": Weighting(lambda _, total, __: 1 / total),
    "dpo_logp": Weighting(lambda k, _, __: k**0, against_reference=False),
    "simpo": Weighting(lambda _, total, __: 1 / total, against_reference=False),
}
"""The partial scores that read log-probabilities; `rm_prefix` and `random` do not."""


def partial_scores(prefixes: PrefixLogps, kind: str, decay: float = 1.0) -> Tensor:
    """What each branch is worth by the tokens it has, [N].

    score = sum_k weight(k) lr_k. The paper's own weighs the k-th token by 1/k; it counts places
    from 0, which would divide by zero, so here they count from 1.
    """
    weight, against_reference = WEIGHTINGS[kind]
    found = prefixes.dpo - prefixes.reference if against_reference else prefixes.dpo
    places = prefixes.mask.cumsum(1).clamp(min=1).to(found.dtype)
    total = prefixes.mask.sum(1, keepdim=True).clamp(min=1).to(found.dtype)
    counted = weight(places, total, decay) * found
    return counted.masked_fill(~prefixes.mask, 0.0).sum(1)


def random_score(own_seed: int) -> float:
    """A number in [0, 1) that says nothing of the branch, the same in every process."""
    return int(digest(["random", own_seed])[:12], 16) / 16**12


def segments(max_tokens: int, layers: int) -> list[int]:
    """Tokens of each segment, equal but for a remainder, which goes to the first ones.

    Raises BadInput where a segment would have none.
    """
    if layers > max_tokens:
        raise BadInput(
            f"layers {layers} of max_tokens {max_tokens} leave a segment without a token; lower "
            "layers or raise max_tokens"
        )
    each, rest = divmod(max_tokens, layers)
    return [each + (number < rest) for number in range(layers)]


def survivors(scores: Sequence[float], keep: int) -> list[int]:
    """Indices of the `keep` highest scores, the best first, of equals the lower index first.

    Raises TrainingFailed where a score is no finite number.
    """
    for number, score in enumerate(scores):
        if not isfinite(score):
            raise TrainingFailed(
                f"branch {number} of {len(scores)} has the partial score {score}, which is no "
                "finite number; train the DPO policy or the reward model again at a lower "
                "learning rate"
            )
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:keep]


def offspring(finished: Sequence[bool], pruning: Pruning) -> list[int]:
    """How many children each survivor grows; they come the best first.

    A finished one grows none: it is carried on in one slot, and its others stay empty. Refilled,
    all empty slots go in turn to those that still grow, beginning with the best.
    """
    grown = [0 if ended else pruning.children for ended in finished]
    growing = [at for at, ended in enumerate(finished) if not ended]
    if pruning.refill_finished and growing:
        empty = pruning.width - sum(finished) - sum(grown)
        for slot in range(empty):
            grown[growing[slot % len(growing)]] += 1
    return grown
