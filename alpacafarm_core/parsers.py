"""The forms of an answer that alpaca_eval's completion parsers read, rule by rule."""

import ast
import json
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from alpacafarm_core.answers import Choice, Json, Said, plainest
from alpacafarm_core.errors import BadInput
from alpacafarm_core.forms import BROKEN, Form, Mapped, alike, filled, found, mark, only, pairs

_FENCED = re.compile(r"```json(.*?)```", re.DOTALL)
_SECOND = "model_2"


class Scan(Form):
    """regex_parser: of all patterns the earliest match gives the next entry, over and over.

    What follows a match is read as a text of its own, so `^` holds there, and at no other line.
    Patterns are pairs (entry, pattern); of equal starts the first listed wins.
    """

    form: Literal["scan"] = "scan"
    patterns: Mapped = Field(min_length=1, description="Entry and pattern, in order of preference")
    examples: Mapped = Field(default=(), description="Entry and a text for it, if patterns are odd")

    @field_validator("patterns", "examples", mode="before")
    @classmethod
    def takes_a_mapping(cls, given: Any) -> Any:
        """A mapping is its pairs."""
        return pairs(given)

    @field_validator("patterns")
    @classmethod
    def compile(cls, given: Mapped) -> Mapped:
        """Refuse what is no regular expression."""
        for _, pattern in given:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return given

    def entries(self, completion: Any) -> list[Any]:
        """The entries in the order of their matches."""
        rest, entries = completion, list[Any]()
        while True:
            matches = [(entry, re.search(pattern, rest)) for entry, pattern in self.patterns]
            held = [(match.start(), match.end(), entry) for entry, match in matches if match]
            if not held:
                return entries
            _, end, entry = min(held, key=lambda each: each[0])
            if not end:
                raise ValueError("an empty match would match forever")
            entries.append(entry)
            rest = rest[end:]

    def say(self, entries: Sequence[Any]) -> str:
        """Their texts, a line each, or in one line where a line's start would not count."""
        known = self.examples or tuple((entry, plainest(each)) for entry, each in self.patterns)
        texts = [found(known, entry) for entry in entries]
        for join in ("\n", ""):
            read = self.entries(join.join(texts))
            if len(read) == len(entries) and all(map(alike, read, entries)):
                return join.join(texts)
        raise BadInput(
            f"no answer is known that {', '.join(str(each) for _, each in self.patterns)} read as "
            "meant; give `examples`, a text for each entry"
        )


class Ranking(Form):
    """ranking_parser: a list of {model, rank}, and the rank of the first shown is the entry."""

    form: Literal["ranking"] = "ranking"
    first: str = Field(default="model_1", description="What the prompt calls the first shown")

    def entries(self, completion: Any) -> list[Any]:
        """One entry: 1, 2, or None where the list does not tell."""
        try:
            listed = ast.literal_eval(completion) if isinstance(completion, str) else completion
            rank = next(each["rank"] for each in listed if each["model"] == self.first)
        except (*BROKEN, StopIteration):
            return [None]
        return [rank if rank in (1, 2) else None]

    def say(self, entries: Sequence[Any]) -> list[dict[str, Any]]:
        """The list that ranks the first shown so."""
        rank = only(entries, (1, 2))
        return [{"model": self.first, "rank": rank}, {"model": _SECOND, "rank": 3 - rank}]


class Keyed(Form):
    """json_parser: an object, or a list of them, bare or fenced, with the entry under `key`."""

    form: Literal["keyed"] = "keyed"
    key: str | None = Field(description="Key of the entry; none takes the whole object")

    def entries(self, completion: Any) -> list[Any]:
        """One entry an object."""
        fenced = _FENCED.search(completion)
        if fenced is None and "```json" in completion:
            raise ValueError("the fence is open")
        held = json.loads(fenced[1] if fenced else completion)
        listed = [held] if isinstance(held, dict) else list(held)
        return listed if self.key is None else [each[self.key] for each in listed]

    def say(self, entries: Sequence[Any]) -> str:
        """One object, or the list of them."""
        held = [each if self.key is None else {self.key: each} for each in entries]
        single = len(held) == 1 and isinstance(held[0], dict)
        return json.dumps(held[0] if single else held)


class Evaluated(Form):
    """eval_parser: a Python literal; a list holds the entries, anything else is the only one."""

    form: Literal["literal"] = "literal"

    def entries(self, completion: Any) -> list[Any]:
        """The entries; nothing is ever run."""
        held = ast.literal_eval(completion)
        return held if isinstance(held, list) else [held]

    def say(self, entries: Sequence[Any]) -> str:
        """The literal."""
        single = len(entries) == 1 and not isinstance(entries[0], list)
        return repr(entries[0] if single else list(entries))


class Scores(Form):
    """lmsys_parser: the first line holds two scores, with a space or a comma between."""

    form: Literal["scores"] = "scores"

    def entries(self, completion: Any) -> list[Any]:
        """One entry: who has the higher score, 0 when nobody has, None where they are not two."""
        parts = completion.split("\n")[0].replace(",", " ").split(" ")
        try:
            first, second = (float(part) for part in parts)
        except ValueError:
            return [None]
        return [1 if first > second else 2 if first < second else 0]

    def say(self, entries: Sequence[Any]) -> str:
        """Two scores."""
        return {1: "9 4", 2: "4 9", 0: "7 7", 1.5: "7 7"}[only(entries, (1, 2, 0, 1.5))]


