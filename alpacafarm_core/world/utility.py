"""What the people of the world want: how good an answer is, from its text alone.

    utility = form * (0.4 + 0.6 * brevity) * (0.5 * content + 0.25 * following + 0.25 * detail)

content    the share of what is needed that is there (points said, items of the pool, true facts),
           times 0.55 for every wrong item, false claim or stranger
following  the mean of what was asked about the form: number of items or sentences, final mark,
           and the wish (a list, one or two sentences, short, full); 1 when nothing was asked
form       a product: ends properly, begins with a capital, no loops, no broken words, no salad of
           nouns
detail     true facts, items and useful words beyond the needed ones, with halving returns; the
           content again where nothing more is wanted
brevity    1 up to a sensible length, then falling; sentences that say nothing count twice

An answer without any right content scores 0, so do garbage and the empty answer. Too short loses
by content and detail, padding by brevity. An instruction that the world does not understand has
content and following of 0.25 and no detail, so that form and length alone tell answers apart.
"""

from bisect import bisect_left
from typing import NamedTuple

from alpacafarm_core.world.reading import Answer, form, read
from alpacafarm_core.world.tasks import Needs, Task
from alpacafarm_core.world.understanding import asked_words, understand

ERROR = 0.55
UNKNOWN = 0.25

# Words beyond the sensible length until brevity is 0, and idle words that cost nothing.
PATIENCE = 24
POLITENESS = 6

# How much longer than usual an answer may be, and how much detail it should hold, by wish.
ROOM = {"short": 0.6, "one": 0.8, "full": 1.4}
GOAL = {"short": -2, "one": -1, "full": 1}
SHORT, FULL = 14, 20


class Terms(NamedTuple):
    """The terms of an answer's utility, each in [0, 1]."""

    content: float
    following: float
    form: float
    detail: float
    brevity: float


NOTHING = Terms(0.0, 0.0, 0.0, 0.0, 0.0)


class Findings(NamedTuple):
    """What an answer says about its task.

    `unsaid` are the points left out, `items` the right ones in the order of their first mention,
    `false` the untrue claims (subject, "" before any is named, and word), `wrong` the words that
    have no place in the answer.
    """

    unsaid: tuple[frozenset[str], ...]
    items: tuple[str, ...]
    facts: int
    extras: int
    false: frozenset[tuple[str, str]]
    wrong: frozenset[str]
    useful: frozenset[str]

    @property
    def errors(self) -> int:
        """How much is wrong."""
        return len(self.false) + len(self.wrong)


def utility(instruction: str, input: str, output: str) -> float:
    """How much people want this answer to this instruction, in [0, 1]."""
    return total(terms(instruction, input, output))


def total(one: Terms) -> float:
    """The utility that some terms amount to.

    >>> total(Terms(content=1.0, following=1.0, form=1.0, detail=0.0, brevity=1.0))
    0.75
    """
    wanted = 0.5 * one.content + 0.25 * one.following + 0.25 * one.detail
    return one.form * (0.4 + 0.6 * one.brevity) * wanted


def terms(instruction: str, input: str, output: str) -> Terms:
    """The terms of an answer; all 0 for garbage and for an answer off its topic."""
    answer = read(output)
    asked = asked_words(instruction, input)
    shape = form(answer, asked)
    if shape == 0.0:
        return NOTHING
    task = understand(instruction, input)
    if task is None:
        return Terms(UNKNOWN, UNKNOWN, shape, 0.0, _falling(len(answer.words) - Needs().length))
    found = _find(task.needs, answer, asked)
    content = _content(task.needs, found)
    if content == 0.0:
        return NOTHING
    following = _following(task, found, answer) * min(1.0, 2.0 * content)
    detail = _detail(task, found, content)
    return Terms(content, following, shape, detail, _brevity(task, found, answer))


def findings(instruction: str, input: str, output: str) -> Findings | None:
    """What an answer says about its task; None where the task is not understood."""
    task = understand(instruction, input)
    if task is None:
        return None
    return _find(task.needs, read(output), asked_words(instruction, input))


