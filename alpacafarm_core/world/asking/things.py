"""Instructions about things: list, describe, compare, choose, suggest, pick."""

from collections.abc import Mapping
from functools import cache
from random import Random

from alpacafarm_core.world.facts import (
    NUMBERS,
    TABLES,
    Category,
    Phrase,
    Thing,
    by_noun,
    categories,
    column,
    phrases,
    things,
    worded,
)
from alpacafarm_core.world.tasks import (
    Family,
    Needs,
    Question,
    Slots,
    claimable_in,
    names,
    true_of,
)


@cache
def by_among() -> Mapping[str, Category]:
    """The categories by their plural: "animals that eat meat"."""
    return {category.among: category for category in categories()}


@cache
def by_such() -> Mapping[str, Category]:
    """The categories by their singular: "an animal that eats meat"."""
    return {category.such: category for category in categories() if category.value}


@cache
def by_aspect(table: str) -> Mapping[str, Phrase]:
    """The phrases of a table by the question they answer: "what it eats"."""
    return {phrase.aspect: phrase for phrase in phrases(table).values()}


@cache
def claims(table: str, members: tuple[str, ...]) -> Mapping[str, Mapping[str, str]]:
    """What is true of each of some things of a table, by lower-case name."""
    return {name.lower(): true_of(things(table)[name]) for name in members}


@cache
def claimable(table: str) -> frozenset[str]:
    """Every word that claims something about the things of a table."""
    return claimable_in(table, phrases(table))


def _any_thing(rng: Random) -> Thing:
    table = rng.choice(TABLES)
    return things(table)[rng.choice(column(table))]


def _two_things(rng: Random) -> tuple[Thing, Thing]:
    table = rng.choice(TABLES)
    first, second = rng.sample(column(table), 2)
    return things(table)[first], things(table)[second]


def draw_list(rng: Random) -> Question:
    """A number of things of a category."""
    category = rng.choice(categories())
    most = min(5, len(category.members) - 1)
    return Question({"count": NUMBERS[rng.randint(2, most)], "among": category.among})


def needs_list(slots: Slots, _: str) -> Needs | None:
    """So many different members; the other things of the table are wrong; facts are detail."""
    category = by_among().get(slots["among"])
    if category is None or slots["count"] not in NUMBERS:
        return None
    count, table = NUMBERS.index(slots["count"]), category.phrase.table
    pool = frozenset(member.lower() for member in category.members)
    return Needs(
        pool=pool,
        number=count,
        exact=True,
        claims=claims(table, category.members),
        claimable=claimable(table),
        wrong=names(table) - pool,
        goal=2,
        length=16 + 4 * count,
    )


def draw_describe(rng: Random) -> Question:
    """One thing, with one or two aspects that some phrasings ask for."""
    thing = _any_thing(rng)
    aspects = [phrase.aspect for phrase in phrases(thing.table).values()]
    asked = rng.sample(aspects, rng.randint(1, 2))
    return Question({"noun": thing.noun, "aspect": " and ".join(asked)})


def needs_describe(slots: Slots, _: str) -> Needs | None:
    """The aspects asked for, or any two facts; more facts are detail."""
    thing = by_noun().get(slots["noun"])
    if thing is None:
        return None
    known = by_aspect(thing.table)
    asked = slots["aspect"].split(" and ") if slots.get("aspect") else []
    if any(aspect not in known for aspect in asked):
        return None
    fields = [known[aspect].field for aspect in asked]
    points = tuple(
        frozenset(word for word, field in true_of(thing).items() if field == asked_field)
        for asked_field in fields
    )
    return _about((thing,), Needs(points=points, facts=2, goal=2, length=28))


def _about(subjects: tuple[Thing, ...], needs: Needs) -> Needs:
    """Needs of an answer about things of one table: every other name of the table is wrong."""
    table = subjects[0].table
    known = claims(table, tuple(thing.name for thing in subjects))
    return needs._replace(
        claims=known, claimable=claimable(table), wrong=needs.wrong | (names(table) - set(known))
    )


def draw_compare(rng: Random) -> Question:
    """Two things of one table."""
    first, second = _two_things(rng)
    return Question({"first": first.noun, "second": second.noun})


