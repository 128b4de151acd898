"""What an instruction asks for, as plain values.

A family of instructions has a way to draw a question and a way to say what a good answer to it
*needs*. Needs are read from the text of the instruction and its input alone, and every family
states them in the same few terms, so that one short grader (`utility`) serves them all.
"""

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import NamedTuple

from alpacafarm_core.world.facts import Thing, column, values

Slots = Mapping[str, str]

WISHES = ("list", "one", "two", "short", "full")


class Question(NamedTuple):
    """A drawn content: the words for the gaps of a phrasing, and the input ("" when none)."""

    slots: Slots
    input: str = ""


class Needs(NamedTuple):
    """What a good answer needs. All words are lower case.

    points     things to say; each is said by any one of its words
    pool       right items, of which `number` different ones are asked for
    exact      whether more items than `number` are too many
    sequence   the order in which the items must come (empty: any)
    claims     for each subject, the words that are true of it and the field each one fills
    claimable  words that claim something; false of a subject whose claims lack them
    facts      how many true claims an answer must make
    wrong      words that have no place in the answer
    extras     words that add useful detail
    goal       how many claims, items and extras beyond the needed ones make the detail full
               (0: nothing more is wanted)
    sentences  how many sentences are asked for (0: not said)
    mark       the mark the answer must end with ("": not said)
    length     words up to which an answer is not too long
    """

    points: tuple[frozenset[str], ...] = ()
    pool: frozenset[str] = frozenset()
    number: int = 0
    exact: bool = False
    sequence: tuple[str, ...] = ()
    claims: Mapping[str, Mapping[str, str]] = {}
    claimable: frozenset[str] = frozenset()
    facts: int = 0
    wrong: frozenset[str] = frozenset()
    extras: frozenset[str] = frozenset()
    goal: int = 3
    sentences: int = 0
    mark: str = ""
    length: int = 30


class Family(NamedTuple):
    """A family of instructions.

    `draw` invents a question; `needs` reads one back, and returns None where the words do not
    make sense; `wishes` are the ways of answering that one may ask for in addition.
    """

    name: str
    draw: Callable[[Random], Question]
    needs: Callable[[Slots, str], Needs | None]
    wishes: tuple[str, ...] = ()
    has_input: bool = False


class Task(NamedTuple):
    """An instruction understood: its family, the words in its gaps, the wish and the needs."""

    family: str
    slots: Slots
    input: str
    wish: str
    needs: Needs


def words(*texts: str) -> frozenset[str]:
    """The words of some space-separated texts, in lower case."""
    return frozenset(" ".join(texts).lower().split())


def key(value: str) -> str:
    """The word by which a value is recognised: its last, in lower case ("cut wood": "wood")."""
    return value.split()[-1].lower()


def true_of(thing: Thing) -> Mapping[str, str]:
    """The words that are true of a thing, and the field each one fills."""
    return {key(value): field for field, value in thing.facts.items()}


def claimable_in(table: str, fields: Iterable[str]) -> frozenset[str]:
    """Every word by which some field of a table is recognised."""
    return frozenset(key(value) for field in fields for value in values(table, field))


def names(table: str) -> frozenset[str]:
    """The names of a table, in lower case."""
    return frozenset(name.lower() for name in column(table))