def _find(needs: Needs, answer: Answer, asked: frozenset[str]) -> Findings:
    present = frozenset(answer.words)
    items = tuple(dict.fromkeys(word for word in answer.words if word in needs.pool))
    facts, false, useful = _claims(needs, answer.words, asked)
    useful |= present & (needs.pool | needs.extras)
    useful |= frozenset(word for point in needs.points for word in point if word in present)
    return Findings(
        unsaid=tuple(point for point in needs.points if point.isdisjoint(present)),
        items=items,
        facts=facts,
        extras=len(present & needs.extras),
        false=false,
        wrong=present & needs.wrong,
        useful=useful,
    )


def _claims(
    needs: Needs, said: tuple[str, ...], asked: frozenset[str]
) -> tuple[int, frozenset[tuple[str, str]], frozenset[str]]:
    """How many true claims are made, the false ones, and the words that made the true ones.

    A claim is about the subject named last. Before any is named it is about whichever it is true
    of, and words of the question claim nothing.
    """
    if not needs.claimable:
        return 0, frozenset(), frozenset()
    subject, true, false = "", set(), set()
    for word in said:
        if word in needs.claims:
            subject = word
        elif word in needs.claimable and (subject or word not in asked):
            about = (subject,) if subject else tuple(needs.claims)
            fits = next((one for one in about if word in needs.claims[one]), None)
            if fits is None:
                false.add((subject, word))
            else:
                true.add((fits, needs.claims[fits][word], word))
    return len({claim[:2] for claim in true}), frozenset(false), frozenset(c[2] for c in true)


def _content(needs: Needs, found: Findings) -> float:
    parts = []
    if needs.points:
        parts.append(1.0 - len(found.unsaid) / len(needs.points))
    if needs.number:
        parts.append(min(1.0, len(_in_order(needs, found.items)) / needs.number))
    if needs.facts:
        parts.append(min(1.0, found.facts / needs.facts))
    return sum(parts) / len(parts) * ERROR**found.errors


def _in_order(needs: Needs, items: tuple[str, ...]) -> tuple[str, ...]:
    """The items, or the most of them that keep to the sequence asked for."""
    if not needs.sequence:
        return items
    ends: list[int] = []
    for place in (needs.sequence.index(item) for item in items):
        at = bisect_left(ends, place)
        ends[at : at + 1] = [place]
    return items[: len(ends)]


def _following(task: Task, found: Findings, answer: Answer) -> float:
    needs, checks = task.needs, []
    sentences = sum(not segment.bullet for segment in answer.segments)
    if needs.exact:
        named = len(found.items) + found.errors
        checks.append(max(0.0, 1.0 - abs(named - needs.number) / needs.number))
    if needs.sentences:
        checks.append(max(0.0, 1.0 - abs(sentences - needs.sentences) / needs.sentences))
    if needs.mark:
        checks.append(1.0 if answer.text.endswith(needs.mark) else 0.0)
    if task.wish:
        checks.append(1.0 if _granted(task.wish, sentences, answer) else 0.0)
    return sum(checks) / len(checks) if checks else 1.0


def _granted(wish: str, sentences: int, answer: Answer) -> bool:
    bullets = len(answer.segments) - sentences
    length = len(answer.words)
    return {
        "list": bullets >= 2,
        "one": sentences == 1 and bullets == 0,
        "two": sentences == 2 and bullets == 0,
        "short": length <= SHORT,
        "full": length >= FULL,
    }[wish]


def _detail(task: Task, found: Findings, content: float) -> float:
    """What is said beyond the needs; where no more is wanted, as much as the content."""
    needs = task.needs
    goal = needs.goal + GOAL.get(task.wish, 0)
    if goal <= 0:
        return content
    items = 0 if needs.exact else max(0, len(found.items) - needs.number)
    more = max(0, found.facts - needs.facts) + items + found.extras
    return min(1.0, (1.0 - 0.5**more) / (1.0 - 0.5**goal))


def _brevity(task: Task, found: Findings, answer: Answer) -> float:
    limit = task.needs.length * ROOM.get(task.wish, 1.0)
    idle = sum(
        len(segment.words) for segment in answer.segments if found.useful.isdisjoint(segment.words)
    )
    return _falling(max(0.0, len(answer.words) - limit) + max(0, idle - POLITENESS))


def _falling(excess: float) -> float:
    """1 where nothing is in excess, 0 from `PATIENCE` words on."""
    return min(1.0, max(0.0, 1.0 - excess / PATIENCE))
