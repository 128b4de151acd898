"""Synthesis: what a policy is asked to invent, and the tables that come of it; Magpie.

Xu et al. 2024 (arXiv 2406.08464): a policy that is given only the text before a user's turn writes
a plausible user's turn. Settings and kinds of tables only; `inventing.py` and `sifting.py` compute.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from alpacafarm_core.artifacts import (
    REAL,
    TEXT,
    WHOLE,
    Columns,
    Demonstrations,
    Instructions,
    Scores,
    Table,
)
from alpacafarm_core.ratings import Tags
from alpacafarm_core.settings import Sampling
from alpacafarm_core.values import Value
from alpacafarm_core.weights import Policy

RULES = ("numbering", "prefix", "answer", "steps", "first")
"""Ways to tidy a drawn text, in the order in which they are tried; see `inventing.tidied`."""

Rule = Literal["numbering", "prefix", "answer", "steps", "first"]

_DRAWN: Columns = {
    **Instructions.columns,
    "asked": TEXT,
    "prompt": TEXT,
    "history": TEXT,
    "shard": WHOLE,
    "number": WHOLE,
    "temperature": REAL,
    "top_p": REAL,
    "seed": WHOLE,
    "raw": TEXT,
    "rule": TEXT,
}


class Drafts(Table):
    """Draws from the text before a user's turn, usable or not; one row a draw.

    `asked` is what the last turn asks, which `instruction` has behind the turns before; those are
    the `history`, JSON of messages with role and content. `prompt` is what an answer is drawn from,
    without any system text. `shard` and `number` say which draw it is, `raw` what the policy wrote,
    `rule` how that was tidied, joined by "+". `status` is ok, or why the draw cannot be used:
    empty, special (a special token inside), unfinished (no stop in time) or no_input.
    """

    kind = "drafts"
    columns: ClassVar[Columns] = {**_DRAWN, "status": TEXT}


class Invented(Instructions):
    """Usable draws that no evaluation asks."""

    kind = "invented"
    columns: ClassVar[Columns] = _DRAWN


class Neighbours(Table):
    """How near the nearest other row is, one row a row of another table, in its order.

    Distances are squared L2 of unit vectors, 2 - 2 cos. `repeat_count` is the number of other rows
    within the threshold; `min_similar_id` the lowest of their numbers if it is below the row's own,
    else the row's own, null where there is none.
    """

    kind = "neighbours"
    columns: ClassVar[Columns] = {
        **Instructions.columns,
        "min_neighbor_distance": REAL,
        "repeat_count": WHOLE,
        "min_similar_id": WHOLE,
    }


_FOUND: Columns = {
    "finish_reason": TEXT,
    "difficulty": TEXT,
    "quality": TEXT,
    "task": TEXT,
    "language": TEXT,
    "reward": REAL,
    "reward_difference": REAL,
    "min_neighbor_distance": REAL,
    "repeat_count": WHOLE,
    "min_similar_id": WHOLE,
    "length": WHOLE,
}


class Sifted(Table):
    """Invented instructions with answers and all that was found out about them.

    `removed_by` names the filter that left the row out, "" where it is kept; `reward_difference` is
    to a base model's answer, `length` that of the answer in characters. What nobody looked at is
    null.
    """

    kind = "sifted"
    columns: ClassVar[Columns] = {
        **Demonstrations.columns,
        "asked": TEXT,
        "prompt": TEXT,
        "history": TEXT,
        "shard": WHOLE,
        "number": WHOLE,
        "rule": TEXT,
        **_FOUND,
        "removed_by": TEXT,
    }


class Synthetic(Demonstrations):
    """Demonstrations that a policy asked and answered itself.

    `prompt`, `asked` and `history` are as in Drafts.
    """

    kind = "synthetic"
    columns: ClassVar[Columns] = {
        **Demonstrations.columns,
        "asked": TEXT,
        "prompt": TEXT,
        "history": TEXT,
    }


class Shard(Value):
    """Some draws at one temperature and nucleus."""

    temperature: float = Field(default=1.0, gt=0, description="Temperature of the draws")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus of the draws")
    count: int = Field(default=1000, ge=1, description="Draws; more keep the earlier ones")


AIR = tuple(
    Shard(temperature=temperature, top_p=top_p, count=count)
    for temperature, count in ((1.0, 300_000), (1.1, 300_000), (1.2, 300_000), (1.25, 100_000))
    for top_p in (1.0, 0.995, 0.99)
)
"""Magpie-Air's draws: three million from Llama-3-8B-Instruct."""

PRO = tuple(
    Shard(temperature=temperature, top_p=top_p, count=count)
    for temperature, top_p, count in (
        (1.0, 1.0, 300_000),
        (1.1, 0.995, 300_000),
        (1.2, 0.995, 300_000),
        (1.25, 0.99, 100_000),
    )
)
"""Magpie-Pro's draws: one million from Llama-3-70B-Instruct."""


