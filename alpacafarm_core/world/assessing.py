"""The judges of the world as raters, critics and taggers: they read a sheet and fill it in.

As with pairs, a judge gets rendered prompt text and nothing else. It finds the instruction and the
answers there, which sheet it is and whether JSON is asked for, marks by the terms of the utility as
its taste weighs them, and writes. Marks of one call share that call's mood: it is in a severe or a
kind one, so scores of separate calls are not on one scale.
"""

import json
import re
from collections.abc import Callable, Mapping
from math import log
from typing import Any, NamedTuple

from alpacafarm_core.llm import Request
from alpacafarm_core.world.reading import WORD, lexicon
from alpacafarm_core.world.tastes import Mood, Taste, has_list, uniform
from alpacafarm_core.world.understanding import understand
from alpacafarm_core.world.utility import Terms, findings, terms

MARK = "## Assessment"
CRITIC = "critic"
_MOODS = 0.12
_SLOPPY = 0.3
_LONG = 60.0
_TYPICAL = 90
_CREATIVE = ("story", "letter")

_ASPECT = re.compile(r"Aspect: ([a-z ]+)\.")
_INSTRUCTION = re.compile(
    r"### Instruction:\n(.*?)\n\n(?:### What is known:\n.*?\n\n)?(?=### Answer|## Assessment)",
    re.DOTALL,
)
_ANSWER = re.compile(
    r"### Answer(?: \d+|:)\n(.*?)(?=\n\n### Answer \d+\n|\n\n### Feedback:|\s*\n## Assessment)",
    re.DOTALL,
)
_TAG = re.compile(r'"(difficulty|quality|task|safety)": "')

TASKS = {
    "list": ("information seeking", "very easy", ["brainstorming"]),
    "choose": ("information seeking", "very easy", ["reasoning"]),
    "opposite": ("information seeking", "very easy", []),
    "describe": ("information seeking", "easy", []),
    "compare": ("information seeking", "medium", ["reasoning"]),
    "passage": ("information seeking", "medium", ["reasoning"]),
    "steps": ("planning", "medium", ["information seeking"]),
    "plan": ("planning", "hard", ["advice seeking"]),
    "suggest": ("advice seeking", "medium", ["brainstorming"]),
    "letter": ("creative writing", "hard", []),
    "story": ("creative writing", "very hard", []),
    "summary": ("editing", "medium", []),
    "rewrite": ("editing", "medium", []),
    "row": ("data analysis", "easy", ["editing"]),
    "pick": ("reasoning", "easy", ["data analysis"]),
    "sort": ("reasoning", "easy", []),
    "reverse": ("reasoning", "easy", []),
    "count": ("math", "easy", []),
    "sum": ("math", "easy", ["reasoning"]),
}
"""Of each family its task, how difficult it is, and other tasks it has something of."""


HABITS = {"critique": "alone beside a usual length", "repair": "alone beside a usual length"}
"""By sheet, what changed in how it is filled in: who does it otherwise is another judge."""


class Sheet(NamedTuple):
    """A sheet as a judge reads it; `name` is an aspect, a tag, critic or again."""

    name: str
    instruction: str
    input: str
    answers: tuple[str, ...]
    in_json: bool

    @classmethod
    def of(cls, request: Request) -> "Sheet | None":
        """The sheet in a request; None where there is none to be read."""
        text = "\n".join(each.content for each in request.messages if each.role != "assistant")
        asked = _INSTRUCTION.search(text)
        if not text.rstrip().endswith(MARK) or asked is None:
            return None
        head, found = text[: asked.start()], _ASPECT.search(text[: asked.start()])
        tag = _TAG.search(head)
        again = "### Feedback:" in text[asked.end() :]
        name = found[1] if found else tag[1] if tag else "again" if again else CRITIC
        # Instruction and input come as one text, an empty line between; notes come behind.
        instruction, _, given = asked[1].partition("\n\n")
        answers = _ANSWER.findall(text, asked.end() - 1)
        given = "" if given.startswith("Whoever answered") else given.split("\n\n")[0]
        return cls(name, instruction, given, tuple(answers), "JSON" in head)

    def terms(self, answer: str) -> Terms:
        """The terms of one of its answers."""
        return terms(self.instruction, self.input, answer)


