"""A corpus: many examples as ids in a file without a name, a few bytes of memory each.

As Python lists a million pairs take ten gigabytes. Here ids lie in a temporary file that goes when
nobody holds it, also when the process is killed; lengths and places stay in memory, 36 bytes an
example, and an example is read when it is asked for. Reading, unlike a memory map, leaves nothing
of the file in the process.
"""

import os
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar, cast, overload

import torch
from torch import Tensor

from alpacafarm_core.train.tokens import Example, Pair, Tokens

SAME = -1  # in place of a pair's second prompt, where it is the first one again
ALONE = -2  # in place of a second prompt, where there is no pair
Parts = tuple[int, int, int, int]
E = TypeVar("E", bound=Example)


class Corpus(Sequence[E], Generic[E]):
    """Examples in the order in which they came, all Tokens or all Pairs.

    `lengths` are theirs in tokens, and `openings` equal numbers where prompts begin alike.
    """

    def __init__(self, ids: "_Numbers") -> None:
        """No examples yet; `of` makes a corpus that has some."""
        self.lengths, self.openings = array("i"), array("q")
        self._ids, self._starts, self._parts = ids, array("q"), array("i")

    @classmethod
    def of(cls, examples: Iterable[E]) -> "Corpus[E]":
        """These examples, taken one at a time."""
        made: Corpus[E] = cls(_Numbers("i"))
        for example in examples:
            ids, parts = _laid(example)
            made._note(made._ids.add(ids), parts, example.length, hash(example.opening))
        return made

    def take(self, rows: Iterable[int]) -> "Corpus[E]":
        """Some of the examples, in this order; their ids are not copied."""
        made: Corpus[E] = Corpus(self._ids)
        for row in rows:
            made._note(
                self._starts[row], self._parts_of(row), self.lengths[row], self.openings[row]
            )
        return made

    @property
    def sides(self) -> int:
        """Responses of an example: 1, or 2 where they are pairs."""
        return 1 if self._parts[2:3] == array("i", [ALONE]) else 2

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.lengths)

    @overload
    def __getitem__(self, row: int) -> E: ...

    @overload
    def __getitem__(self, row: slice) -> list[E]: ...

    def __getitem__(self, row: int | slice) -> E | list[E]:
        """One example, or a list of some, read from the file."""
        if isinstance(row, slice):
            return [self._read(each) for each in range(*row.indices(len(self)))]
        return self._read(range(len(self))[row])

    def _read(self, row: int) -> E:
        parts = self._parts_of(row)
        prompt, response, other, second = parts
        count = prompt + response + max(other, 0) + second
        return cast("E", _taken(self._ids.read(self._starts[row], count), parts))

    def _parts_of(self, row: int) -> Parts:
        prompt, response, other, second = self._parts[4 * row : 4 * row + 4]
        return prompt, response, other, second

    def _note(self, start: int, parts: Parts, length: int, opening: int) -> None:
        self._starts.append(start)
        self._parts.extend(parts)
        self.lengths.append(length)
        self.openings.append(opening)


class Known:
    """Something known of each token of each response, as float32, in a file as well."""

    def __init__(self, examples: int, sides: int) -> None:
        """Nothing yet of so many examples with so many responses each."""
        self.sides, self._figures = sides, _Numbers("f")
        self._starts = array("q", bytes(8 * examples * sides))
        self._lengths = array("i", bytes(4 * examples * sides))

    def note(self, example: int, side: int, figures: Tensor) -> None:
        """What is known of one response, [R]."""
        at = example * self.sides + side
        held = array("f", figures.float().cpu().numpy().tobytes())
        self._starts[at], self._lengths[at] = self._figures.add(held), len(held)

    def of(self, example: int, side: int) -> Tensor:
        """The same again."""
        at = example * self.sides + side
        return torch.tensor(self._figures.read(self._starts[at], self._lengths[at]))


class _Numbers:
    """Numbers of four bytes in a file without a name, which goes with this object."""

    def __init__(self, kind: str) -> None:
        self.file, self.count = tempfile.TemporaryFile(), 0  # noqa: SIM115 (closed by __del__)
        self.kind = kind

    def __del__(self) -> None:
        self.file.close()

    def add(self, numbers: "array[Any]") -> int:
        """Write them at the end; where that was."""
        start = self.count
        self.file.write(numbers.tobytes())
        self.count += len(numbers)
        return start

    def read(self, start: int, count: int) -> list[Any]:
        """So many from there."""
        self.file.flush()
        numbers = array(self.kind)
        numbers.frombytes(os.pread(self.file.fileno(), 4 * count, 4 * start))
        return numbers.tolist()


def _laid(example: Example) -> tuple["array[int]", Parts]:
    """Ids of an example end to end, and how many each part has."""
    if isinstance(example, Tokens):
        prompt, response = example
        return array("i", prompt + response), (len(prompt), len(response), ALONE, 0)
    (prompt, one), (other, two) = example
    if other == prompt:
        return array("i", prompt + one + two), (len(prompt), len(one), SAME, len(two))
    return array("i", prompt + one + other + two), (len(prompt), len(one), len(other), len(two))


def _taken(ids: list[int], parts: Parts) -> Example:
    prompt, response, other, _ = parts
    first = Tokens(ids[:prompt], ids[prompt : prompt + response])
    if other == ALONE:
        return first
    rest = ids[prompt + response :]
    if other == SAME:
        return Pair(first, Tokens(first.prompt, rest))
    return Pair(first, Tokens(rest[:other], rest[other:]))
