"""The web of this world: what its base model reads before anyone teaches it anything.

Like ours it holds much that is poorly written: questions answered by anybody, those who know and
those who do not; school books, headed as such, whose answers are good; plain facts; forum threads
in which people remark on an answer, set two answers to one question against each other, or mend a
bad one. Nobody on this web asks what the splits ask (`instructions.POOLS`), but the same facts,
words and ways of asking and answering occur. From the threads a model learns to hold an answer
against its question, which is all that a reward model made from it has to build on. Readers
differ: some verdicts are off by a grade, some comparisons are wrong.
"""

from collections.abc import Callable, Iterator
from random import Random

from alpacafarm_core.prompts import render
from alpacafarm_core.world.answering.pen import Pen
from alpacafarm_core.world.answering.things import told
from alpacafarm_core.world.facts import TABLES, column, things
from alpacafarm_core.world.instructions import FAMILY_WEIGHTS, draw
from alpacafarm_core.world.utility import Findings, Terms, findings, terms, total
from alpacafarm_core.world.writers import write

VERDICTS = (
    (0.85, "Very good."),
    (0.68, "Good."),
    (0.5, "Fair."),
    (0.3, "Poor."),
    (-1.0, "Bad."),
)
"""The lowest utility, as the reader sees it, for each verdict."""

REASONS = {
    "content": ("Some of this is wrong.", "The most important is missing."),
    "following": ("This is not what was asked.", "Please do what was asked."),
    "form": ("This is not well written.", "The answer does not end well."),
    "detail": ("Please say more.", "There is not much in it."),
    "brevity": ("That is too long.", "Say less."),
}

BLUR = 0.06

LESSON = "### Lesson\n"


def documents(seed: int) -> Iterator[str]:
    """Documents without end, the same for the same seed; the end token is not part of them."""
    rng = Random(f"web {seed}")
    kinds: tuple[Callable[[Random], str], ...] = (
        answered, taught, discussed, compared, mended, plain,
    )  # fmt: skip
    while True:
        yield rng.choices(kinds, (14, 24, 42, 8, 5, 7))[0](rng)


def asked(rng: Random) -> tuple[str, str]:
    """An instruction of the web, with its input."""
    family = rng.choices(list(FAMILY_WEIGHTS), list(FAMILY_WEIGHTS.values()))[0]
    return draw(rng, family, "web")


def _written(rng: Random, question: tuple[str, str], skill: float) -> str:
    return write(*question, skill, rng.getrandbits(32))


def answered(rng: Random) -> str:
    """A question and an answer; people who know and people who do not, few between."""
    question = asked(rng)
    return render(*question) + _written(rng, question, rng.betavariate(0.5, 0.6))


def taught(rng: Random) -> str:
    """A question and a good answer, out of a school book, which says so."""
    question = asked(rng)
    return f"{LESSON}{render(*question)}{_written(rng, question, 0.95)}"


def discussed(rng: Random) -> str:
    """A question, a few answers of any quality, and what a reader makes of each."""
    question = asked(rng)
    said = []
    for _ in range(rng.randint(1, 4)):
        answer = _written(rng, question, rng.random())
        said.append(f"{answer}\n\n### Comment: {remark(rng, question, answer)}")
    return render(*question) + "\n\n### Response:".join(said)


def remark(rng: Random, question: tuple[str, str], answer: str) -> str:
    """A verdict, and for all but the best what is amiss: in so many words, or in general."""
    seen = terms(*question, answer)
    felt = total(seen) + rng.gauss(0.0, BLUR)
    verdict = next(said for bound, said in VERDICTS if felt >= bound)
    found = findings(*question, answer)
    named = amiss(found) if found else []
    if named:
        return " ".join([verdict, *rng.sample(named, min(len(named), 2))])
    lack = dict(zip(Terms._fields, seen, strict=True))
    worst = min(lack, key=lambda term: lack[term])
    if lack[worst] > 0.9:
        return verdict
    return f"{verdict} {rng.choice(REASONS[worst])}"


def amiss(found: Findings) -> list[str]:
    """What is untrue, out of place or left out of an answer, a sentence each."""
    untrue = [f"Not {word} for the {about}." for about, word in sorted(found.false) if about]
    strange = [f"Not {word}." for about, word in sorted(found.false) if not about]
    misplaced = [f"Not {word}." for word in sorted(found.wrong)]
    missing = [f"There is no {min(point)} in it." for point in found.unsaid]
    return untrue + strange + misplaced + missing


def compared(rng: Random) -> str:
    """A question, two answers, and the better one named."""
    question = asked(rng)
    first, second = (_written(rng, question, rng.random()) for _ in range(2))
    gap = total(terms(*question, first)) - total(terms(*question, second))
    better = "first" if gap + rng.gauss(0.0, BLUR) > 0 else "second"
    return (
        f"{render(*question)}{first}\n\n### Response:{second}"
        f"\n\n### Comment: The {better} answer is better."
    )


def mended(rng: Random) -> str:
    """A question, a poor answer, and a better one after it."""
    question = asked(rng)
    poor, better = _written(rng, question, 0.2), _written(rng, question, 0.9)
    return f"{render(*question)}{poor}\n\n### Comment: Here is a better answer.\n{better}"


def plain(rng: Random) -> str:
    """A few true sentences about some things."""
    pen = Pen(rng, 1.0)
    found = []
    for _ in range(rng.randint(1, 3)):
        table = rng.choice(TABLES)
        thing = things(table)[rng.choice(column(table))]
        fields = list(thing.facts)
        found += told(pen, thing, rng.sample(fields, len(fields)))
    return " ".join(found)
