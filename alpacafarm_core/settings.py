"""Settings: what a person may choose, one class each, defaults from the papers.

The same class is the form in the Prefect UI, the flags of the command line and part of the key.
What only makes a run faster or fit is in `machine.py` and never here.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.committees import Ensemble
from alpacafarm_core.fitting import Margin, Odin, Views
from alpacafarm_core.values import LATER, Grown, Value

Scale = Literal["smoke", "small", "paper"]


class Sampling(Value):
    """How a policy is asked for answers."""

    n: int = Field(default=1, ge=1, description="Answers per prompt")
    temperature: float = Field(default=0.7, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus kept")
    max_tokens: int = Field(default=300, ge=1, description="Longest answer, in tokens")
    seed: int = Field(default=0, ge=0, description="Seed of every draw")

    def must_differ(self, least: int) -> None:
        """Raise ValueError, naming the field and the mend, without `least` chances to differ."""
        if self.n < least:
            raise ValueError(
                f"sampling.n {self.n} gives too few answers to rank; raise sampling.n to {least} "
                "or more"
            )
        if self.temperature == 0:
            raise ValueError(
                f"sampling.temperature 0 makes all sampling.n {self.n} answers the same; raise "
                "sampling.temperature"
            )


class Lora(Value):
    """Low-rank adaptation (Hu et al. 2021): W + alpha / rank * B A, in which only A and B learn."""

    rank: int = Field(default=16, ge=1, description="Rows of A, columns of B")
    alpha: float = Field(default=32, gt=0, description="Scale of the change, times the rank")
    targets: tuple[str, ...] = Field(
        default=(), description="Endings of adapted layers' names; none: all linear"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of A's inputs left out")


class Training(Grown):
    """One run of AdamW over fixed data."""

    learning_rate: float = Field(default=2e-5, gt=0, description="Peak learning rate")
    epochs: int = Field(default=3, ge=1, description="Passes over the data")
    batch: int = Field(default=128, ge=1, description="Rows per optimiser step")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="Decay to zero after warm-up"
    )
    warmup: float = Field(default=0.03, ge=0, lt=1, description="Share of steps warming up")
    adam_epsilon: float = Field(default=1e-8, gt=0, description="Epsilon of AdamW")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay")
    clip: float = Field(default=1.0, gt=0, description="Largest gradient norm")
    max_length: int = Field(default=512, ge=8, description="Tokens of prompt and response")
    seed: int = Field(default=42, ge=0, description="Seed of order and dropout")
    lora: Annotated[Lora | None, LATER] = Field(
        default=None, description="Learn an adapter, not all weights"
    )


BUDGET = Training(learning_rate=2e-4, epochs=1, batch=32, max_length=256)
"""What every method on pairs may spend in the built-in world, so that they can be compared."""


class Fitting(Grown):
    """How a reward model is fitted: Bradley-Terry on the last response token."""

    training: Training = Field(
        default=Training(learning_rate=3e-6, epochs=1, batch=16),
        description="Optimiser of the reward model",
    )
    held_out: int = Field(default=500, ge=0, description="Pairs kept for accuracy")
    seed: int = Field(default=42, ge=0, description="Seed of the held-out split")
    above_length: bool = Field(default=True, description="Must beat preferring the longer one")
    margin: Annotated[Margin | None, LATER] = Field(
        default=None, description="Gaps that the rewards should have"
    )
    penalty: Annotated[float, LATER] = Field(
        default=0.0, ge=0, description="Weight of the squared rewards (Reg)"
    )
    odin: Annotated[Odin | None, LATER] = Field(
        default=None, description="A second head that takes up length"
    )
    views: Annotated[Views, LATER] = Field(
        default=Views(), description="Learning from samples, where there are some"
    )
    head: Annotated[int | None, LATER] = Field(
        default=None, ge=0, description="Seed of the head; none: the training's"
    )
    share: Annotated[float, LATER] = Field(
        default=1.0, gt=0, le=1, description="Share of the pairs learned from"
    )
    committee: Annotated[Ensemble | None, LATER] = Field(
        default=None, description="Several reward models in place of one"
    )

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """AlpacaFarm's settings, or those of the built-in world's tiny model."""
        if scale == "paper":
            return cls()
        training = Training(learning_rate=3e-4, epochs=2, batch=64, warmup=0.1, max_length=256)
        return cls(training=training)

    def for_two(self) -> Self:
        """The same for a judge that reads two answers at once, which takes twice the length."""
        longest = 2 * self.training.max_length
        return self.replace(training=self.training.replace(max_length=longest))

    def members(self) -> "tuple[Fitting, ...]":
        """How each reward model is fitted: one, or those of the committee.

        The first is fitted as it would be alone, unless the committee says otherwise; the held-out
        pairs are the same for all.
        """
        if (many := self.committee) is None:
            return (self,)
        seed, found = self.training.seed, []
        for at in range(many.members):
            rate = many.rates[at % len(many.rates)] if many.rates else self.training.learning_rate
            training = self.training.replace(seed=seed + at, learning_rate=rate)
            share = many.shares[at % len(many.shares)] if many.shares else self.share
            head = self.head
            if at and head is None and many.combine == "weights":
                head = seed
            alone = self.replace(committee=None, training=training, share=share, head=head)
            found.append(alone)
        return tuple(found)


class Rule(Value):
    """Which rows `select` keeps."""

    keep: Literal["best", "chosen", "critiques"] = Field(
        default="best", description="Top score, preferred output, or every critique"
    )


class Looking(Value):
    """Which responses of a table a policy looks at."""

    responses: Literal["given", "mismatched"] = Field(
        default="given", description="Its own, or those chosen for other prompts"
    )
    max_length: int = Field(default=512, ge=8, description="Tokens of prompt and response")


class Ranking(Value):
    """Which answers of a prompt make a pair; 1 is the best, 2 the second, -1 the worst."""

    chosen: int = Field(default=1, description="Place of the chosen answer")
    rejected: int | tuple[int, ...] = Field(
        default=-1, description="Place of the rejected; several make several pairs"
    )
    gold: int | None = Field(default=None, description="Place of an answer to imitate")

    @property
    def losers(self) -> tuple[int, ...]:
        """Every place of a rejected answer."""
        return (self.rejected,) if isinstance(self.rejected, int) else self.rejected

    @property
    def least(self) -> int:
        """So many different answers of a prompt are in places that are all different."""
        places = [self.chosen, *self.losers, self.gold or self.chosen]
        return max(0, *places) + max(0, *(-place for place in places))

    @model_validator(mode="after")
    def _on_the_list(self) -> Self:
        places = [self.chosen, *self.losers, *([] if self.gold is None else [self.gold])]
        if 0 in places or len(set(places)) < len(places):
            raise ValueError("places differ and count from 1, or from -1 at the end")
        return self


class Rejection(Value):
    """Which answers pass for draws from a better policy, to be paired as they come."""

    keep: int = Field(default=8, ge=2, description="Answers accepted per prompt")
    beta: float = Field(default=0.5, gt=0, description="Reward that costs a factor e")
    copies: bool = Field(default=True, description="Copies of an answer count too")
    seed: int = Field(default=0, ge=0, description="Seed of accepting")


class Winning(Value):
    """How probably an answer wins, where all answers to a prompt were compared."""

    probability: Literal["aggregated", "pairwise"] = Field(
        default="aggregated", description="Of summed-up scores, or mean over pairs"
    )
    against: Literal["all", "rival"] = Field(
        default="all", description="All answers, or the other of its pair"
    )


Pairing = Ranking | Rejection | Winning


class Truth(Value):
    """The built-in world's own utility as a judge: what nobody knows elsewhere."""

    name: Literal["truth"] = "truth"
