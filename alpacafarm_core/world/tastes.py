"""Tastes: what a judge of this world makes of two outputs, beyond their true utility.

A taste weighs the terms of the utility in its own way, adds leanings that utility does not have
(towards the first shown, the longer, the list), and makes mistakes. The leanings are the biases
found in AlpacaFarm (arXiv 2305.14387, section 4.2), sized with `benchmarks/judge_pool.py`.
"""

import hashlib
import math
import re
from typing import NamedTuple

from alpacafarm_core.world.utility import Terms, terms

_LIST = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)]|[a-z][.)])\s+\w", re.MULTILINE | re.IGNORECASE)
_LONG = 60.0
_REASONS = (
    "has more of what is needed and less that is wrong",
    "does what was asked",
    "reads better",
    "says more that is useful",
    "does not run on",
)


class Shown(NamedTuple):
    """Two outputs in the order in which a judge sees them."""

    instruction: str
    input: str
    first: str
    second: str


class Taste(NamedTuple):
    """Weights on the terms of utility, leanings, and how far judgements stray.

    With all weights 1 and all else 0 it is utility itself. All else is in units of utility:
    `first`, `longer` and `lists` favour the first shown, the longer and the list; `quirks` is the
    scale of likings for single texts that no term explains and that never change (the judge's
    bias); `mistakes` is the scale of what is drawn anew with every seed, at temperature 1, and
    grows in step with it (the judge's variance).
    """

    content: float = 1.0
    following: float = 1.0
    form: float = 1.0
    detail: float = 1.0
    brevity: float = 1.0
    first: float = 0.0
    longer: float = 0.0
    lists: float = 0.0
    quirks: float = 0.0
    mistakes: float = 0.0

    def value(self, seen: Terms) -> float:
        """How good an answer with these terms is to this taste, in [0, 1]."""
        weights = 0.5 * self.content, 0.25 * self.following, 0.25 * self.detail
        wanted = zip(weights, (seen.content, seen.following, seen.detail), strict=True)
        said = sum(weight * term for weight, term in wanted) / sum(weights)
        patience = max(0.0, 1 - 0.6 * self.brevity * (1 - seen.brevity))
        return float(seen.form**self.form * patience * said)

    def leaning(self, shown: Shown) -> float:
        """What speaks for the first beside its value."""
        length = math.tanh((len(shown.first) - len(shown.second)) / _LONG)
        lists = has_list(shown.first) - has_list(shown.second)
        return self.first + self.longer * length + self.lists * lists


class Opinion(NamedTuple):
    """Which output is better, and the reason a judge would give for it."""

    first_is_better: bool
    reason: str


class Mood(NamedTuple):
    """Who judges, at which temperature, on which occasion."""

    judge: str
    temperature: float
    seed: int


def opinion(taste: Taste, shown: Shown, mood: Mood) -> Opinion:
    """What a judge with this taste says; its noise depends on the texts and the mood alone."""
    first = terms(shown.instruction, shown.input, shown.first)
    second = terms(shown.instruction, shown.input, shown.second)
    draw = uniform(mood.judge, str(mood.seed), *shown)
    margin = taste.value(first) - taste.value(second) + taste.leaning(shown)
    if taste.quirks:
        margin += taste.quirks * (_liking(mood.judge, shown, 2) - _liking(mood.judge, shown, 3))
    margin += taste.mistakes * mood.temperature * math.log(draw / (1 - draw))
    first_is_better = margin > 0 or (margin == 0 and draw < 0.5)
    return Opinion(first_is_better, _reason(first, second, first_is_better))


def _liking(judge: str, shown: Shown, which: int) -> float:
    # Gumbel, so that the difference of two is logistic, as mistakes are.
    return -math.log(-math.log(uniform(judge, *shown[:2], shown[which])))


def uniform(*parts: str) -> float:
    """A number strictly between 0 and 1 that depends on the parts alone."""
    text = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    drawn = int.from_bytes(hashlib.blake2b(text, digest_size=6).digest())
    return (drawn + 0.5) / 2**48


def has_list(text: str) -> bool:
    """Whether a line starts as an item of a list does."""
    return _LIST.search(text) is not None


def _reason(first: Terms, second: Terms, first_is_better: bool) -> str:
    sign = 1 if first_is_better else -1
    ahead = [sign * (a - b) for a, b in zip(first, second, strict=True)]
    best = max(range(len(ahead)), key=ahead.__getitem__)
    name = "Output (a)" if first_is_better else "Output (b)"
    return f"{name} {_REASONS[best]}." if ahead[best] > 0 else f"{name} is the one I like more."
