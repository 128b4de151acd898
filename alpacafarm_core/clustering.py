"""Answers that say the same: how that is decided, and which of a prompt then belong together.

The greedy rule: each answer is compared with the first member of every cluster there is, joins the
first that it equals, else opens one. Grouping asks its questions one at a time and is told the
answers, so that any number of prompts can have theirs answered in one batch.
"""

import re
from collections.abc import Callable, Generator, Sequence
from typing import Annotated, Literal, NamedTuple

import polars as pl
from pydantic import Field

from alpacafarm_core.artifacts import Clusters
from alpacafarm_core.select import PROMPT
from alpacafarm_core.values import Value

WORD = re.compile(r"\w+")
EMPTY = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "he",
        "her",
        "his",
        "i",
        "if",
        "in",
        "is",
        "it",
        "its",
        "me",
        "my",
        "of",
        "on",
        "or",
        "our",
        "she",
        "so",
        "some",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "we",
        "were",
        "which",
        "who",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)
"""Words that say nothing by themselves."""


class Exact(Value):
    """The same words, whatever their case and the marks between them."""

    name: Literal["exact"] = "exact"


class Overlap(Value):
    """Mostly the same content words: those of both over those of either."""

    name: Literal["overlap"] = "overlap"
    threshold: float = Field(default=0.8, gt=0, le=1, description="Least share of words in both")


class Canonical(Value):
    """The same items, claims and errors, as the built-in world reads them; only for its prompts."""

    name: Literal["canonical"] = "canonical"


class Entailment(Value):
    """Each follows from the other, by a model fine-tuned on MNLI; the prompt stands before both."""

    name: Literal["entailment"] = "entailment"
    model: str = Field(
        default="microsoft/deberta-large-mnli", description="Folder or hub name, with safetensors"
    )
    rule: Literal["both_entail", "one_entails", "no_contradiction"] = Field(
        default="both_entail", description="What is equal; the loosest counts neutral"
    )
    max_length: int = Field(default=512, ge=16, description="Tokens of both texts together")


Told = Annotated[Exact | Overlap | Canonical, Field(discriminator="name")]
Clustering = Annotated[Exact | Overlap | Canonical | Entailment, Field(discriminator="name")]


class Agreement(Value):
    """Which pairs a prompt's clusters make: one of the largest over one outside it."""

    gamma: float = Field(default=0.5, ge=0, description="Least share that agrees; above 1: none")
    winner: Literal["argmax", "random"] = Field(
        default="argmax", description="Best by its score, or any that agrees"
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draws")


class Question(NamedTuple):
    """Whether two answers to a prompt say the same; `first` opened its cluster.

    `prompt` is the instruction and its input.
    """

    prompt: tuple[str, str]
    first: str
    other: str


Ask = Callable[[Sequence[Question]], Sequence[bool]]
Grouping = Generator[tuple[str, str], bool, list[int]]


def clustered(rows: pl.DataFrame, ask: Ask) -> pl.DataFrame:
    """Scored answers as Clusters, in their order; `ask` answers a question of each prompt at once.

    Answers of a prompt are taken by their `sample_index`; its clusters are numbered from 0 as they
    are opened.
    """
    numbered = rows.with_row_index("at").sort("sample_index", maintain_order=True)
    each = numbered.group_by(PROMPT, maintain_order=True).agg("at", "output")
    prompts = list(each.select(PROMPT).iter_rows())
    found = in_step(
        [grouping(answers) for answers in each["output"].to_list()],
        lambda asked: ask([Question(prompts[at], *pair) for at, pair in asked]),
    )
    groups = each.select("at").with_columns(cluster=pl.Series(found, dtype=pl.List(pl.Int64)))
    told = groups.explode("at", "cluster").sort("at")
    size = pl.len().over(*PROMPT, "cluster")
    made = rows.with_columns(told["cluster"]).with_columns(
        confidence=size.max().over(PROMPT) / pl.len().over(PROMPT)
    )
    return made.select(pl.col(name).cast(kind) for name, kind in Clusters.columns.items())


def grouping(answers: Sequence[str]) -> Grouping:
    """Asks whether pairs of answers say the same and gives the cluster of each answer.

    Answers with equal texts are in one cluster and asked about once.
    """
    openers, known = list[str](), dict[str, int]()
    for answer in answers:
        if answer in known:
            continue
        known[answer] = len(openers)
        for number, opener in enumerate(openers):
            if (yield opener, answer):
                known[answer] = number
                break
        else:
            openers.append(answer)
    return [known[answer] for answer in answers]


def in_step(
    groupings: Sequence[Grouping],
    ask: Callable[[Sequence[tuple[int, tuple[str, str]]]], Sequence[bool]],
) -> list[list[int]]:
    """What each grouping ends with; the open questions of all are asked together, by number."""
    found: dict[int, list[int]] = {}
    told: dict[int, bool | None] = dict.fromkeys(range(len(groupings)))
    while told:
        asked = []
        for at, answer in told.items():
            try:
                asked.append((at, groupings[at].send(answer)))  # type: ignore[arg-type]
            except StopIteration as end:
                found[at] = end.value
        told = dict(zip((at for at, _ in asked), ask(asked) if asked else (), strict=True))
    return [found[at] for at in range(len(groupings))]


def asking(clustering: Told) -> Ask:
    """Answers to questions that need no model."""
    match clustering:
        case Exact():
            return lambda asked: [normal(one.first) == normal(one.other) for one in asked]
        case Overlap(threshold=least):
            return lambda asked: [overlap(one.first, one.other) >= least for one in asked]
        case Canonical():
            from alpacafarm_core.world.meaning import meaning

            def mean_the_same(one: Question) -> bool:
                return meaning(*one.prompt, one.first) == meaning(*one.prompt, one.other)

            return lambda asked: [mean_the_same(one) for one in asked]


def normal(text: str) -> str:
    """The words of a text in lower case, with one space between them.

    >>> normal("Paris,  France!")
    'paris france'
    """
    return " ".join(WORD.findall(text.casefold()))


def overlap(one: str, other: str) -> float:
    """Content words of both texts over those of either; all words where one has no others.

    >>> overlap("It is a red fruit.", "A red apple.")
    0.3333333333333333
    """
    sides = [frozenset(WORD.findall(text.casefold())) for text in (one, other)]
    full = [side - EMPTY for side in sides]
    first, second = full if all(full) else sides
    either = first | second
    return len(first & second) / len(either) if either else 1.0
