"""What is true in the built-in world: a few small tables of real facts.

Every table is a CSV file in `data/world/`, so that a person can read and correct the whole world
in an editor. A *thing* (a cow, France, a hammer) has one row with one value per field, and
`phrases.csv` says how each field is put into words. Instructions, utility and writers all take
their knowledge from here and from nowhere else, so they cannot disagree about what is true.
"""

import csv
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[2] / "data" / "world"

TABLES = ("animals", "countries", "foods", "tools", "jobs", "instruments", "sports", "plants")

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Thing(NamedTuple):
    """One row of a table of things; `facts` maps a field to its value in words."""

    table: str
    name: str
    noun: str
    facts: Mapping[str, str]


class Phrase(NamedTuple):
    """How one field of a table is put into words; `{}` stands for the value.

    `says` are verb phrases ("eats {}"), `among` names the things that share a value in the
    plural ("animals that eat {}", empty when nobody would ask), `aspect` asks for the field
    ("what it eats").
    """

    table: str
    singular: str
    field: str
    says: tuple[str, ...]
    among: str
    aspect: str


class Category(NamedTuple):
    """Things of one table that share a value: the birds, the countries in Asia."""

    among: str
    such: str
    phrase: Phrase
    value: str
    members: tuple[str, ...]


@cache
def rows(table: str) -> tuple[dict[str, str], ...]:
    """The rows of `data/world/<table>.csv`, in the order of the file."""
    with (FOLDER / f"{table}.csv").open(encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines))


@cache
def column(table: str, name: str = "name") -> tuple[str, ...]:
    """One column of a table, in the order of the file."""
    return tuple(row[name] for row in rows(table))


@cache
def things(table: str) -> Mapping[str, Thing]:
    """The things of a table by name."""
    return {row["name"]: _thing(table, row) for row in rows(table)}


def _thing(table: str, row: Mapping[str, str]) -> Thing:
    noun = f"{row['article']} {row['name']}".strip()
    facts = {field: row[field] for field in row if field not in ("name", "article")}
    return Thing(table, row["name"], noun, facts)


@cache
def by_noun() -> Mapping[str, Thing]:
    """Every thing by its noun with article: "the cow", "France"."""
    return {thing.noun: thing for table in TABLES for thing in things(table).values()}


@cache
def phrases(table: str) -> Mapping[str, Phrase]:
    """How the fields of a table are put into words, by field."""
    return {
        row["field"]: Phrase(
            table,
            row["singular"],
            row["field"],
            tuple(row["says"].split("|")),
            row["among"],
            row["aspect"],
        )
        for row in rows("phrases")
        if row["table"] == table
    }


@cache
def places() -> Mapping[str, str]:
    """A place with its preposition, by name: "farm" is "on a farm"."""
    return {row["name"]: row["phrase"] for row in rows("places")}


def worded(phrase: str, value: str) -> str:
    """A phrase with its value filled in, with the right preposition and article.

    >>> worded("lives {}", "farm")
    'lives on a farm'
    """
    filled = phrase.replace("{}", places().get(value, value))
    return re.sub(r"\ba (?=[aeiou])", "an ", filled)


@cache
def values(table: str, field: str) -> tuple[str, ...]:
    """All values a field takes in a table, each once, in the order of the file."""
    return tuple(dict.fromkeys(thing.facts[field] for thing in things(table).values()))


@cache
def categories() -> tuple[Category, ...]:
    """Everything one can ask a list of: whole tables, and values shared by three things or more."""
    found = [_whole(table) for table in TABLES]
    for table in TABLES:
        for phrase in phrases(table).values():
            shared = [_sharing(phrase, value) for value in values(table, phrase.field)]
            found += [one for one in shared if phrase.among and len(one.members) >= 3]
    return tuple(found)


def _whole(table: str) -> Category:
    phrase = next(iter(phrases(table).values()))
    such = worded("a {}", phrase.singular)
    return Category(table, such, phrase, "", tuple(things(table)))


def _sharing(phrase: Phrase, value: str) -> Category:
    members = [
        name for name, thing in things(phrase.table).items() if thing.facts[phrase.field] == value
    ]
    such = worded("a {}", phrase.singular) + " that " + worded(phrase.says[0], value)
    return Category(worded(phrase.among, value), such, phrase, value, tuple(members))
