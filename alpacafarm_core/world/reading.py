"""Reading an answer: its sentences and lines, and whether it is well formed.

Nothing here knows what was asked; an answer is judged as a piece of English of this small world.
"""

import re
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from alpacafarm_core.world.facts import TABLES, column, phrases, rows
from alpacafarm_core.world.tasks import claimable_in, names

SEGMENT = re.compile(r"[^.!?\n]*[.!?]+|[^.!?\n]+")
WORD = re.compile(r"[a-z]+|\d+")
CLAUSE = re.compile(r"[,:;]")

ADJECTIVE_FIELDS = ("taste", "colour", "legs", "kind", "players", "served")


class Segment(NamedTuple):
    """A sentence or a line: its words in lower case, whether a list line, whether it ends."""

    words: tuple[str, ...]
    bullet: bool
    ended: bool


class Answer(NamedTuple):
    """An answer taken apart; `words` are those of all segments in turn."""

    text: str
    segments: tuple[Segment, ...]
    words: tuple[str, ...]


def read(output: str) -> Answer:
    """The sentences and lines of an answer; those without a word are left out."""
    text = output.strip()
    segments = []
    for match in SEGMENT.finditer(text.lower()):
        part = match.group().strip()
        bare = tuple(WORD.findall(part))
        if bare:
            segments.append(Segment(bare, part.startswith("-"), part[-1] in ".!?"))
    return Answer(text, tuple(segments), tuple(w for one in segments for w in one.words))


@cache
def lexicon() -> frozenset[str]:
    """Every word of the world: those of its tables, and the common ones in `words.csv`."""
    tables = (*TABLES, "phrases", "places", "opposites", "steps", "people", "counted", "events")
    texts = (" ".join(row.values()) for table in (*tables, "activities") for row in rows(table))
    return frozenset(WORD.findall(" ".join(texts).lower())) | frozenset(column("words", "word"))


@cache
def nouns() -> frozenset[str]:
    """Words of which no two stand side by side in good English: names and nouns of the tables."""
    found = set(names("people"))
    for table in TABLES:
        fields = [field for field in phrases(table) if field not in ADJECTIVE_FIELDS]
        found |= names(table) | claimable_in(table, fields)
    return frozenset(found)


def form(answer: Answer, asked: frozenset[str]) -> float:
    """How well formed an answer is, in [0, 1]; 0 for garbage.

    A product: the last sentence ends (else 0.6), the first letter is a capital (else 0.85), no
    loops, no broken words (neither in the lexicon nor among the words `asked`), no salad.
    """
    if not answer.segments or not answer.text[0].isascii():
        return 0.0
    last = answer.segments[-1]
    ending = 1.0 if last.ended or last.bullet else 0.6
    start = answer.text.lstrip("- ")[:1]
    capital = 1.0 if start.isupper() or start.isdigit() or answer.text.startswith("-") else 0.85
    return ending * capital * _unbroken(answer, asked) * _unlooped(answer) * _salad(answer)


def _unbroken(answer: Answer, asked: frozenset[str]) -> float:
    strange = sum(
        not (word in lexicon() or word in asked or word.isdigit()) for word in answer.words
    )
    return max(0.0, 1.0 - 3.0 * strange / len(answer.words))


def _unlooped(answer: Answer) -> float:
    """1 less 1.2 times the share of words that repeat a sentence, a run of six or a word."""
    said = answer.words
    runs = list(zip(*(said[start:] for start in range(6)), strict=False))
    distinct = dict.fromkeys(segment.words for segment in answer.segments)
    again = len(said) - sum(len(one) for one in distinct)
    doubled = sum(word == after for word, after in pairwise(said))
    return max(0.0, 1.0 - 1.2 * max(again, len(runs) - len(set(runs)), doubled) / len(said))


def _salad(answer: Answer) -> float:
    """1 less twice the share of words that are nouns right after a noun."""
    if sum(word in nouns() for word in answer.words) < 2:
        return 1.0
    clauses = [WORD.findall(c) for c in CLAUSE.split(answer.text.lower().replace("\n", ","))]
    after = sum(
        one in nouns() and two in nouns() for clause in clauses for one, two in pairwise(clause)
    )
    return max(0.0, 1.0 - 2.0 * after / len(answer.words))
