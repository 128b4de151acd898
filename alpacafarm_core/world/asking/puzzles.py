"""Instructions with one right answer: sums, opposites, and the order of words."""

import re
from collections.abc import Mapping
from functools import cache
from random import Random

from alpacafarm_core.world.facts import NUMBERS, column, rows
from alpacafarm_core.world.tasks import Family, Needs, Question, Slots, key, names, words

SIGNS = ("plus", "minus")

DIGITS = frozenset(str(number) for number in range(0, 61))

MIXED = ("animals", "foods", "tools", "jobs", "sports", "plants")


def draw_sum(rng: Random) -> Question:
    """Two small numbers, told with a sign or as a story, never falling below zero."""
    right = rng.randint(2, 9)
    left, sign = rng.randint(right + 1, 20), rng.choice(SIGNS)
    event = f"buys {right} more" if sign == "plus" else f"loses {right} of them"
    return Question(
        {
            "left": str(left),
            "right": str(right),
            "sign": sign,
            "event": event,
            "person": rng.choice(column("people")),
            "things": rng.choice(column("counted")),
        }
    )


EVENT = re.compile(r"(?P<verb>buys|loses) (?P<right>\d+) (more|of them)")


def sum_in(slots: Slots) -> tuple[int, str, int] | None:
    """Left number, sign and right number, from a sign or from the event of a story."""
    event = EVENT.fullmatch(slots["event"]) if "event" in slots else None
    sign, right = slots.get("sign", ""), slots.get("right", "")
    if event:
        sign, right = ("plus" if event["verb"] == "buys" else "minus"), event["right"]
    if not (slots["left"].isdigit() and right.isdigit() and sign in SIGNS):
        return None
    return int(slots["left"]), sign, int(right)


def total(left: int, sign: str, right: int) -> int:
    """The result of a sum.

    >>> total(7, "minus", 2)
    5
    """
    return left - right if sign == "minus" else left + right


def needs_sum(slots: Slots, _: str) -> Needs | None:
    """The result; every other number but the two given is wrong; the working is detail."""
    found = sum_in(slots)
    if found is None:
        return None
    left, sign, right = found
    result, given = str(total(*found)), {str(left), str(right)}
    return Needs(
        points=(frozenset({result}),),
        wrong=DIGITS - given - {result},
        extras=frozenset({sign, *given, slots.get("things", "answer")}) - {result},
        length=16,
    )


@cache
def opposites() -> Mapping[str, Mapping[str, str]]:
    """Every word with an opposite: the row of the table."""
    return {row["word"]: row for row in rows("opposites")}


def draw_opposite(rng: Random) -> Question:
    """One or two words, never opposites of each other."""
    while True:
        word, other = rng.sample(column("opposites", "word"), 2)
        if opposites()[word]["opposite"] != other:
            return Question({"word": word, "other": other})


def needs_opposite(slots: Slots, _: str) -> Needs | None:
    """The opposite of each word; an example is detail; opposites of other words are wrong."""
    asked = [slots[gap] for gap in ("word", "other") if gap in slots]
    if any(word not in opposites() for word in asked):
        return None
    found = [opposites()[word] for word in asked]
    right = {row["opposite"] for row in found}
    allowed = right | set(asked)
    return Needs(
        points=tuple(frozenset({row["opposite"]}) for row in found),
        wrong=words(*column("opposites", "word"), *column("opposites", "opposite")) - allowed,
        extras=frozenset({key(row["example"]) for row in found} | {"example", *asked}) - right,
        length=16 + 6 * len(asked),
    )


def draw_words(rng: Random) -> Question:
    """A list of three to five different words."""
    listed: dict[str, None] = {}
    size = rng.randint(3, 5)
    while len(listed) < size:
        listed[rng.choice(column(rng.choice(MIXED)))] = None
    return Question({}, ", ".join(listed))


def sorted_words(text: str) -> tuple[str, ...]:
    """The words of a list in the order of the alphabet."""
    return tuple(sorted(text.split(", ")))


def reversed_words(text: str) -> tuple[str, ...]:
    """The words of a list from last to first."""
    return tuple(reversed(text.split(", ")))


@cache
def _all_names() -> frozenset[str]:
    return frozenset().union(*(names(table) for table in MIXED))


def _in_order(sequence: tuple[str, ...]) -> Needs:
    pool = frozenset(sequence)
    return Needs(
        pool=pool,
        number=len(sequence),
        sequence=sequence,
        wrong=_all_names() - pool,
        goal=0,
        length=10 + 2 * len(sequence),
    )


def needs_sort(_: Slots, text: str) -> Needs | None:
    """The words in the order of the alphabet."""
    return _in_order(sorted_words(text)) if ", " in text else None


def needs_reverse(_: Slots, text: str) -> Needs | None:
    """The words from last to first."""
    return _in_order(reversed_words(text)) if ", " in text else None


def needs_count(_: Slots, text: str) -> Needs | None:
    """The number of words; every other number is wrong."""
    listed = text.split(", ")
    if not 2 <= len(listed) < len(NUMBERS):
        return None
    right = {NUMBERS[len(listed)], str(len(listed))}
    return Needs(
        points=(frozenset(right),),
        wrong=(DIGITS | set(NUMBERS[2:])) - right,
        extras=words("words list", *listed),
        length=16,
    )


FAMILIES = (
    Family("sum", draw_sum, needs_sum),
    Family("opposite", draw_opposite, needs_opposite),
    Family("sort", draw_words, needs_sort, has_input=True),
    Family("reverse", draw_words, needs_reverse, has_input=True),
    Family("count", draw_words, needs_count, has_input=True),
)