def _pair(slots: Slots) -> tuple[Thing, Thing] | None:
    first, second = by_noun().get(slots["first"]), by_noun().get(slots["second"])
    if first is None or second is None or first.table != second.table:
        return None
    return first, second


def needs_compare(slots: Slots, _: str) -> Needs | None:
    """Both named, and two facts; more facts are detail."""
    pair = _pair(slots)
    if pair is None:
        return None
    points = tuple(frozenset({thing.name.lower()}) for thing in pair)
    return _about(pair, Needs(points=points, facts=2, goal=2, length=34))


def draw_choose(rng: Random) -> Question:
    """A claim that is true of exactly one of two things."""
    while True:
        first, second = _two_things(rng)
        field = rng.choice(list(first.facts))
        if first.facts[field] != second.facts[field]:
            break
    right = rng.choice((first, second))
    claim = worded(phrases(right.table)[field].says[0], right.facts[field])
    return Question({"claim": claim, "first": first.noun, "second": second.noun})


def needs_choose(slots: Slots, _: str) -> Needs | None:
    """The right one named with the claim; what else is true of the two is detail."""
    pair = _pair(slots)
    if pair is None:
        return None
    fits = [thing for thing in pair if slots["claim"] in said_of(thing)]
    if len(fits) != 1:
        return None
    points = (frozenset({fits[0].name.lower()}),)
    return _about(pair, Needs(points=points, facts=1, goal=2, length=26))


@cache
def _said_of(noun: str) -> frozenset[str]:
    thing = by_noun()[noun]
    known = phrases(thing.table)
    return frozenset(
        worded(phrase, value)
        for field, value in thing.facts.items()
        for phrase in known[field].says
    )


def said_of(thing: Thing) -> frozenset[str]:
    """Every verb phrase that is true of a thing."""
    return _said_of(thing.noun)


def draw_suggest(rng: Random) -> Question:
    """One thing of a category."""
    return Question({"such": rng.choice(list(by_such()))})


def needs_suggest(slots: Slots, _: str) -> Needs | None:
    """One member, and a true fact about it as the reason; more facts are detail."""
    category = by_such().get(slots["such"])
    if category is None:
        return None
    table = category.phrase.table
    pool = frozenset(member.lower() for member in category.members)
    return Needs(
        pool=pool,
        number=1,
        claims=claims(table, category.members),
        claimable=claimable(table),
        facts=1,
        wrong=names(table) - pool,
        goal=2,
        length=26,
    )


def draw_pick(rng: Random) -> Question:
    """A list of names in which two to four belong to the table asked for."""
    table, *others = rng.sample(TABLES, 3)
    right = rng.sample(column(table), rng.randint(2, 4))
    rest = [rng.choice(column(rng.choice(others))) for _ in range(rng.randint(1, 3))]
    mixed = list(dict.fromkeys(right + rest))
    rng.shuffle(mixed)
    return Question({"among": table}, ", ".join(mixed))


def needs_pick(slots: Slots, text: str) -> Needs | None:
    """Every name that belongs, and none that does not."""
    if slots["among"] not in TABLES:
        return None
    table, listed = slots["among"], text.split(", ")
    right = tuple(name for name in listed if name in things(table))
    if not right:
        return None
    pool = frozenset(name.lower() for name in right)
    return Needs(
        pool=pool,
        number=len(pool),
        wrong=(frozenset(name.lower() for name in listed) | names(table)) - pool,
        goal=0,
        length=10 + 4 * len(pool),
    )


FAMILIES = (
    Family("list", draw_list, needs_list, ("list", "one", "short", "full")),
    Family("describe", draw_describe, needs_describe, ("list", "one", "two", "short", "full")),
    Family("compare", draw_compare, needs_compare, ("list", "one", "two", "full")),
    Family("choose", draw_choose, needs_choose, ("one", "two", "short", "full")),
    Family("suggest", draw_suggest, needs_suggest, ("one", "two", "short", "full")),
    Family("pick", draw_pick, needs_pick, ("list", "one"), has_input=True),
)