class Lookup(Form):
    """replace_parser: the entry that a table has for the completion."""

    form: Literal["lookup"] = "lookup"
    table: Mapped = Field(description="Completion and entry")
    default: Any = Field(default="auto", description="Entry of all others; auto: the completion")

    @field_validator("table", mode="before")
    @classmethod
    def takes_a_mapping(cls, given: Any) -> Any:
        """A mapping is its pairs."""
        return pairs(given)

    def entries(self, completion: Any) -> list[Any]:
        """One entry."""
        default = completion if self.default == "auto" else self.default
        return [dict(self.table).get(completion, default)]

    def say(self, entries: Sequence[Any]) -> Any:
        """The completion that has this entry."""
        entry = only(entries)
        turned = tuple((held, completion) for completion, held in self.table)
        if self.default == "auto" and not any(alike(held, entry) for held, _ in turned):
            return entry
        return found(turned, entry)


class Weighted(Form):
    """logprob_parser: the share of the first's token in the probability of all the verdicts'.

    With p the probability of a token among the likeliest at a place, the entry is
    2 - p(first) / sum of p(verdicts); a token that is missing has p = 0. Binarised it is 1 when the
    first's is above every other and else 2.
    """

    form: Literal["weighted"] = "weighted"
    first: str = Field(description="Token that says the first shown is better")
    verdicts: tuple[str, ...] = Field(min_length=1, description="All tokens that are verdicts")
    binarise: bool = Field(default=False, description="Take the likelier one instead of the share")
    place: Literal["batch"] | int = Field(
        default="batch", description="Which token answers; batch: token i answers example i"
    )

    def entries(self, completion: Any) -> list[Any]:
        """One entry a place; takes the `Said` itself, not its text."""
        places = completion.logprobs
        if not places:
            raise ValueError("no log-probabilities came back")
        chosen = places if self.place == "batch" else [places[self.place]]
        return [self._entry(likeliest) for likeliest in chosen]

    def say(self, entries: Sequence[Any]) -> Said:
        """Tokens whose log-probabilities have these entries."""
        if self.place == "batch":
            return self._said([self._likeliest(entry) for entry in entries])
        likeliest = self._likeliest(only(entries))
        filler: list[dict[str, float]] = [{"\n": 0.0}]
        if self.place < 0:
            return self._said([likeliest, *filler * (-self.place - 1)])
        return self._said([*filler * self.place, likeliest])

    def reads(self, said: Said) -> Said:
        """All of the answer, as its log-probabilities stand beside the text."""
        return said

    def _entry(self, likeliest: dict[str, float]) -> float | None:
        tokens = {*self.verdicts, self.first}
        top = max((each for token, each in likeliest.items() if token in tokens), default=None)
        if top is None:
            return None
        held = {token: math.exp(each - top) for token, each in likeliest.items() if token in tokens}
        first, whole = held.get(self.first, 0.0), sum(held.get(each, 0.0) for each in self.verdicts)
        if self.binarise:
            others = (held.get(each, 0.0) for each in self.verdicts if each != self.first)
            return 1 if all(first > each for each in others) else 2
        return 2 - first / whole if whole else None

    def _likeliest(self, entry: Any) -> dict[str, float]:
        other = next((each for each in self.verdicts if each != self.first), None)
        if other is None or mark(entry) is None or (self.binarise and entry not in (1, 2)):
            raise BadInput(f"this form of answer cannot say {entry}")
        share = 2 - float(entry)
        # Where the first's token is no part of the sum, its share is of the other's alone.
        parts = (share, 1 - share) if self.first in self.verdicts else (share / 2, 0.5)
        held = dict(zip((self.first, other), parts, strict=True))
        return {token: math.log(each) for token, each in held.items() if each > 0}

    def _said(self, places: list[dict[str, float]]) -> Said:
        text = "".join(max(place, key=place.__getitem__) for place in places)
        return Said(text, tuple(places))


Step = Annotated[
    Scan | Ranking | Keyed | Evaluated | Scores | Lookup | Weighted, Field(discriminator="form")
]


class Pipeline(Form):
    """pipeline_meta_parser: each entry of one form is the completion that the next one reads."""

    form: Literal["pipeline"] = "pipeline"
    steps: tuple[Step, ...] = Field(min_length=1, description="Forms, in order")
    squeeze: bool = Field(default=True, description="A single entry stands for its list")

    @model_validator(mode="after")
    def begins_with_the_answer(self) -> "Pipeline":
        """Refuse log-probabilities further on: entries have none."""
        if any(step.form == "weighted" for step in self.steps[1:]):
            raise ValueError("a weighted form reads the answer itself; put it first")
        return self

    def reads(self, said: Said) -> Any:
        """What its first form reads."""
        return self.steps[0].reads(said)

    def entries(self, completion: Any) -> list[Any]:
        """What the last form makes of what the first read."""
        return [self._through(each, self.steps[1:]) for each in self.steps[0].entries(completion)]

    def say(self, entries: Sequence[Any]) -> Any:
        """What the first form says to have the last one read these entries."""
        for step in reversed(self.steps[1:]):
            entries = [step.say([entry]) for entry in entries]
        return self.steps[0].say(entries)

    def _through(self, entry: Any, steps: Sequence[Any]) -> Any:
        if not steps:
            return entry
        held = [self._through(each, steps[1:]) for each in steps[0].entries(filled(entry))]
        return held[0] if self.squeeze and len(held) == 1 else held


Reader = Annotated[
    Choice | Json | Scan | Ranking | Keyed | Evaluated | Scores | Weighted | Lookup | Pipeline,
    Field(discriminator="form"),
]