class Inventing(Value):
    """How instructions are drawn from the text before a user's turn."""

    shards: tuple[Shard, ...] = Field(default=AIR, min_length=1, description="Draws, by decoding")
    layout: Literal["farm", "chat"] = Field(
        default="farm", description="Wording as elsewhere, or chat template"
    )
    system: str = Field(default="", description="Text before the turn, to steer it")
    inputs: int = Field(default=0, ge=0, description="One draw in so many has an input")
    max_tokens: int = Field(default=2048, ge=1, description="Longest instruction, in tokens")
    newline: bool = Field(default=True, description="A newline ends the instruction")
    stops: tuple[str, ...] = Field(default=(), description="Further tokens that end it")
    words: tuple[str, ...] = Field(default=("assistant",), description="Words that end it")
    tidy: tuple[Rule, ...] = Field(default=(), description="Rules that tidy what was drawn")
    first_temperature: float = Field(
        default=1.0, gt=0, description="Factor on the first token's temperature"
    )
    never_first: tuple[str, ...] = Field(default=(), description="Tokens never drawn first")
    seed: int = Field(default=0, ge=0, description="Seed of every draw")

    @model_validator(mode="after")
    def _has_a_place_for_inputs(self) -> Self:
        if self.inputs and self.layout == "chat":
            raise ValueError(
                f"inputs {self.inputs} asks for draws with an input, and a chat template has no "
                "place for one; set inputs to 0 or layout to farm"
            )
        return self


class Following(Value):
    """How a conversation goes on: the policy is told that its user will ask again."""

    system: str = Field(
        default="A user and an assistant talk. The user goes on with a further question about "
        "what was said.\n\n",
        description="Text that asks for a next question",
    )
    temperature: float = Field(default=1.0, gt=0, description="Temperature of the next question")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus of the next question")


class Spelled(Value):
    """Texts as counts of their character n-grams, hashed: near where the wording is."""

    name: Literal["spelled"] = "spelled"
    n: int = Field(default=3, ge=1, le=8, description="Characters of an n-gram")
    dimensions: int = Field(default=512, ge=8, description="Numbers of a vector")


class Read(Value):
    """Texts as the mean of a model's last hidden states: a policy's, or an encoder's."""

    name: Literal["read"] = "read"
    model: Policy = Field(description="Model that reads them")


Embedding = Annotated[Spelled | Read, Field(discriminator="name")]


class Nearness(Value):
    """When two instructions count as near duplicates."""

    embedding: Embedding = Field(default=Spelled(), description="How texts become vectors")
    threshold: float = Field(
        default=0.05, ge=0, le=4, description="Largest squared distance of near ones"
    )


class Evidence(Value):
    """What is known of invented instructions and their answers, each table in their order."""

    tags: Tags | None = None
    scores: Scores | None = None
    base_scores: Scores | None = None
    neighbours: Neighbours | None = None


class Filtering(Value):
    """Which rows are kept; None asks for nothing. The longest answers are taken last."""

    quality: tuple[str, ...] = Field(
        default=("good", "excellent"), description="Allowed quality; none: any"
    )
    difficulty: tuple[str, ...] = Field(default=(), description="Allowed difficulty; none: any")
    language: str = Field(default="", description="Wanted ISO code; empty is any")
    reward_above: float | None = Field(default=-10.0, description="Least reward, not included")
    difference_above: float | None = Field(
        default=None, description="Least reward over the base's answer"
    )
    distance_above: float | None = Field(
        default=None, description="Least distance to the nearest, not included"
    )
    repeats: bool = Field(default=False, description="Keep near duplicates of earlier rows")
    colon: bool = Field(default=False, description="Keep instructions that end in a colon")
    unfinished: bool = Field(default=False, description="Keep answers that were cut off")
    longest: int | None = Field(
        default=300_000, ge=1, description="Rows kept, those with longest answers"
    )

    @property
    def needs_tags(self) -> bool:
        """Whether a judge has to tag the rows."""
        return bool(self.quality or self.difficulty)


class Synthesis(Value):
    """From nothing but a policy to demonstrations: draw, answer, look, sift."""

    inventing: Inventing = Field(default=Inventing(), description="How instructions are drawn")
    answering: Sampling = Field(
        default=Sampling(temperature=0.0, max_tokens=4096), description="How they are answered"
    )
    turns: int = Field(default=1, ge=1, description="Turns of a conversation; 1 is single")
    following: Following = Field(default=Following(), description="How a conversation goes on")
    taggers: str = Field(default="", description="Panel that tags, or its YAML; empty: none")
    nearness: Nearness = Field(default=Nearness(), description="What near duplicates are")
    filtering: Filtering = Field(default=Filtering(), description="Which rows are kept")

    @model_validator(mode="after")
    def _answers_once(self) -> Self:
        if self.answering.n != 1:
            raise ValueError(
                f"answering.n {self.answering.n} gives an instruction several answers; a "
                "demonstration has one, so set answering.n to 1"
            )
        return self
