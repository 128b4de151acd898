"""Sheets: what a judge fills in about an answer or a prompt, and how its text is read and written.

A sheet has blanks. A judge fills them in for every answer it was shown, under labels, as JSON, or,
where there is a single blank, bare. What cannot be read is left empty and says so; it is never
guessed. Aspects and scales are UltraFeedback's (arXiv 2310.01377, section 2.3), tags are Magpie's
(arXiv 2406.08464, section 2.2).
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from alpacafarm_core.answers import refuses
from alpacafarm_core.ratings import HIGHEST, LOWEST, TOP

DIFFICULTIES = ("very easy", "easy", "medium", "hard", "very hard")
QUALITIES = ("very poor", "poor", "average", "good", "excellent")
TASKS = (
    "information seeking",
    "reasoning",
    "planning",
    "editing",
    "coding & debugging",
    "math",
    "role playing",
    "data analysis",
    "creative writing",
    "advice seeking",
    "brainstorming",
    "others",
)
SAFETY = ("safe", "unsafe")

Form = Literal["labelled", "json", "bare"]


class Blank(NamedTuple):
    """One thing to fill in: its label, which is its key as well, and what it takes.

    `scale` are the lowest and highest of a whole number, or of the numbers of a list; `values` the
    words allowed. A label that `closes` counts where it comes last: what is before it is free text.
    """

    label: str
    takes: Literal["text", "number", "numbers", "word", "words"]
    scale: tuple[int, int] = (0, 0)
    values: tuple[str, ...] = ()
    or_na: bool = False
    needed: bool = True
    closes: bool = False


RATING = Blank("rating", "number", (LOWEST, HIGHEST))
_RATIONALE = Blank("rationale", "text", needed=False)
_TYPED = (
    Blank("types", "numbers", (1, 3), needed=False),
    Blank("reason", "text", needed=False),
    RATING,
    _RATIONALE,
)
BLANKS: Mapping[str, tuple[Blank, ...]] = {
    "instruction_following": (RATING, _RATIONALE),
    "honesty": (RATING._replace(or_na=True), _RATIONALE),
    "truthfulness": _TYPED,
    "helpfulness": _TYPED,
    "critique": (
        Blank("feedback", "text"),
        Blank("overall score", "number", (1, TOP), closes=True),
    ),
    "repair": (Blank("overall score", "number", (1, TOP), closes=True),),
    "difficulty": (
        Blank("intent", "text", needed=False),
        Blank("knowledge", "text", needed=False),
        Blank("difficulty", "word", values=DIFFICULTIES),
    ),
    "quality": (
        Blank("explanation", "text", needed=False),
        Blank("quality", "word", values=QUALITIES),
    ),
    "task": (
        Blank("task", "word", values=TASKS),
        Blank("other tasks", "words", values=TASKS, needed=False),
    ),
    "safety": (Blank("safety", "word", values=SAFETY),),
}
"""The blanks of each sheet."""


class Reading(NamedTuple):
    """What stands in the blanks about one answer, by label, and whether all that is needed does.

    `status` is ok, na where a mark is not applicable, unparsable, refused or failed.
    """

    held: dict[str, Any]
    status: str


def read(text: str, form: Form, blanks: Sequence[Blank], size: int) -> list[Reading]:
    """What a judge filled in about each of `size` answers, in the order in which it saw them."""
    readings = [_reading(told, blanks) for told in _FORMS[form](text, blanks, size)]
    if refuses(text) and not any(any(each.held.values()) for each in readings):
        return [reading._replace(status="refused") for reading in readings]
    return readings


def is_whole(readings: Sequence[Reading]) -> bool:
    """Whether nothing is missing; a refusal is whole, as asking again would be refused again."""
    return all(reading.status != "unparsable" for reading in readings)


def written(filled: Sequence[Mapping[str, Any]], form: Form, blanks: Sequence[Blank]) -> str:
    """How a judge that fills in these values would say so; a null number is N/A."""
    if form == "bare":
        return _said(filled[0][blanks[0].label])
    if form == "json":
        objects = [
            {
                name.replace(" ", "_"): "N/A" if value is None else value
                for name, value in each.items()
            }
            for each in filled
        ]
        return json.dumps(objects[0] if len(objects) == 1 else objects)
    blocks = [
        "\n".join(f"{blank.label.capitalize()}: {_said(each[blank.label])}" for blank in blanks)
        for each in filled
    ]
    if len(blocks) == 1:
        return blocks[0]
    return "\n\n".join(f"### Answer {n}\n{block}" for n, block in enumerate(blocks, start=1))


def _or_na(value: Any) -> Any:
    return "N/A" if value is None else value


def _said(value: Any) -> str:
    listed = ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else value
    return str(_or_na(listed))


_Told = dict[str, Any]
_HEADING = re.compile(r"^[ \t>*#]*answer[ \t]+(\d+)[ \t*:]*$", re.MULTILINE | re.IGNORECASE)


def _labelled(text: str, blanks: Sequence[Blank], size: int) -> list[_Told]:
    """Blocks below headings `Answer N`, one for each.

    A number that stands twice counts as none; one that there is no answer for, such as 0, makes all
    of them doubtful.
    """
    if size == 1:
        return [_block(text, blanks)]
    heads = list(_HEADING.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    blocks: dict[int, list[str]] = {}
    for head, end in zip(heads, ends, strict=False):
        blocks.setdefault(int(head[1]), []).append(text[head.end() : end])
    numbers = range(1, size + 1)
    if not set(blocks) <= set(numbers):
        return [{}] * size
    single = {number: held[0] for number, held in blocks.items() if len(held) == 1}
    return [_block(single[number], blanks) if number in single else {} for number in numbers]


def _block(text: str, blanks: Sequence[Blank]) -> _Told:
    """What stands after each label, up to the next one; blank lines are part of it."""
    labels = "|".join(re.escape(blank.label) for blank in blanks)
    pattern = rf"^[ \t>*#-]*({labels})[ \t*]*:[ \t*]*"
    marks: dict[str, re.Match[str]] = {}
    closing = {blank.label for blank in blanks if blank.closes}
    for match in re.finditer(pattern, text, re.MULTILINE | re.IGNORECASE):
        label = match[1].lower()
        if label not in marks or label in closing:
            marks[label] = match
    order = sorted(marks, key=lambda label: marks[label].start())
    ends = [*(marks[label].start() for label in order[1:]), len(text)]
    spans = zip(order, ends, strict=False)
    return {label: text[marks[label].end() : end].strip() for label, end in spans}


def _json(text: str, blanks: Sequence[Blank], size: int) -> list[_Told]:
    """An object, or a list of them; `answer` in each says which one it is about.

    A brace that the prompt has opened, or that sampling stopped at, is put back.
    """
    held = _value(text)
    objects = held if isinstance(held, list) else [held]
    told: list[_Told] = [
        {str(name).lower().replace("_", " "): value for name, value in each.items()}
        for each in objects
        if isinstance(each, dict)
    ]
    if size > 1 and any("answer" in each for each in told):
        # Whoever numbers answers must number each of them once: their order says nothing then.
        by_number = {_which(each.get("answer")): each for each in told}
        told = [by_number[at] for at in range(1, size + 1)] if _all(by_number, size) else []
    return told if len(told) == size else [{}] * size


def _all(by_number: Mapping[int | None, _Told], size: int) -> bool:
    return set(by_number) == set(range(1, size + 1))


def _which(answer: Any) -> int | None:
    """The number that an object gives its answer: 2, "2" or "Answer 2"."""
    found = re.fullmatch(r"\s*(?:answer\s*)?#?(\d+)\s*", str(answer), re.IGNORECASE)
    return int(found[1]) if found else None


def _value(text: str) -> Any:
    """The JSON value in a text, whatever stands around it; None when there is none."""
    start = min((at for mark in "[{" if (at := text.find(mark)) >= 0), default=-1)
    before = text[:start].strip() if start >= 0 else ""
    # Prose or a fence may stand before a value of its own; after an open brace there are keys.
    tries = ["{" + text, "{" + text + "}"] if start < 0 or before.startswith('"') else []
    if start >= 0:
        tries += [text[start:], text[start:] + "}", text[start:] + "}]"]
    for each in tries:
        try:
            return json.JSONDecoder(strict=False).raw_decode(each)[0]
        except (ValueError, RecursionError):
            continue
    return None


def _bare(text: str, blanks: Sequence[Blank], size: int) -> list[_Told]:
    return [{blanks[0].label: text.strip()}] * size


_FORMS = {"labelled": _labelled, "json": _json, "bare": _bare}


def _reading(told: _Told, blanks: Sequence[Blank]) -> Reading:
    """The values of the blanks; what is unreadable is None."""
    held, status = dict[str, Any](), "ok"
    for blank in blanks:
        given = told.get(blank.label)
        held[blank.label] = _TAKEN[blank.takes](given, blank)
        if blank.or_na and _is_na(given):
            status = "na" if status == "ok" else status
        elif blank.needed and held[blank.label] in (None, ""):
            status = "unparsable"
    return Reading(held, status)


_NUMBER = re.compile(r"^[\s*_\"'(]*(\d+)(?:\s*/\s*(\d+))?(?!\s*[.,\d-]*\d)")
_NA = re.compile(r"^\W*n\s*/?\s*a\b", re.IGNORECASE)


def _is_na(given: Any) -> bool:
    return isinstance(given, str) and _NA.match(given) is not None


def _text(given: Any, _: Blank) -> str | None:
    return given.strip() if isinstance(given, str) else None


def _number(given: Any, blank: Blank) -> int | None:
    """A whole number on the scale, alone or out of the highest: 4, "4", "4/5", "4 (good)"."""
    low, high = blank.scale
    if isinstance(given, str):
        found = _NUMBER.match(given)
        given = int(found[1]) if found and int(found[2] or high) == high else None
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    whole = isinstance(given, int) and not isinstance(given, bool)
    return given if whole and low <= given <= high else None


def _numbers(given: Any, blank: Blank) -> list[int] | None:
    """Whole numbers on the scale, each once; a text without any is an empty list."""
    if isinstance(given, str):
        given = [int(each) for each in re.findall(r"\d+", given)]
    if isinstance(given, int) and not isinstance(given, bool):
        given = [given]
    if not isinstance(given, list):
        return None
    listed = [_number(each, blank) for each in given]
    return sorted({each for each in listed if each}) if None not in listed else None


def _word(given: Any, blank: Blank) -> str | None:
    """One of the words allowed, whatever its case and the marks around it."""
    bare = " ".join(given.strip(" \t\n.*\"'`").lower().split()) if isinstance(given, str) else ""
    return bare if bare in blank.values else None


def _words(given: Any, blank: Blank) -> list[str] | None:
    """The words allowed among those listed."""
    if isinstance(given, str):
        given = [each for each in re.split(r"[,;\n]", given) if each.strip()]
    if not isinstance(given, list):
        return None
    found = [_word(each, blank) for each in given]
    return list(dict.fromkeys(each for each in found if each))


_TAKEN = {
    "text": _text,
    "number": _number,
    "numbers": _numbers,
    "word": _word,
    "words": _words,
}
