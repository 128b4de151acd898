"""From the scores of a step to its rewards: PAR and its rivals, as settings (arXiv 2502.18770).

First an answer's score may be lowered, by a ceiling, by its length, for having no end; reference
answers are treated alike. Then it is reshaped. A reshaping says how many answers of the start it
wants beside each prompt, and whether it goes by statistics of all scores so far. The formulas are
in `train/shaping.py`. Flows read these classes for their forms, so torch is imported only where
something is computed. B is responses, M reference answers of each prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from alpacafarm_core.errors import BadInput
from alpacafarm_core.values import Value

if TYPE_CHECKING:
    from torch import Tensor

    from alpacafarm_core.train.shaping import Running


class LengthPenalty(Value):
    """What an answer loses by being long; the values of PAR's code."""

    price: float = Field(default=0.01, ge=0, description="Score lost per token too many")
    beyond: int = Field(default=300, ge=0, description="Tokens that cost nothing")


class Penalties(Value):
    """What is taken off the score of an answer, whoever gave it, before anything else."""

    ceiling: float | None = Field(default=None, description="Largest score that counts")
    length: LengthPenalty | None = Field(default=None, description="Loss by length")
    missing_eos: float | None = Field(default=None, description="Score of an unfinished response")

    def applied(self, score: float, tokens: int, finished: bool) -> float:
        """The score of an answer of so many tokens, less the penalties, in that order."""
        if self.missing_eos is not None and not finished:
            return self.missing_eos
        if self.ceiling is not None:
            score = min(score, self.ceiling)
        if self.length is not None:
            score -= self.length.price * max(0, tokens - self.length.beyond)
        return score

    def named(self, judge: str) -> str:
        """What a judge is called whose scores are less these penalties."""
        return judge if self == Penalties() else f"{judge} less {self.model_dump_json()}"


class Reshape(Value):
    """A way from scores to rewards."""

    is_running: ClassVar[bool] = False
    """Whether it goes by statistics of all scores so far, those of the step included."""

    saturates: ClassVar[bool] = False
    """Whether rewards crowd just below 1 where scores are far above the references'."""

    @property
    def references(self) -> int:
        """How many answers of the start it wants scored for each prompt."""
        return 0

    def shaped(self, scores: Tensor, refs: Tensor, running: Running) -> Tensor:
        """Rewards, [B], of `scores` [B] beside `refs` [B, M]; neither is changed."""
        raise NotImplementedError


class Vanilla(Reshape):
    """The score itself."""

    name: Literal["vanilla"] = "vanilla"

    def shaped(self, scores: Tensor, refs: Tensor, running: Running) -> Tensor:
        """As they are."""
        return scores


class Ceiling(Reshape):
    """The score up to a ceiling."""

    name: Literal["ceil"] = "ceil"
    ceiling: float = Field(default=4.0, description="Largest reward; the paper has 3, 4, 5")

    def shaped(self, scores: Tensor, refs: Tensor, running: Running) -> Tensor:
        """At most the ceiling."""
        return scores.clamp(max=self.ceiling)


class FromRunning(Reshape):
    """By the mean, spread or range of all scores so far."""

    is_running: ClassVar[bool] = True


class Standardised(FromRunning):
    """The score less the running mean, over the running deviation."""

    name: Literal["meanstd"] = "meanstd"

    def shaped(self, scores: Tensor, refs: Tensor, running: Running) -> Tensor:
        """In deviations from the mean."""
        from alpacafarm_core.train import shaping

        return shaping.standardised(scores, running)


class Clipped(FromRunning):
    """The score within a running deviation of the running mean."""

    name: Literal["clip"] = "clip"

    def shaped(self, scores: Tensor, refs: Tensor, running: Running) -> Tensor:
        """Within the band."""
        from alpacafarm_core.train import shaping

        return shaping.clipped(scores, running)


class Ranged(FromRunning):
    """Where the score lies between the least and the largest so far."""

    name: Literal["minmax"] = "minmax"

    def shaped(self, scores: Tensor, refs: Tensor, running: Running) -> Tensor:
        """Between 0 and 1."""
        from alpacafarm_core.train import shaping

        return shaping.ranged(scores, running)


class FromReferences(Reshape):
    """By the scores of answers that the start gives to the same prompt."""

    answers: int = Field(default=10, ge=1, description="Reference answers per prompt")

    @property
    def references(self) -> int:
        """As many as are set."""
        return self.answers


