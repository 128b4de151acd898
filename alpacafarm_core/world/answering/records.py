"""Answers that use an input: from a passage, from a record, from a row, a request made polite."""

from collections.abc import Callable, Mapping

from alpacafarm_core.world.answering.pen import Pen, joined, lines, sentence
from alpacafarm_core.world.asking.records import (
    FIELDS,
    bare,
    known,
    people_in,
    pronouns,
    record_in,
)
from alpacafarm_core.world.facts import column, values, worded
from alpacafarm_core.world.tasks import Task

SAYS = {
    "job": ("is a {}", "works as a {}"),
    "city": ("lives in {}", "is from {}"),
    "sport": ("likes {}", "is fond of {}"),
    "food": ("buys {}", "often buys {}"),
    "day": ("goes to the market on {}", "is free on {}"),
}


def _claim(pen: Pen, field: str, right: str, others: list[str]) -> str:
    """A verb phrase about a person; a slip takes the other person's value or just any."""
    value = pen.right(right, others or known(field))
    return worded(pen.pick(SAYS[field]), value)


def say_passage(pen: Pen, task: Task) -> list[str]:
    """What is asked of the person, then what else the passage says of them."""
    people = people_in(task.input)
    name, asked = task.slots["name"], task.slots.get("field") or ""
    if pen.slips(0.15):
        name = next(one for one in people if one != name)
    rest = [field for field in FIELDS if field != asked]
    wish = pen.heeded(task)
    size = {"short": 0, "one": 1}.get(wish, pen.effort(wish, 2))
    fields = [asked, *pen.some(rest, size)] if asked else pen.some(rest, 1 + pen.effort(wish, 3))
    others = {f: [p[f] for n, p in people.items() if n != name] for f in FIELDS}
    claims = [_claim(pen, field, people[name][field], others[field]) for field in fields]
    if asked and pen.rng.random() < 0.25:
        value = pen.right(people[name][asked], others[asked])
        return [sentence(f"the {asked} of {name} is {value}"), *_more(pen, name, claims[1:])]
    if wish == "one":
        return [sentence(f"{name} {joined(claims)}")]
    split = pen.pick((1, 2))
    return [sentence(f"{name} {joined(claims[:split])}"), *_more(pen, name, claims[split:])]


def _more(pen: Pen, name: str, claims: list[str]) -> list[str]:
    subject = pen.pick((pronouns()[name], pronouns()[name], name))
    return [sentence(f"{subject} {joined(claims)}")] if claims else []


def say_summary(pen: Pen, task: Task) -> list[str]:
    """The fields of the record in one or two sentences, some left out by a slip."""
    record = dict(record_in(task.input, "\n"))
    name = pen.right(record.pop("name"), column("people"), 0.25)
    wish = pen.heeded(task)
    kept = [field for field in record if not pen.slips(0.5)] or list(record)[:1]
    claims = [_claim(pen, field, record[field], []) for field in kept]
    if wish == "list":
        return lines([f"{name} {claims[0]}", *(f"{pronouns()[name]} {c}" for c in claims[1:])])
    split = len(claims) if wish == "one" else min(2, len(claims) - 1) if wish else pen.pick((2, 3))
    split = max(1, split)
    return [sentence(f"{name} {joined(claims[:split])}"), *_more(pen, name, claims[split:])]


def say_row(pen: Pen, task: Task) -> list[str]:
    """Item and price, with colour and place where the row has them."""
    record = record_in(task.input, " | ")
    item = pen.right(record["item"], column("tools"), 0.3)
    number = pen.right(record["price"].split()[0], [str(n) for n in range(2, 31)], 0.4)
    price = number if pen.slips(0.2) else f"{number} dollars"
    colour = pen.right(record.get("colour", ""), values("foods", "colour"), 0.3)
    place = record.get("place", "")
    where = f" at the {place}" if place and not pen.slips(0.5) else ""
    if not record.get("colour") or pen.slips(0.4):
        colour = ""
    shade = f"{colour} " if colour else ""
    return [
        sentence(
            pen.pick(
                (
                    f"the {shade}{item} costs {price}{where}",
                    f"you can buy the {shade}{item} for {price}{where}",
                    f"the price of the {shade}{item} is {price}{where}",
                )
            )
        )
    ]


def say_rewrite(pen: Pen, task: Task) -> list[str]:
    """The request behind a polite opening, with more courtesy at a higher skill."""
    request = bare(task.input)
    *start, tool = request.split()
    if not tool.endswith(("here", "home")):
        request = " ".join([*start, pen.right(tool, column("tools"), 0.25)])
    if pen.slips(0.35):
        return [sentence(request)]
    question = task.slots.get("form") == "polite question" or pen.rng.random() < 0.5
    if question != pen.slips(0.3):
        opening = pen.pick(
            ("could you", "would you kindly", "could you please", "would you please")
        )
        return [sentence(f"{opening} {request}", "?")]
    please = pen.pick(("please", "kindly", "please be so kind and"))
    more = pen.pick(("", ", thank you", ", I would be grateful"))
    return [sentence(f"{please} {request}{more}")]


SAY: Mapping[str, Callable[[Pen, Task], list[str]]] = {
    "passage": say_passage,
    "summary": say_summary,
    "row": say_row,
    "rewrite": say_rewrite,
}
