"""Instructions that ask for a text: steps, a letter, a story, a plan."""

from collections.abc import Mapping
from functools import cache
from random import Random

from alpacafarm_core.world.facts import NUMBERS, column, places, rows, worded
from alpacafarm_core.world.tasks import Family, Needs, Question, Slots, key, names, words

KIND_WORDS = words("hope soon happy kind beautiful lovely useful very help glad visit good")
STORY_WORDS = words("day found happy friend night together home finally suddenly smiled old rain")
DAY_PARTS = ("morning", "afternoon", "evening")


@cache
def steps_of() -> Mapping[str, tuple[str, ...]]:
    """The steps that lead to each goal, in their order."""
    return {row["goal"]: tuple(row["steps"].split("|")) for row in rows("steps")}


def draw_steps(rng: Random) -> Question:
    """A goal, with a number of steps and a person that some phrasings name."""
    goal = rng.choice(list(steps_of()))
    count = NUMBERS[rng.randint(2, 5)]
    return Question({"goal": goal, "count": count, "person": rng.choice(column("people"))})


def needs_steps(slots: Slots, _: str) -> Needs | None:
    """So many of the steps (three when not said) in their order; more are detail."""
    own = steps_of().get(slots["goal"])
    count = slots.get("count", "three")
    if own is None or count not in NUMBERS:
        return None
    if "person" in slots and slots["person"] not in column("people"):
        return None
    keys = tuple(key(step) for step in own)
    others = {key(step) for steps in steps_of().values() for step in steps}
    return Needs(
        pool=frozenset(keys),
        number=NUMBERS.index(count),
        sequence=keys,
        wrong=frozenset(others) - words(slots["goal"], *own),
        exact="count" in slots,
        goal=0 if "count" in slots else 2,
        length=12 + 5 * max(NUMBERS.index(count), 4),
    )


def draw_letter(rng: Random) -> Question:
    """A person to write to, and what for."""
    purpose = rng.choice(rows("purposes"))
    subject = rng.choice(column("tools" if purpose["object"] == "tool" else "events"))
    slots = {"person": rng.choice(column("people")), "purpose": purpose["text"].format(subject)}
    return Question(slots)


@cache
def purposes() -> Mapping[str, tuple[str, str]]:
    """Every purpose of a letter: the words that state it, and what it is about."""
    return {
        row["text"].format(subject): (row["words"], subject)
        for row in rows("purposes")
        for subject in column("tools" if row["object"] == "tool" else "events")
    }


def needs_letter(slots: Slots, _: str) -> Needs | None:
    """A greeting by name, the purpose with its object, a close; kind words are detail."""
    person = slots["person"].lower()
    if slots["purpose"] not in purposes() or person not in names("people"):
        return None
    stated, subject = purposes()[slots["purpose"]]
    return Needs(
        points=(
            words("dear hello hi"),
            frozenset({person}),
            words(stated),
            frozenset({subject}),
            words("yours wishes love greetings"),
        ),
        wrong=(names("people") | names("tools") | names("events")) - {person, subject},
        extras=KIND_WORDS - words(stated),
        length=34,
    )


def draw_story(rng: Random) -> Question:
    """A hero, an object and a place, with a number of sentences that some phrasings name."""
    table = rng.choice(("animals", "jobs"))
    return Question(
        {
            "hero": worded("a {}", rng.choice(column(table))),
            "object": worded("a {}", rng.choice(column("tools"))),
            "place": places()[rng.choice(column("places"))],
            "count": NUMBERS[rng.randint(2, 4)],
        }
    )


def needs_story(slots: Slots, _: str) -> Needs | None:
    """Hero, object and place, in so many sentences; the words of a story are detail."""
    hero, subject = key(slots["hero"]), key(slots["object"])
    count = slots.get("count", "no")
    heroes = names("animals") | names("jobs")
    if hero not in heroes or subject not in names("tools") or count not in NUMBERS:
        return None
    if slots["place"] not in places().values():
        return None
    return Needs(
        points=tuple(frozenset({word}) for word in (hero, subject, key(slots["place"]))),
        wrong=(heroes | names("tools")) - {hero, subject, *words(slots["place"])},
        extras=STORY_WORDS - {key(slots["place"])},
        sentences=NUMBERS.index(count),
        length=32,
    )


def draw_plan(rng: Random) -> Question:
    """A city and a person."""
    return Question(
        {
            "city": rng.choice(column("countries", "capital")),
            "person": rng.choice(column("people")),
        }
    )


def needs_plan(slots: Slots, _: str) -> Needs | None:
    """The city, the three parts of the day; every activity is detail."""
    cities = frozenset(city.lower() for city in column("countries", "capital"))
    city, person = slots["city"].lower(), slots["person"].lower()
    if city not in cities or person not in names("people"):
        return None
    return Needs(
        points=(frozenset({city}), *(frozenset({part}) for part in DAY_PARTS)),
        wrong=(cities - {city}) | (names("people") - {person}),
        extras=names("activities"),
        length=36,
    )


FAMILIES = (
    Family("steps", draw_steps, needs_steps, ("list", "one", "full")),
    Family("letter", draw_letter, needs_letter, ("short", "full")),
    Family("story", draw_story, needs_story, ("full",)),
    Family("plan", draw_plan, needs_plan, ("list", "one", "two", "full")),
)
