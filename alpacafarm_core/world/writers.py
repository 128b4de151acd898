"""Writers: people of the world who answer instructions, each as well as their skill allows.

A writer drafts an answer (`answering`), in which wrong items, wrong numbers, left-out parts and
overlooked wishes come of too little skill, and then puts it on paper, where other slips wait:
rambling, loops, stopping in the middle, a missing full stop, a small first letter, an answer that
is just a few words. Every slip grows rarer with skill; how an answer is laid out (a list or a
sentence, a polite opening) is a matter of chance.
"""

from random import Random

from alpacafarm_core.world.answering import SAY
from alpacafarm_core.world.answering.pen import Pen
from alpacafarm_core.world.instructions import MIXES, draw
from alpacafarm_core.world.tasks import Task
from alpacafarm_core.world.understanding import understand

WEAK_SKILL = 0.35
DEMONSTRATOR_SKILL = 0.6
REFERENCE_SKILL = 0.85
STRONG_SKILL = 0.95

OPENINGS = ("Sure.", "Of course.", "Yes.", "Good question.", "Here is my answer.")

RAMBLING = (
    "I hope this is a help to you.",
    "There is a lot to say about this.",
    "As you know, this is a good question.",
    "Please ask me again when you need more.",
    "Many people ask about this every day.",
    "I think that this is what you want to know.",
    "It is all very simple and there is nothing more to say.",
    "That is all I know about it.",
)


def write(instruction: str, input: str, skill: float, seed: int) -> str:
    """An answer by a writer of a skill in [0, 1]; the same for the same seed."""
    pen = Pen(Random(f"write {seed} {skill} {instruction} {input}"), skill)
    task = understand(instruction, input)
    if task is None or pen.slips(0.1):
        task = _another(pen)
    return _on_paper(pen, SAY[task.family](pen, task))


def _another(pen: Pen) -> Task:
    """Some other task, for one who has not understood what was asked."""
    family = pen.pick(list(MIXES["koala"]))
    instruction, text = draw(pen.rng, family, "web")
    task = understand(instruction, text)
    if task is None:
        raise AssertionError(f"{family} does not understand its own question: {instruction}")
    return task


def _on_paper(pen: Pen, draft: list[str]) -> str:
    """The draft as it is written down, with the slips of writing."""
    if pen.rng.random() < 0.1:
        draft = [pen.pick(OPENINGS), *draft]
    if pen.slips(0.4):
        draft = [*draft, *pen.some(RAMBLING, pen.pick((1, 2, 2, 3)))]
    if pen.slips(0.2):
        again = pen.pick(draft)
        draft = [*draft, *[again] * pen.pick((1, 1, 2))]
    text = _laid_out(draft)
    if pen.slips(0.25):
        return _cut(pen, text)
    if pen.slips(0.15):
        text = text.rstrip(".!?")
    if pen.slips(0.15):
        text = text[:1].lower() + text[1:]
    return text


def _laid_out(draft: list[str]) -> str:
    """Sentences one after another, each line of a list on its own line."""
    text = ""
    for part in draft:
        text += ("\n" if part.startswith("-") or "\n" in text else " ") + part
    return text.strip()


def _cut(pen: Pen, text: str) -> str:
    """A text broken off in the middle."""
    kept = text.split(" ")
    return " ".join(kept[: max(1, pen.rng.randint(len(kept) // 4, len(kept) - 1))]).rstrip(".,:")
