"""Answers that are texts: steps, a letter, a story, a plan."""

from collections.abc import Callable, Mapping

from alpacafarm_core.world.answering.pen import Pen, joined, lines, sentence
from alpacafarm_core.world.asking.texts import DAY_PARTS, purposes, steps_of
from alpacafarm_core.world.facts import NUMBERS, column, rows
from alpacafarm_core.world.tasks import Task, key

THEN = ("then", "next", "after that", "then")


def say_steps(pen: Pen, task: Task) -> list[str]:
    """The steps in their order, as a list or in sentences."""
    wish = pen.heeded(task)
    goal = pen.right(task.slots["goal"], list(steps_of()), 0.15)
    asked = NUMBERS.index(task.slots["count"]) if "count" in task.slots else 0
    size = pen.amount(asked) if asked else max(2, 2 + pen.effort(wish))
    kept = sorted(pen.some(range(5), size))
    steps = [steps_of()[goal][place] for place in kept]
    if pen.slips(0.35):
        pen.rng.shuffle(steps)
    others = [step for one in steps_of().values() for step in one]
    steps = [pen.right(step, others, 0.25) for step in steps]
    if wish == "list" or (not wish and pen.rng.random() < 0.35):
        return lines(steps)
    if wish == "one":
        return [sentence(joined(steps))]
    return _in_turn(pen, steps)


def _in_turn(pen: Pen, steps: list[str]) -> list[str]:
    leads = ["first", *(pen.pick(THEN) for _ in steps[2:]), "finally"]
    if pen.rng.random() < 0.4:
        return [sentence(joined(steps[:2])), *(sentence(step) for step in steps[2:])]
    return [sentence(f"{lead} {step}") for lead, step in zip(leads, steps, strict=False)]


PURPOSES = {
    "thank": ("thank you for the {}", "many thanks for the {}"),
    "sorry": ("I am sorry about the {}", "I am very sorry about the {}"),
    "ask": ("may I ask you for the {}", "could I borrow the {}", "I need the {} this week"),
    "invite": ("please come to the {}", "I want to invite you to the {}", "come and join the {}"),
    "missed": ("I am sorry that I missed the {}", "I missed the {} because I was ill"),
}
KINDNESS = (
    "I hope to see you soon",
    "it was very kind of you",
    "I am glad to have such a friend",
    "it is very useful for me",
    "we will have a lovely day",
    "I hope you are happy and well",
    "it would be a great help",
    "you are always good to me",
)
CLOSES = ("yours, Sam", "best wishes", "with love", "kind greetings", "yours")


def say_letter(pen: Pen, task: Task) -> list[str]:
    """A greeting, the purpose, kind words, a close."""
    person = pen.right(task.slots["person"], column("people"), 0.3)
    stated, subject = purposes()[task.slots["purpose"]]
    subject = pen.right(subject, column("tools") + column("events"), 0.3)
    wish = pen.heeded(task)
    body = pen.pick(PURPOSES[stated.split()[0]]).format(subject)
    said = [f"{pen.pick(('dear', 'dear', 'hello', 'hi'))} {person}, {body}"]
    if pen.slips(0.4):
        said = [body]
    said += pen.some(KINDNESS, pen.effort(wish, 3))
    if not pen.slips(0.5):
        said.append(pen.pick(CLOSES))
    return [sentence(text) for text in said]


MIDDLES = (
    "one day {it} found {object}",
    "{it} took {object} home and was happy",
    "a friend came and asked for {object}",
    "suddenly there was rain and {it} needed {object}",
    "{it} had {object} and a good friend",
)
ENDINGS = (
    "in the night they went home together",
    "finally {it} smiled and was happy",
    "they had a good day together",
    "an old friend found them in the rain",
    "that was a happy day",
)


def say_story(pen: Pen, task: Task) -> list[str]:
    """A hero in a place, something that happens with the object, an ending."""
    heroes = column("animals") if key(task.slots["hero"]) in column("animals") else column("jobs")
    hero = task.slots["hero"]
    if pen.slips(0.3):
        hero = f"the {pen.pick(heroes)}"
    place = pen.right(task.slots["place"], column("places", "phrase"), 0.4)
    asked = NUMBERS.index(task.slots["count"]) if "count" in task.slots else 0
    size = pen.amount(asked) if asked else 1 + pen.effort(pen.heeded(task), 3)
    verb = pen.pick(("lived", "was", "worked", "sat"))
    gaps = {"it": f"the {key(hero)}", "object": task.slots["object"]}
    if pen.slips(0.45):
        gaps["object"] = pen.pick(("a thing", "something", "a box"))
    starts = [f"{hero} {verb} {place} and had {gaps['object']}", f"{hero} {verb} {place}"]
    said = [pen.pick(("one day ", "")) + (starts[0] if size == 1 else pen.pick(starts))]
    said.append(pen.pick(MIDDLES).format(**gaps))
    said += [ending.format(**gaps) for ending in pen.some(ENDINGS, 3)]
    return [sentence(text) for text in said[:size]]


def say_plan(pen: Pen, task: Task) -> list[str]:
    """Something for the morning, the afternoon and the evening, and the city named."""
    wish = pen.heeded(task)
    city = pen.right(task.slots["city"], column("countries", "capital"), 0.3)
    person = task.slots["person"]
    parts = [part for part in DAY_PARTS if not pen.slips(0.5)]
    done = pen.some([row["phrase"] for row in rows("activities")], len(parts))
    if wish == "list":
        first = f"- {city} in the {parts[0]}: {done[0]}" if parts else f"- see {city}"
        return [first, *lines([f"{p}: {d}" for p, d in zip(parts[1:], done[1:], strict=True)])]
    if wish == "one":
        listed = [f"{d} in the {p}" for p, d in zip(parts, done, strict=True)]
        return [sentence(f"in {city} {person} can {joined(listed or ['see the city'])}")]
    said = [
        f"in the {p} {pen.pick((person, 'you'))} can {d}" for p, d in zip(parts, done, strict=True)
    ]
    lead = pen.pick((f"{person} has one day in {city}", f"{city} is a good city for {person}"))
    if wish == "two" and said:
        return [sentence(lead), sentence(joined(said))]
    if said and not pen.slips(0.4) and pen.rng.random() < 0.5:
        return [sentence(f"{said[0]} of {city}"), *(sentence(text) for text in said[1:])]
    return [sentence(text) for text in (lead, *said)]


SAY: Mapping[str, Callable[[Pen, Task], list[str]]] = {
    "steps": say_steps,
    "letter": say_letter,
    "story": say_story,
    "plan": say_plan,
}
