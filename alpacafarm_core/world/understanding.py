"""From the text of an instruction back to what it asks for.

An instruction is a phrasing of its family (`data/world/questions.csv`) with its gaps filled in,
often after a sentence of context and before a wish about the form of the answer. Reading it back
tries the phrasings one after another; a phrasing that fits but makes no sense to its family (an
animal that is not in the tables) is passed over. So utility works from text alone, whoever wrote
the instruction, and an instruction unknown to the world is simply not understood.
"""

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from random import Random

from alpacafarm_core.world.asking import FAMILIES
from alpacafarm_core.world.facts import column, rows
from alpacafarm_core.world.reading import WORD
from alpacafarm_core.world.tasks import Slots, Task

# A task holds a few kB of words; the cache stays below some 50 MB.
REMEMBERED = 8192

GAP = r"[\w ]+?"
GAPS = {"place": rf"(?:in|on|at) {GAP}"}


@cache
def phrasings(family: str) -> tuple[str, ...]:
    """The ways of asking a question of a family, with {gaps}."""
    return tuple(row["text"] for row in rows("questions") if row["family"] == family)


@cache
def wishes() -> Mapping[str, str]:
    """The wish that each wishing sentence states."""
    return {row["text"]: row["wish"] for row in rows("wishes")}


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((row["family"], _pattern(row["text"])) for row in rows("questions"))


def _pattern(phrasing: str) -> re.Pattern[str]:
    seen: set[str] = set()
    parts = []
    for literal, gap in re.findall(r"([^{]*)(?:\{(\w+)\})?", phrasing):
        parts.append(re.escape(literal))
        if gap:
            parts.append(f"(?P={gap})" if gap in seen else f"(?P<{gap}>{GAPS.get(gap, GAP)})")
            seen.add(gap)
    return re.compile("".join(parts))


def named_in(phrasing: str, slots: Slots) -> Slots:
    """The slots that a phrasing has gaps for."""
    return {gap: words for gap, words in slots.items() if f"{{{gap}}}" in phrasing}


def wrapped(rng: Random, question: str, wish: str) -> str:
    """A question as people put it: half the time after some context, and before its wish."""
    if rng.random() < 0.5:
        question = f"{rng.choice(column('contexts', 'text'))} {question}"
    if wish:
        said = [text for text, name in wishes().items() if name == wish]
        question = f"{question} {rng.choice(said)}"
    return question


def _unwrapped(instruction: str) -> tuple[str, str]:
    """The bare question, and the wish that stood after it ("" when none)."""
    for context in column("contexts", "text"):
        instruction = instruction.removeprefix(f"{context} ")
    for said, wish in wishes().items():
        if instruction.endswith(f" {said}"):
            return instruction.removesuffix(f" {said}"), wish
    return instruction, ""


@lru_cache(maxsize=REMEMBERED)
def understand(instruction: str, text: str) -> Task | None:
    """The task that an instruction sets with its input, or None where the world knows no such."""
    question, wish = _unwrapped(instruction.strip())
    for family, pattern in _patterns():
        match = pattern.fullmatch(question)
        if match is None or FAMILIES[family].has_input != bool(text):
            continue
        needs = FAMILIES[family].needs(match.groupdict(), text)
        if needs is not None:
            return Task(family, match.groupdict(), text, wish, needs)
    return None


@lru_cache(maxsize=REMEMBERED)
def asked_words(instruction: str, text: str) -> frozenset[str]:
    """The words of an instruction and its input, in lower case."""
    return frozenset(WORD.findall(f"{instruction} {text}".lower()))