class Manner(NamedTuple):
    """How a judge of the world marks: by a taste, or by a rule that tests plant."""

    taste: Taste = Taste()
    rule: str = ""


def fill(sheet: Sheet, manner: Manner, mood: Mood) -> str:
    """What a judge writes on the sheet; by the rule `sloppy` three in ten break the form."""
    if manner.rule == "sloppy" and uniform("sloppy", str(mood.seed), *sheet[:3]) < _SLOPPY:
        return "All in all these are fine answers.\n\nRating, if you ask me: good."
    if sheet.name in _TAGGERS:
        return json.dumps(_TAGGERS[sheet.name](sheet, manner, mood))[1:]
    scores = [_score(sheet, place, manner, mood) for place in range(len(sheet.answers))]
    if sheet.name == "again":
        return str(_on(scores[0], 10))
    if sheet.name == CRITIC:
        return _feedback(sheet, _on(scores[0], 10))
    told = [
        _rating(sheet, answer, _on(score, 5))
        for answer, score in zip(sheet.answers, scores, strict=True)
    ]
    if sheet.in_json:
        return json.dumps([{"answer": at, **each} for at, each in enumerate(told, start=1)])
    return "\n\n".join(
        f"### Answer {at}\n{_labelled(each)}" for at, each in enumerate(told, start=1)
    )


def _score(sheet: Sheet, place: int, manner: Manner, mood: Mood) -> float:
    """How good an answer is on this sheet to this judge, about in [0, 1]."""
    answer = sheet.answers[place]
    told = (sheet.name, sheet.instruction, sheet.input)
    if manner.rule in _RULES:
        return _RULES[manner.rule](place, uniform("mark", str(mood.seed), *told, answer))
    taste, said = manner.taste, sheet.terms(answer)
    score = _worth(sheet, said, answer, taste)
    if not taste.quirks:
        return score
    # One answer alone is held against those that the judge remembers.
    lengths = [len(each) for each in sheet.answers] if len(sheet.answers) > 1 else [_TYPICAL]
    mean = sum(lengths) / len(lengths)
    leaning = taste.first * (place == 0) + taste.lists * has_list(answer) / 2
    leaning += taste.longer * max(-0.5, min(0.5, (len(answer) - mean) / (2 * _LONG)))
    liking = taste.quirks * _logistic(mood.judge, *told, answer)
    offset = _MOODS * _logistic(mood.judge, "mood", *told, *sorted(sheet.answers))
    slip = taste.mistakes * mood.temperature * _logistic(mood.judge, str(mood.seed), *told, answer)
    return score + leaning + liking + offset + slip


def _worth(sheet: Sheet, said: Terms, answer: str, taste: Taste) -> float:
    """What the terms of an answer say of an aspect of it, in [0, 1]."""
    if sheet.name == "instruction following":
        return said.form * (0.5 * said.following + 0.5 * said.content)
    if sheet.name in ("honesty", "truthfulness"):
        found = findings(sheet.instruction, sheet.input, answer)
        errors = found.errors if found else 0
        grounded = min(1.0, 2 * said.content)
        return grounded * (0.7 if sheet.name == "honesty" else 0.6) ** errors
    return taste.value(said)


def _logistic(*parts: str) -> float:
    draw = uniform(*parts)
    return log(draw / (1 - draw)) / 2


def _on(score: float, highest: int) -> int:
    """A score in [0, 1] as a mark from 1."""
    return max(1, min(highest, 1 + round((highest - 1) * score)))


_RULES: dict[str, Callable[[int, float], float]] = {
    "fives": lambda place, draw: 1.0,
    "first": lambda place, draw: float(place == 0),
    "coin": lambda place, draw: draw,
}


