"""How the text of a judge becomes verdicts: settings of the readers, and the reading itself.

A verdict counts from the order in which the judge saw the outputs: 1 means the first shown, 2 the
second, 1.5 a tie. A text whose number of verdicts is not the number asked for says nothing about
any single example, so it is read as no verdicts at all.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import Field, field_validator, model_validator

from alpacafarm_core.errors import BadInput
from alpacafarm_core.values import Value

_REFUSAL = re.compile(
    r"^\W*(?:i['\u2019]?m sorry|i am sorry|sorry\b|i can(?:no|['\u2019])t|i am (?:unable|not able)|"
    r"i['\u2019]m (?:unable|not able)|as an ai\b|i (?:will|must) (?:not|decline))",
    re.IGNORECASE,
)
_OPENING = re.compile(r"[\[{]")
_MARKS: dict[object, float] = {True: 1.0, False: 2.0, "a": 1.0, "b": 2.0, "tie": 1.5}
_WORDS: dict[float, object] = {1.0: True, 2.0: False, 1.5: "tie"}
_VALUES = {"first": 1.0, "second": 2.0, "tie": 1.5}
# What a pattern allows to be left out: flags, anchors, an optional character.
_PIECE = re.compile(
    r"(?P<left_out>\(\?i\)|\(\?:\^\|\\n\)|\^|\$|\\[bAZ]|(?:\\.|[^\\])[?*])"
    r"|\\(?P<escaped>.)|\[(?P<one_of>[^^\]\\])[^\]\\]*\]|(?P<plain>.)",
    re.DOTALL,
)
_ESCAPED = {"n": "\n", "t": "\t", "s": " "}


class Said(NamedTuple):
    """What a judge answered: text, and for each token the log-probabilities of the likeliest."""

    text: str
    logprobs: tuple[dict[str, float], ...] = ()


class Verdict(NamedTuple):
    """One reading: `preference` in [1, 2], or None with the `status` that says why."""

    preference: float | None
    status: str


class Reads(Protocol):
    """A form of answer, as reading needs it."""

    def marks(self, said: Said) -> list[float | None]:
        """Every verdict found, in order; None where one cannot be read."""


class Choice(Value):
    """Bare choices: the earliest match of a pattern gives the next verdict, left to right.

    `examples` are texts that say first, second and, third, tie. They are derived from the patterns
    when left out, and a form that cannot be written and read back is refused.
    """

    form: Literal["choice"] = "choice"
    first: str = Field(default=r"^ ?Output \(a\)", description="Pattern of the first shown")
    second: str = Field(default=r"^ ?Output \(b\)", description="Pattern of the second shown")
    tie: str = Field(default=r"^ ?Tie\b", description="Pattern of a tie; empty when there is none")
    examples: tuple[str, ...] = Field(
        default=(), max_length=3, description="Texts of first, second, tie, if patterns do not tell"
    )

    @field_validator("first", "second", "tie")
    @classmethod
    def compiles(cls, pattern: str) -> str:
        """Refuse what is no regular expression."""
        try:
            re.compile(f"({pattern})")  # one of several, so flags for all stand wrong
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def can_be_said(self) -> "Choice":
        """Refuse patterns for which no text is known that they read as meant."""
        for marks in product(self._texts, repeat=2):
            if self.marks(self.written(marks)) != list(marks):
                raise ValueError(
                    f"no answer is known that {self.first!r}, {self.second!r} and {self.tie!r} "
                    "read as meant; give `examples`, what a judge says for first, second and tie"
                )
        return self

    def marks(self, said: Said) -> list[float | None]:
        """Every verdict found, in order."""
        found = _scanner(self.first, self.second, self.tie).finditer(said.text)
        return [_VALUES[str(match.lastgroup)] for match in found]

    def written(self, marks: Sequence[float]) -> Said:
        """What a judge that means these marks (1, 2, 1.5) would say, a line each."""
        return Said("\n".join(said_as(self._texts, mark) for mark in marks))

    @property
    def _texts(self) -> dict[float, str]:
        """The text of each mark that this form can say."""
        patterns = [self.first, self.second, *([self.tie] if self.tie else [])]
        texts = self.examples or [plainest(pattern) for pattern in patterns]
        return dict(zip((1.0, 2.0, 1.5), texts, strict=False))


class Json(Value):
    """An object, or a list of them, with the verdict under `key`: true when the first is better."""

    form: Literal["json"] = "json"
    key: str = Field(default="a_is_better", description="Key of the verdict")

    def marks(self, said: Said) -> list[float | None]:
        """Every verdict found, in order; None where an object has no readable one."""
        held = _json(said.text)
        objects = held if isinstance(held, list) else [held]
        return [_mark(each.get(self.key)) for each in objects if isinstance(each, dict)]

    def written(self, marks: Sequence[float]) -> Said:
        """The object a judge that means one mark in [1, 2] would write, else the list of them."""
        held = [{self.key: _WORDS.get(mark, mark)} for mark in marks]
        return Said(json.dumps(held[0] if len(held) == 1 else held))


def read(said: Said, reader: Reads, size: int) -> list[Verdict] | None:
    """Verdicts on `size` examples, or None when the answer holds another number of them.

    An answer about one example always gives one verdict: refused or unparsable when there is none.
    """
    marks = reader.marks(said)
    if len(marks) == size and marks != [None]:
        return [_verdict(mark) for mark in marks]
    if size > 1:
        return None
    return [Verdict(None, "refused" if refuses(said.text) else "unparsable")]


def refuses(text: str) -> bool:
    """Whether a text begins as a refusal to answer does."""
    return _REFUSAL.match(text) is not None


def said_as(texts: dict[float, str], mark: float) -> str:
    """The text that says a mark; BadInput when the form has none for it."""
    if mark not in texts:
        sayable = ", ".join(f"{each:g}" for each in texts)
        raise BadInput(f"this form of answer cannot say {mark:g}; it says {sayable}")
    return texts[mark]


def _verdict(mark: float | None) -> Verdict:
    if mark is None:
        return Verdict(None, "unparsable")
    return Verdict(mark, "tie" if mark == 1.5 else "ok")


@cache
def _scanner(first: str, second: str, tie: str) -> re.Pattern[str]:
    # Python's alternation takes the earliest start and, there, the pattern listed first.
    named = {"first": first, "second": second, "tie": tie}
    parts = [f"(?P<{name}>{pattern})" for name, pattern in named.items() if pattern]
    return re.compile("|".join(parts), re.MULTILINE)


def plainest(pattern: str) -> str:
    """A short text that a plain pattern matches: what may be left out is, the rest is unescaped."""
    pieces = [piece for piece in _PIECE.finditer(pattern) if not piece["left_out"]]
    return "".join(
        piece["plain"] or piece["one_of"] or _ESCAPED.get(piece["escaped"], piece["escaped"])
        for piece in pieces
    )


def _json(text: str) -> Any:
    """The first JSON list or object, whatever stands around it; None when there is none."""
    opening = _OPENING.search(text)
    try:
        return json.JSONDecoder().raw_decode(text, opening.start())[0] if opening else None
    except ValueError:
        return None


def _mark(value: object) -> float | None:
    if isinstance(value, str):
        value = value.strip().lower()
    if not isinstance(value, bool | int | float | str):
        return None
    if isinstance(value, bool | str):
        return _MARKS.get(value)
    return float(value) if 1 <= value <= 2 else None