class Centred(FromReferences):
    """The score less the mean of the references'; "contrastive" reward."""

    name: Literal["centred"] = "centred"

    def shaped(self, scores: Tensor, refs: Tensor, running: Running) -> Tensor:
        """The mean margin."""
        from alpacafarm_core.train import shaping

        return shaping.margins(scores, refs).mean(1)


class LogSigmoid(FromReferences):
    """LSC: log-sigmoid of the score less a high percentile of the references (Wang et al. 2024)."""

    name: Literal["lsc"] = "lsc"
    answers: int = Field(default=10, ge=2, description="Reference answers per prompt")
    percentile: float = Field(default=0.85, gt=0, lt=1, description="Of normal reference scores")

    def shaped(self, scores: Tensor, refs: Tensor, running: Running) -> Tensor:
        """Below 0."""
        from alpacafarm_core.train import shaping

        return shaping.log_sigmoid(scores, refs, self.percentile)


class Preference(FromReferences):
    """PAR: how probably, to the reward model, the answer beats a reference answer."""

    name: Literal["par"] = "par"
    k: float = Field(default=1.0, gt=0, description="Steepness; 1 is Bradley-Terry")

    saturates: ClassVar[bool] = True

    def shaped(self, scores: Tensor, refs: Tensor, running: Running) -> Tensor:
        """Between 0 and 1."""
        from alpacafarm_core.train import shaping

        return shaping.preference(scores, refs, self.k)


class Curved(FromReferences):
    """A curve of the margin over each reference, or of the score itself."""

    centred: bool = Field(default=True, description="Of margins over references")

    @property
    def references(self) -> int:
        """None where the curve is of the score itself."""
        return self.answers if self.centred else 0

    def curve(self, margins: Tensor) -> Tensor:
        """The reward of each margin."""
        raise NotImplementedError

    def shaped(self, scores: Tensor, refs: Tensor, running: Running) -> Tensor:
        """The mean of the curve over the references."""
        from alpacafarm_core.train import shaping

        return (
            self.curve(shaping.margins(scores, refs)).mean(1)
            if self.centred
            else self.curve(scores)
        )


class Sigmoid(Curved):
    """Sigmoid of k times the margin, or of k times the score."""

    name: Literal["sigmoid"] = "sigmoid"
    k: float = Field(default=3.0, gt=0, description="Steepness; the paper has 2 and 3")

    saturates: ClassVar[bool] = True

    def curve(self, margins: Tensor) -> Tensor:
        """Between 0 and 1."""
        return (self.k * margins).sigmoid()


class Tanh(Curved):
    """Hyperbolic tangent of the margin, or of the score."""

    name: Literal["tanh"] = "tanh"

    def curve(self, margins: Tensor) -> Tensor:
        """Between -1 and 1."""
        return margins.tanh()


class Polynomial(Curved):
    """The polynomial of degree 5 that is nearest the sigmoid on [-5, 5]; 0 and 1 outside."""

    name: Literal["poly"] = "poly"

    saturates: ClassVar[bool] = True

    def curve(self, margins: Tensor) -> Tensor:
        """Between about -0.011 and 1.011."""
        from alpacafarm_core.train import shaping

        return shaping.polynomial(margins)


class SlowThenFast(FromReferences):
    """Sigmoid of k times the margin less 3: slow first, then fast; the paper's counter-example."""

    name: Literal["sgfc"] = "sgfc"
    k: float = Field(default=3.0, gt=0, description="Steepness; the code ran with 1")

    saturates: ClassVar[bool] = True

    def shaped(self, scores: Tensor, refs: Tensor, running: Running) -> Tensor:
        """Between 0 and 1."""
        from alpacafarm_core.train import shaping

        return shaping.preference(scores - 3, refs, self.k)


Reshaping = Annotated[
    Vanilla
    | Ceiling
    | Standardised
    | Clipped
    | Ranged
    | Centred
    | LogSigmoid
    | Preference
    | Sigmoid
    | Tanh
    | Polynomial
    | SlowThenFast,
    Field(discriminator="name"),
]


def check_references(reshape: Reshape, given: bool) -> None:
    """Raises BadInput unless reference rewards are given where, and only where, they are read."""
    name = getattr(reshape, "name", "")
    if reshape.references and not given:
        raise BadInput(
            f"shaping.reshape {name} needs {reshape.references} reference rewards a prompt; give "
            "ref_rewards, as alpacafarm_core.references makes them"
        )
    if given and not reshape.references:
        raise BadInput(f"shaping.reshape {name} reads no reference rewards; leave ref_rewards out")