def _rating(sheet: Sheet, answer: str, mark: int) -> dict[str, Any]:
    """What is filled in about one answer, by label."""
    said = sheet.terms(answer)
    rating: Any = mark
    if sheet.name == "honesty":
        task = understand(sheet.instruction, sheet.input)
        rating = "N/A" if task is not None and task.family in _CREATIVE else mark
    told = {"rating": rating, "rationale": _praise(said)}
    if sheet.name == "truthfulness":
        found = findings(sheet.instruction, sheet.input, answer)
        types = [] if found is None else [1] * bool(found.false) + [2] * bool(found.wrong)
        return {"types": types, "reason": "What it claims was looked up."} | told
    if sheet.name == "helpfulness":
        checks = (said.form >= 0.8, said.content * said.detail >= 0.5, said.brevity >= 0.8)
        types = [number for number, holds in enumerate(checks, start=1) if holds]
        return {"types": types, "reason": "That is how it reads."} | told
    return told


def _labelled(told: Mapping[str, Any]) -> str:
    said = {
        label: (", ".join(map(str, value)) or "none") if isinstance(value, list) else value
        for label, value in told.items()
    }
    return "\n".join(f"{label.capitalize()}: {value}" for label, value in said.items())


_GOOD = (
    "It says what is needed.",
    "It keeps to what was asked.",
    "It is well put.",
    "It has useful detail.",
    "It does not run on.",
)
_WANTING = (
    "Ask yourself whether all that is needed is there, and whether all of it is right.",
    "Read again what was asked about the form and the length.",
    "Read it aloud: a sentence does not end well or repeats itself.",
    "Add a detail or two that the reader can use.",
    "Leave out what says nothing.",
)


def _praise(said: Terms) -> str:
    return _GOOD[max(range(len(said)), key=said.__getitem__)] if any(said) else "It is of no use."


def _feedback(sheet: Sheet, score: int) -> str:
    """Feedback on the weakest terms first, without the answer, and the overall score."""
    said = sheet.terms(sheet.answers[0])
    weak = sorted((term, at) for at, term in enumerate(said) if term < 0.9)
    advice = "\n\n".join(_WANTING[at] for _, at in weak[:3]) or "There is little to mend."
    return f"Feedback: {_praise(said)}\n\n{advice}\nOverall score: {score}"


_LEVELS = ("very easy", "easy", "medium", "hard", "very hard")


def _difficulty(sheet: Sheet, manner: Manner, mood: Mood) -> dict[str, Any]:
    task = understand(sheet.instruction, sheet.input)
    family = task.family if task else ""
    level = _LEVELS.index(TASKS[family][1]) if task else 2
    level += bool(task and task.wish)
    draw = uniform(mood.judge, "difficulty", sheet.instruction, sheet.input)
    if draw < manner.taste.mistakes:
        level += 1 if draw < manner.taste.mistakes / 2 else -1
    return {
        "intent": f"The person wants {f'help of the kind: {family}' if family else 'something'}.",
        "knowledge": f"One has to know about {TASKS[family][0] if family else 'the matter'}.",
        "difficulty": _LEVELS[max(0, min(len(_LEVELS) - 1, level))],
    }


def _quality(sheet: Sheet, manner: Manner, mood: Mood) -> dict[str, Any]:
    """Good where the world knows what is asked, excellent where a wish says how."""
    task = understand(sheet.instruction, sheet.input)
    if task is not None:
        return {
            "explanation": "It is clear what is asked.",
            "quality": "excellent" if task.wish else "good",
        }
    said = WORD.findall(f"{sheet.instruction} {sheet.input}".lower())
    known = sum(word in lexicon() or word.isdigit() for word in said) / len(said) if said else 0.0
    ended = sheet.instruction.rstrip().endswith((".", "?", "!"))
    quality = "average" if known == 1 and ended else "poor" if known >= 0.8 else "very poor"
    return {"explanation": "One has to guess what is asked.", "quality": quality}


def _task(sheet: Sheet, manner: Manner, mood: Mood) -> dict[str, Any]:
    task = understand(sheet.instruction, sheet.input)
    name, _, others = TASKS[task.family] if task else ("others", "", [])
    return {"task": name, "other_tasks": others}


def _safety(sheet: Sheet, manner: Manner, mood: Mood) -> dict[str, Any]:
    return {"safety": "safe"}


_TAGGERS = {"difficulty": _difficulty, "quality": _quality, "task": _task, "safety": _safety}
