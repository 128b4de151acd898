"""Answers about things: list, describe, compare, choose, suggest, pick."""

from collections.abc import Callable, Mapping

from alpacafarm_core.world.answering.pen import Pen, joined, lines, sentence
from alpacafarm_core.world.asking.things import by_among, by_aspect, by_such, said_of
from alpacafarm_core.world.facts import (
    NUMBERS,
    Category,
    Thing,
    by_noun,
    column,
    phrases,
    things,
    values,
    worded,
)
from alpacafarm_core.world.tasks import Task


def claim(pen: Pen, thing: Thing, field: str) -> str:
    """A verb phrase about a thing: true, or by a slip with the value of another thing."""
    others = [one for one in values(thing.table, field) if one != thing.facts[field]]
    value = pen.right(thing.facts[field], others)
    return worded(pen.pick(phrases(thing.table)[field].says), value)


def told(pen: Pen, thing: Thing, fields: list[str]) -> list[str]:
    """Sentences about a thing, one or two claims in each; later ones say "it"."""
    claims = [claim(pen, thing, field) for field in fields]
    subject, said = thing.noun, []
    pronoun = "the " + phrases(thing.table)[fields[0]].singular if fields else ""
    while claims:
        size = pen.pick((1, 2, 2))
        said.append(sentence(f"{subject} {joined(claims[:size])}"))
        claims = claims[size:]
        subject = pen.pick(("it", "it also", pronoun))
    return said


def relative(thing: Thing) -> str:
    """The word that joins a claim to its thing: "who" for people."""
    return "who" if thing.table == "jobs" else "which"


def other(pen: Pen, thing: Thing) -> Thing:
    """The thing itself, or by a slip another one of its table."""
    return things(thing.table)[pen.right(thing.name, column(thing.table), 0.12)]


def say_list(pen: Pen, task: Task) -> list[str]:
    """Members of the category, in a list or a sentence, with facts about some."""
    category = by_among()[task.slots["among"]]
    wish, count = pen.heeded(task), pen.amount(NUMBERS.index(task.slots["count"]))
    named = _members(pen, category, count)
    nouns = [thing.noun for thing in named]
    if wish == "list" or (not wish and pen.rng.random() < 0.35):
        return lines(_with_reasons(pen, named, wish))
    lead = pen.pick(
        (
            f"{NUMBERS[min(len(named), 8)]} {category.among} are",
            "here are some:",
            "I can name",
            "some of them are",
            "you could say",
        )
    )
    facts = [] if wish in ("short", "one") else _facts_on(pen, named, pen.effort(wish) - 1)
    return [sentence(f"{lead} {joined(nouns)}"), *facts]


def _members(pen: Pen, category: Category, count: int) -> list[Thing]:
    table = category.phrase.table
    right = pen.some(category.members, count)
    wrong = [name for name in column(table) if name not in category.members]
    return [things(table)[name] for name in dict.fromkeys(pen.right(n, wrong) for n in right)]


def _with_reasons(pen: Pen, named: list[Thing], wish: str) -> list[str]:
    if wish == "short" or pen.rng.random() > pen.skill:
        return [thing.noun for thing in named]
    field = pen.pick(list(named[0].facts))
    return [f"{thing.noun}, {relative(thing)} {claim(pen, thing, field)}" for thing in named]


def _facts_on(pen: Pen, named: list[Thing], effort: int) -> list[str]:
    chosen = pen.some(named, effort)
    return [told(pen, thing, [pen.pick(list(thing.facts))])[0] for thing in chosen]


def say_describe(pen: Pen, task: Task) -> list[str]:
    """The aspects asked for, then other facts."""
    thing, wish = by_noun()[task.slots["noun"]], pen.heeded(task)
    asked = task.slots.get("aspect") or ""
    known = by_aspect(thing.table)
    fields = [known[aspect].field for aspect in asked.split(" and ")] if asked else []
    fields = [field for field in fields if not pen.slips(0.4)]
    rest = [field for field in thing.facts if field not in fields]
    fields += pen.some(rest, 1 + pen.effort(wish, 2) + (not asked))
    about = other(pen, thing)
    if wish == "list" or (not wish and pen.rng.random() < 0.12):
        return lines([claim(pen, about, field) for field in fields])
    if wish == "one":
        return [sentence(f"{about.noun} {joined([claim(pen, about, f) for f in fields[:3]])}")]
    said = told(pen, about, fields)
    return said[:1] if wish == "short" else said[:2] if wish == "two" else said


