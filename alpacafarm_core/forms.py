"""What forms of an answer share: entries, and the mark that an entry is.

A form reads a completion as a list of entries, and an entry becomes a mark: 1 when the first shown
is better, 2 when the second is, anything between is graded, 0 is a tie, all else is unreadable. A
completion that breaks its form has no entries at all. What a pipeline hands on from one form to the
next are entries, so they may be any value of JSON.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from alpacafarm_core.answers import Said
from alpacafarm_core.errors import BadInput
from alpacafarm_core.values import Value

Scalar = bool | int | float | str | None
Mapped = tuple[tuple[Scalar, Any], ...]

BROKEN = (ValueError, TypeError, KeyError, IndexError, SyntaxError, RecursionError, MemoryError)


class Form(Value):
    """A form of answer; its verdicts stand in the text, unless it says otherwise."""

    @abstractmethod
    def entries(self, completion: Any) -> list[Any]:
        """What a completion says, one entry an example; raises one of BROKEN if it breaks it."""

    @abstractmethod
    def say(self, entries: Sequence[Any]) -> Any:
        """A completion with these entries; BadInput where the form cannot say them."""

    def marks(self, said: Said) -> list[float | None]:
        """Every verdict found, in order; None where an entry is no verdict."""
        try:
            return [mark(entry) for entry in self.entries(filled(self.reads(said)))]
        except BROKEN:
            return []

    def written(self, marks: Sequence[float]) -> Said:
        """What a judge that means these marks would say; BadInput where the form cannot."""
        completion = self.say(marks)
        if isinstance(completion, Said):
            return completion
        return Said(completion if isinstance(completion, str) else repr(completion))

    def reads(self, said: Said) -> Any:
        """The part of an answer that it reads: the text."""
        return said.text


def mark(entry: Any) -> float | None:
    """The verdict that an entry is; None for all that is none, such as true, false and NaN."""
    if isinstance(entry, bool) or not isinstance(entry, int | float):
        return None
    if entry == 0:
        return 1.5
    return float(entry) if 1 <= entry <= 2 else None


def filled(completion: Any) -> Any:
    """The completion; an empty one breaks every form."""
    if completion == "":
        raise ValueError("the completion is empty")
    return completion


def pairs(given: Any) -> Any:
    """The pairs of a mapping, as a file gives it; anything else as it is."""
    return tuple(given.items()) if isinstance(given, dict) else given


def alike(one: Any, other: Any) -> bool:
    """Whether two entries are the same, or the same mark."""
    return bool(one == other) or (mark(one) is not None and mark(one) == mark(other))


def found(known: Mapped, entry: Any) -> Any:
    """What a table has for an entry; BadInput where it has nothing."""
    for key, value in known:
        if alike(key, entry):
            return value
    raise BadInput(f"this form of answer cannot say {entry!r}")


def only(entries: Sequence[Any], sayable: Sequence[float] = ()) -> Any:
    """The single entry, whole numbers as such; BadInput where it is not one of the sayable."""
    if len(entries) != 1 or (sayable and entries[0] not in sayable):
        raise BadInput(f"this form of answer cannot say {list(entries)}")
    return int(entries[0]) if entries[0] in (0, 1, 2) else entries[0]
