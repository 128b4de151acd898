"""Instructions with an input: answer from a passage, summarise, say a row, rewrite politely."""

import re
from collections.abc import Mapping
from functools import cache
from random import Random

from alpacafarm_core.world.facts import DAYS, column, rows, things, values
from alpacafarm_core.world.tasks import Family, Needs, Question, Slots, key, names, words

FIELDS = ("job", "city", "sport", "food", "day")

POLITE_WORDS = words("please could would kindly thank thanks kind may grateful")


@cache
def known(field: str) -> tuple[str, ...]:
    """The values a field of a person can take; the foods are those one buys without a number."""
    tables = {
        "job": column("jobs"),
        "city": column("countries", "capital"),
        "sport": column("sports"),
        "food": tuple(thing.name for thing in things("foods").values() if thing.noun == thing.name),
        "day": DAYS,
    }
    return tables[field]


@cache
def _claimable() -> frozenset[str]:
    return frozenset(value.lower() for field in FIELDS for value in known(field))


@cache
def pronouns() -> Mapping[str, str]:
    """ "He" or "she" for every person."""
    return {row["name"]: row["pronoun"] for row in rows("people")}


def _person(rng: Random) -> dict[str, str]:
    return {field: rng.choice(known(field)) for field in FIELDS}


def draw_passage(rng: Random) -> Question:
    """Two people in a few lines, and a question about one of them."""
    first, second = rng.sample(column("people"), 2)
    told = {first: _person(rng), second: _person(rng)}
    text = " ".join(_told(name, told[name]) for name in (first, second))
    slots = {"name": rng.choice((first, second)), "field": rng.choice(FIELDS)}
    return Question(slots, text)


def _told(name: str, person: Mapping[str, str]) -> str:
    job, pronoun = person["job"], pronouns()[name].capitalize()
    article = "an" if job[0] in "aeiou" else "a"
    return (
        f"{name} is {article} {job} in {person['city']}. "
        f"{pronoun} likes {person['sport']} and buys {person['food']} on {person['day']}."
    )


TOLD = re.compile(
    r"(?P<name>\w+) is an? (?P<job>\w+) in (?P<city>\w+)\. "
    r"\w+ likes (?P<sport>\w+) and buys (?P<food>\w+) on (?P<day>\w+)\."
)


def people_in(text: str) -> Mapping[str, Mapping[str, str]]:
    """The people of a passage: name to field to value."""
    return {
        match["name"]: {field: match[field] for field in FIELDS} for match in TOLD.finditer(text)
    }


def _claims(people: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
    return {
        name.lower(): {value.lower(): field for field, value in person.items()}
        for name, person in people.items()
    }


def needs_passage(slots: Slots, text: str) -> Needs | None:
    """The value asked for with its name, or three facts; what else the text says is detail."""
    people = people_in(text)
    name, field = slots["name"], slots.get("field", "")
    if name not in people or field not in ("", *FIELDS):
        return None
    points = [frozenset({name.lower()})]
    if field:
        points.append(frozenset({people[name][field].lower()}))
    return Needs(
        points=tuple(points),
        claims=_claims({name: people[name]}),
        claimable=_claimable(),
        facts=1 if field else 3,
        wrong=names("people") - {name.lower()},
        goal=2,
        length=22 if field else 26,
    )


def draw_summary(rng: Random) -> Question:
    """A record of one person with three to five fields."""
    name = rng.choice(column("people"))
    fields = sorted(rng.sample(FIELDS, rng.randint(3, 5)), key=FIELDS.index)
    person = _person(rng)
    lines = [f"name: {name}", *(f"{field}: {person[field]}" for field in fields)]
    return Question({}, "\n".join(lines))


def record_in(text: str, separator: str) -> Mapping[str, str]:
    """The fields of a record written as `field: value`."""
    pairs = (part.split(": ", 1) for part in text.split(separator))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def needs_summary(_: Slots, text: str) -> Needs | None:
    """The name and two of the fields; the other fields are detail."""
    record = dict(record_in(text, "\n"))
    name = record.pop("name", "")
    if name not in column("people") or not set(record) <= set(FIELDS):
        return None
    return Needs(
        points=(frozenset({name.lower()}),),
        claims=_claims({name: record}),
        claimable=_claimable(),
        facts=2,
        wrong=names("people") - {name.lower()},
        goal=len(record) - 2,
        length=24,
    )


def draw_row(rng: Random) -> Question:
    """A row of a shop's table: an item with a price, and often a colour and a place."""
    parts = {
        "item": rng.choice(column("tools")),
        "colour": rng.choice(values("foods", "colour")),
        "price": f"{rng.randint(2, 30)} dollars",
        "place": rng.choice(("market", "shop", "airport", "museum")),
    }
    dropped = rng.choice(("", "", "colour", "place"))
    return Question({}, " | ".join(f"{name}: {parts[name]}" for name in parts if name != dropped))


def needs_row(_: Slots, text: str) -> Needs | None:
    """Item and price; colour and place are detail."""
    record = record_in(text, " | ")
    if not {"item", "price"} <= set(record):
        return None
    item, price = record["item"], record["price"].split()[0]
    numbers = {str(number) for number in range(2, 31)}
    colours = set(values("foods", "colour"))
    return Needs(
        points=(frozenset({item}), frozenset({price}), frozenset({"dollars"})),
        wrong=(names("tools") | numbers | colours) - {item, price, record.get("colour", "")},
        extras=frozenset({record[field] for field in ("colour", "place") if field in record}),
        goal=len(record) - 2,
        length=18,
    )


def draw_rewrite(rng: Random) -> Question:
    """A short request, rudely put."""
    request = rng.choice(column("requests", "text")).format(rng.choice(column("tools")))
    ends = (".", " now.", " at once.", "!")
    text = request.capitalize() + rng.choice(ends)
    form = rng.choice(("polite question", "kind request"))
    return Question({"form": form}, text)


@cache
def requests() -> Mapping[str, str]:
    """Every request by its words without the rude end, with the thing it is about."""
    return {row["text"].format(tool): tool for row in rows("requests") for tool in column("tools")}


def bare(text: str) -> str:
    """A request without its rude end: "Find the pen at once." is "find the pen"."""
    return re.sub(r"( now| at once)?[.!]$", "", text).lower()


def needs_rewrite(slots: Slots, text: str) -> Needs | None:
    """The request itself and a polite word; more courtesy is detail, rudeness is wrong."""
    request = bare(text)
    if request not in requests() or slots.get("form", "kind request") not in FORMS:
        return None
    tool = requests()[request]
    return Needs(
        points=(
            frozenset({request.split()[0]}),
            frozenset({tool}),
            frozenset({key(request)}),
            POLITE_WORDS,
        ),
        wrong=(names("tools") - {tool}) | words("now once must"),
        extras=POLITE_WORDS,
        mark="?" if slots.get("form") == "polite question" else "",
        length=16,
    )


FORMS = ("polite question", "kind request")

FAMILIES = (
    Family("passage", draw_passage, needs_passage, ("one", "short"), has_input=True),
    Family("summary", draw_summary, needs_summary, ("one", "two", "list"), has_input=True),
    Family("row", draw_row, needs_row, ("one",), has_input=True),
    Family("rewrite", draw_rewrite, needs_rewrite, (), has_input=True),
)
