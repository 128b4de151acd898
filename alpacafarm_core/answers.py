"""How the text of a judge becomes verdicts: settings of the readers, and the reading itself.

A verdict counts from the order in which the judge saw the outputs: 1 means the first shown, 2 the
second, 1.5 a tie. A text whose number of verdicts is not the number asked for says nothing about
any single example, so it is read as no verdicts at all.
"""

import json
import re
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator

from alpacafarm_core.values import Value

_REFUSAL = re.compile(
    r"^\W*(?:i['\u2019]?m sorry|i am sorry|sorry\b|i can(?:no|['\u2019])t|i am (?:unable|not able)|"
    r"i['\u2019]m (?:unable|not able)|as an ai\b|i (?:will|must) (?:not|decline))",
    re.IGNORECASE,
)
_OPENING = re.compile(r"[\[{]")
_MARKS: dict[object, float] = {True: 1.0, False: 2.0, "a": 1.0, "b": 2.0, "tie": 1.5}


class Verdict(NamedTuple):
    """One reading: `preference` in [1, 2], or None with the `status` that says why."""

    preference: float | None
    status: str


class Choice(Value):
    """Bare choices: the earliest match of a pattern gives the next verdict, left to right."""

    form: Literal["choice"] = "choice"
    first: str = Field(default=r"^ ?Output \(a\)", description="Pattern of the first shown")
    second: str = Field(default=r"^ ?Output \(b\)", description="Pattern of the second shown")
    tie: str = Field(default=r"^ ?Tie\b", description="Pattern of a tie")

    @field_validator("first", "second", "tie")
    @classmethod
    def compiles(cls, pattern: str) -> str:
        """Refuse what is no regular expression."""
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return pattern

    def marks(self, text: str) -> list[float | None]:
        """Every verdict found, in order."""
        found = _scanner(self.first, self.second, self.tie).finditer(text)
        return [_VALUES[str(match.lastgroup)] for match in found]


class Json(Value):
    """An object, or a list of them, with the verdict under `key`: true when the first is better."""

    form: Literal["json"] = "json"
    key: str = Field(default="a_is_better", description="Key of the verdict")

    def marks(self, text: str) -> list[float | None]:
        """Every verdict found, in order; None where an object has no readable one."""
        held = _json(text)
        objects = held if isinstance(held, list) else [held]
        return [_mark(each.get(self.key)) for each in objects if isinstance(each, dict)]


Reader = Annotated[Choice | Json, Field(discriminator="form")]

_VALUES = {"first": 1.0, "second": 2.0, "tie": 1.5}


def read(text: str, reader: Choice | Json, size: int) -> list[Verdict] | None:
    """Verdicts on `size` examples, or None when the text holds another number of them.

    A text about one example always gives one verdict: refused or unparsable when there is none.
    """
    marks = reader.marks(text)
    if len(marks) == size:
        return [_verdict(mark) for mark in marks]
    if size > 1:
        return None
    return [Verdict(None, "refused" if _REFUSAL.match(text) else "unparsable")]


def _verdict(mark: float | None) -> Verdict:
    if mark is None:
        return Verdict(None, "unparsable")
    return Verdict(mark, "tie" if mark == 1.5 else "ok")


@cache
def _scanner(first: str, second: str, tie: str) -> re.Pattern[str]:
    # Python's alternation takes the earliest start and, there, the pattern listed first.
    named = f"(?P<first>{first})|(?P<second>{second})|(?P<tie>{tie})"
    return re.compile(named, re.MULTILINE)


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