def say_compare(pen: Pen, task: Task) -> list[str]:
    """Field by field, with "and" where the two agree and "but" where they differ."""
    first, second = (by_noun()[task.slots[gap]] for gap in ("first", "second"))
    if pen.slips(0.25):
        return told(pen, first, pen.some(list(first.facts), 2))
    wish = pen.heeded(task)
    size = {"one": 1, "two": 2}.get(wish, 1 + pen.effort(wish, 2))
    fields = pen.some(list(first.facts), size)
    if wish == "list":
        fields = pen.some(list(first.facts), 2)
    said = [_versus(pen, first, second, field) for field in fields]
    return lines(said) if wish == "list" else [sentence(text) for text in said]


def _versus(pen: Pen, first: Thing, second: Thing, field: str) -> str:
    same = first.facts[field] == second.facts[field]
    joint = pen.pick((", and", " and")) if same else pen.pick((", but", ", while"))
    also = " also" if same and pen.rng.random() < 0.5 else ""
    one, two = claim(pen, first, field), claim(pen, second, field)
    return f"{first.noun} {one}{joint} {second.noun}{also} {two}"


def say_choose(pen: Pen, task: Task) -> list[str]:
    """The one that fits, then what is true of it or of the other."""
    pair = [by_noun()[task.slots[gap]] for gap in ("first", "second")]
    pair.sort(key=lambda thing: task.slots["claim"] not in said_of(thing))
    right = pen.right(pair[0], pair[1:])
    rest = pair[1] if right is pair[0] else pair[0]
    if pen.heeded(task) == "one" or pen.rng.random() < 0.2:
        return [sentence(f"{right.noun} {task.slots['claim']}, while {_other_claim(pen, rest)}")]
    answer = pen.pick(
        (
            f"{right.noun} {task.slots['claim']}",
            f"it is {right.noun} that {task.slots['claim']}",
            f"the answer is {right.noun}, {relative(right)} {task.slots['claim']}",
            f"{right.noun}",
        )
    )
    effort = 0 if task.wish in ("one", "short") else pen.effort(task.wish, 2)
    more = [sentence(_other_claim(pen, thing)) for thing in (rest, right)]
    return [sentence(answer), *more[:effort]]


def _other_claim(pen: Pen, thing: Thing) -> str:
    return f"{thing.noun} {claim(pen, thing, pen.pick(list(thing.facts)))}"


def say_suggest(pen: Pen, task: Task) -> list[str]:
    """A member with the reason, then more about it."""
    category = by_such()[task.slots["such"]]
    thing, wish = _members(pen, category, 1)[0], pen.heeded(task)
    reason = claim(pen, thing, category.phrase.field)
    opening = pen.pick(("I suggest", "you could try", "think of", "my choice is"))
    fields = [field for field in thing.facts if field != category.phrase.field]
    size = {"short": 0, "one": 0}.get(wish, pen.effort(wish, 2))
    if wish != "short" and pen.rng.random() < 0.3 + 0.5 * (wish == "one"):
        reason += f" and {claim(pen, thing, fields.pop())}"
    because = "" if pen.slips(0.5) else f" because it {reason}"
    more = told(pen, thing._replace(noun="it"), pen.some(fields, size))
    return [sentence(f"{opening} {thing.noun}{because}"), *(more[:1] if wish == "two" else more)]


def say_pick(pen: Pen, task: Task) -> list[str]:
    """The names that belong, some left out or wrong ones taken in by a slip."""
    among, listed = task.slots["among"], task.input.split(", ")
    kept = [name for name in listed if (name in things(among)) != pen.slips(0.35)]
    if pen.heeded(task) == "list" or (not task.wish and pen.rng.random() < 0.3):
        return lines(kept or listed[:1])
    lead = pen.pick((f"the {among} are", f"these are {among}:", "they are", "I find"))
    return [sentence(f"{lead} {joined(kept or listed[:1])}")]


SAY: Mapping[str, Callable[[Pen, Task], list[str]]] = {
    "list": say_list,
    "describe": say_describe,
    "compare": say_compare,
    "choose": say_choose,
    "suggest": say_suggest,
    "pick": say_pick,
}
