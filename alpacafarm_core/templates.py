"""Templates of annotator prompts: text with placeholders to the messages of one request.

A template names `{instruction}`, `{output_1}` and `{output_2}` once for each example it judges and
may name `{input}` as often. It is cut up once and filled in a single pass, so a placeholder or a
turn mark that stands inside a row stays what it is: text of the row.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from alpacafarm_core.llm import Message

_PLACE = re.compile(r"\{(instruction|input|output_1|output_2)\}")
PLACES = re.compile(r"\{(instruction|outputs|output|number|knowledge|principle|critique)\}")
_TURN = re.compile(r"<\|im_start\|>(\w+)[ \t]*\n(.*?)<\|im_end\|>", re.DOTALL)


class Example(NamedTuple):
    """One pair as it is shown: `output_1` is the one shown first."""

    instruction: str
    input: str
    output_1: str
    output_2: str


class Turn(NamedTuple):
    """Text pieces of one message with a slot (example, field) after each but the last."""

    role: str
    pieces: tuple[str, ...]
    slots: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A template cut up for filling with as many examples as it shows."""

    turns: tuple[Turn, ...]

    def fill(self, examples: Sequence[Example]) -> tuple[Message, ...]:
        """The messages that show these examples."""
        return tuple(_fill(turn, examples) for turn in self.turns)


def compiled(text: str, api: str = "chat") -> Template:
    """Cut up a template; ChatML marks make turns, any other text is a single one.

    `api` "completions" makes the single turn a plain prompt (role `text`).
    """
    seen: Counter[str] = Counter()
    return Template(tuple(_turn(role, body, seen) for role, body in _turns(text, api)))


class Named(NamedTuple):
    """A template whose places are filled by name; pieces of a turn and names in between."""

    turns: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, text: str, api: str = "chat") -> "Named":
        """Cut up a template, turns as in `compiled`."""
        turns = [(role, tuple(PLACES.split(body))) for role, body in _turns(text, api)]
        return cls(tuple(turns))

    def fill(self, texts: Mapping[str, str]) -> tuple[Message, ...]:
        """The messages with a text at each place."""
        return tuple(Message(role, named(pieces, texts)) for role, pieces in self.turns)


def named(pieces: Sequence[str], texts: Mapping[str, str]) -> str:
    """Pieces of text, every other of which names what stands there."""
    return "".join(texts[each] if at % 2 else each for at, each in enumerate(pieces))


def named_places(text: str) -> list[str]:
    """The named places of a template, in order."""
    return PLACES.findall(text)


def places(text: str) -> list[str]:
    """The placeholders of a template, in order."""
    return _PLACE.findall(text)


def lost(text: str) -> str:
    """What a template for chat says outside its turns and nobody would be shown; "" when nothing.

    A text without turn marks is a single turn and loses nothing.
    """
    return _TURN.sub("", text).strip() if "<|im_start|>" in text else ""


def shortened(text: str, size: int) -> str:
    """The same template for its first `size` examples: the blocks of the others are cut out.

    So a batch that is not full, or a row asked for alone, buys no tokens for padding.
    """
    ends = [match.end() for match in _PLACE.finditer(text)]
    each = len(ends) // places(text).count("output_1")
    return text[: ends[each * size - 1]] + text[ends[-1] :]


def _turns(text: str, api: str) -> list[tuple[str, str]]:
    """Role and text of each turn."""
    marked = _TURN.findall(text) if api == "chat" else []
    turns = marked or [("user" if api == "chat" else "text", text)]
    return [(role, body.strip()) for role, body in turns]


def _turn(role: str, body: str, seen: Counter[str]) -> Turn:
    pieces = _PLACE.split(body)
    slots = []
    for name in pieces[1::2]:
        slots.append((seen[name], Example._fields.index(name)))
        seen[name] += 1
    return Turn(role, tuple(pieces[::2]), tuple(slots))


def _fill(turn: Turn, rows: Sequence[Example]) -> Message:
    text = [turn.pieces[0]]
    for (example, field), piece in zip(turn.slots, turn.pieces[1:], strict=True):
        text += rows[example][field], piece
    return Message(turn.role, "".join(text))
