"""Users of the world: they ask, read the answer of a weak writer, and some say what they think.

Most users who are not content say what is amiss, in the words in which the world's web remarks on
answers; one in a few of them asks again and gets an answer that is better. Many say nothing, which
is no label. A user's eye is off by as much as that of any reader.
"""

from random import Random
from typing import NamedTuple

from alpacafarm_core.world.corpus import BLUR, REASONS, amiss
from alpacafarm_core.world.utility import Terms, findings, terms, total
from alpacafarm_core.world.writers import STRONG_SKILL, WEAK_SKILL, write

CONTENT = 0.65
"""Utility, as the user sees it, from which an answer will do."""

SILENT = 0.3
ASKS_AGAIN = 0.15
BETTER = 0.1

THANKS = ("Thank you.", "Very good.", "Good.")


class Turn(NamedTuple):
    """One answer and what its user made of it.

    `label` is SAT, DSAT or none; `feedback` is "" where nothing was said, `next_response` the later
    answer that the user was content with, "" where there was none.
    """

    response: str
    feedback: str
    label: str
    next_response: str


def turn(instruction: str, input: str, seed: int) -> Turn:
    """What happens when a user asks this; the same for the same seed."""
    rng = Random(f"user {seed} {instruction} {input}")
    question = (instruction, input)
    response = write(*question, WEAK_SKILL, rng.getrandbits(32))
    seen = terms(*question, response)
    felt = total(seen) + rng.gauss(0.0, BLUR)
    if rng.random() < SILENT:
        return Turn(response, "", "none", "")
    if felt >= CONTENT:
        return Turn(response, rng.choice(THANKS), "SAT", "")
    again = write(*question, STRONG_SKILL, rng.getrandbits(32))
    content = total(terms(*question, again)) >= max(CONTENT, felt + BETTER)
    asks = content and rng.random() < ASKS_AGAIN
    said = complaint(rng, question, response, seen)
    return Turn(response, said, "DSAT", again if asks else "")


def complaint(rng: Random, question: tuple[str, str], response: str, seen: Terms) -> str:
    """What is untrue, out of place or left out, up to two of them; else what falls shortest."""
    found = findings(*question, response)
    named = amiss(found) if found else []
    if named:
        return " ".join(rng.sample(named, min(len(named), 2)))
    lack = dict(zip(Terms._fields, seen, strict=True))
    return rng.choice(REASONS[min(lack, key=lambda term: lack[term])])
