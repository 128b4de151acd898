"""Ids to tensors: prompts and responses padded on the right, in an order fixed by a seed.

Padding is on the right and attention is causal, so the padding id means nothing. A pair may share
a row and so its prompt, and several examples may be packed into a row; a mask keeps them apart. B
is rows, L tokens of a row, N responses, R tokens of a response.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Training
from alpacafarm_core.train.corpus import Corpus
from alpacafarm_core.train.tokens import (
    Example,
    Pair,
    Tokens,
    demonstrations,
    encode,
    labelled,
    pairs,
    prompt_ids,
    prompt_texts,
    responses_of,
    tokenizer_digest,
)

__all__ = [
    "Example",
    "Padded",
    "Pair",
    "Plan",
    "Room",
    "Tokens",
    "alike",
    "batch_of",
    "demonstrations",
    "encode",
    "first_fit",
    "labelled",
    "packed",
    "padded",
    "paired",
    "pairs",
    "plan",
    "prompt_ids",
    "prompt_texts",
    "responses_of",
    "tokenizer_digest",
]

FEW = 4  # templates at most; more openings are no templates
KINDS = (torch.long, torch.int16, torch.int8)  # of positions, blocks and responses in one
WORTH = 0.8  # rows left by packing; a mask costs attention its quickest kernels


class Padded(NamedTuple):
    """A batch of prompts with responses.

    `ids` [B, L]; `rows` [N] is the row that a response stands in and `last` [N] where it ends.
    `where` [N, R] is the position that predicts each response token, `targets` [N, R] that token,
    and `mask` [N, R] true where there is one. Where two responses share a row, `positions` [B, L]
    and `attention` [B, 1, L, L] (added to the scores) keep them apart.
    """

    ids: Tensor
    rows: Tensor
    last: Tensor
    where: Tensor
    targets: Tensor
    mask: Tensor
    positions: Tensor | None = None
    attention: Tensor | None = None

    def to(self, device: torch.device) -> "Padded":
        """The same on another device."""
        return Padded(*(None if one is None else one.to(device) for one in self))  # type: ignore[arg-type]


class Block(NamedTuple):
    """A prompt and the responses that follow it, each as if it were the only one.

    `which` are the responses' numbers in the batch.
    """

    prompt: list[int]
    responses: list[list[int]]
    which: list[int]

    @property
    def ids(self) -> list[int]:
        """All of it end to end."""
        return self.prompt + list(chain.from_iterable(self.responses))


def batch_of(examples: Sequence[Example], sharing: bool, packing: bool = False) -> Padded:
    """One batch of these examples; of pairs, all chosen responses before all rejected ones.

    With `sharing` a pair is one row, if both sides of every pair have the same prompt and rows do
    not become so long that attention costs more than the prompts save. With `packing` too,
    examples share rows wherever rows become fewer and none longer.
    """
    couples = [each for each in examples if isinstance(each, Pair)]
    together = sharing and bool(couples) and _is_worth_sharing(couples)
    if sharing and packing:
        blocks = _of_pairs(couples) if together else _apart(examples)
        rows = first_fit([len(block.ids) for block in blocks])
        if len(rows) <= WORTH * len(blocks):
            return packed([[blocks[at] for at in row] for row in rows])
    return paired(couples) if together else padded(responses_of(examples))


def padded(rows: Sequence[Tokens]) -> Padded:
    """A response a row, padded to the longest row and the longest response."""
    ids = pad_sequence([_long(row.prompt + row.response) for row in rows], batch_first=True)
    starts = torch.tensor([len(row.prompt) for row in rows])
    responses = [row.response for row in rows]
    return Padded(ids, torch.arange(len(rows)), *_placed(responses, starts, starts - 1))


def paired(pairs: Sequence[Pair]) -> Padded:
    """A pair a row: the prompt, the chosen response, the rejected one.

    The rejected response takes its positions and its attention as if it followed the prompt.
    """
    return packed([[block] for block in _of_pairs(pairs)])


def packed(rows: Sequence[Sequence[Block]]) -> Padded:
    """Blocks end to end in each row; no response sees another one, or another block's prompt."""
    ids = pad_sequence([_long(list(chain.from_iterable(b.ids for b in row))) for row in rows], True)
    positions, block, part = (
        pad_sequence([torch.tensor(held, dtype=kind) for held in each], True, -1)
        for each, kind in zip(zip(*map(_told, rows), strict=True), KINDS, strict=True)
    )
    at = torch.arange(ids.shape[1])
    unseen = (at > at[:, None]) | ((part > 0)[:, None] & (part[:, :, None] != part[:, None]))
    if max(map(len, rows)) > 1:
        unseen |= block[:, :, None] != block[:, None]
    attention = torch.where(unseen, torch.finfo(torch.float32).min, 0.0)
    responses, row_of, starts, before = _listed(rows)
    placed = _placed(responses, starts, before)
    return Padded(ids, row_of, *placed, positions.clamp(min=0), attention[:, None])


def first_fit(lengths: Sequence[int]) -> list[list[int]]:
    """Which of these go into one row, so that no row is longer than the longest of them.

    Longest first, each into the first row that has room.
    """
    rows: list[list[int]] = []
    left: list[int] = []
    for at in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        row = next((n for n, room in enumerate(left) if room >= lengths[at]), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(max(lengths))
        rows[row].append(at)
        left[row] -= lengths[at]
    return rows


def _is_worth_sharing(couples: Sequence[Pair]) -> bool:
    if any(one.prompt != two.prompt for one, two in couples):
        return False
    together = max(pair.chosen.length + len(pair.rejected.response) for pair in couples)
    return together <= 1.5 * max(pair.length for pair in couples)


def _of_pairs(pairs: Sequence[Pair]) -> list[Block]:
    """A block a pair."""
    return [
        Block(one.prompt, [one.response, two.response], [at, len(pairs) + at])
        for at, (one, two) in enumerate(pairs)
    ]


def _apart(examples: Sequence[Example]) -> list[Block]:
    """A block a response."""
    return [
        Block(each.prompt, [each.response], [at]) for at, each in enumerate(responses_of(examples))
    ]


def _told(row: Sequence[Block]) -> tuple[list[int], list[int], list[int]]:
    """Of each token of a row: its position, its block, and its response there (0: the prompt)."""
    positions: list[int] = []
    block: list[int] = []
    part: list[int] = []
    for number, (prompt, responses, _) in enumerate(row):
        positions += range(len(prompt))
        part += [0] * len(prompt)
        for which, response in enumerate(responses, 1):
            positions += range(len(prompt), len(prompt) + len(response))
            part += [which] * len(response)
        block += [number] * (len(part) - len(block))
    return positions, block, part


def _listed(rows: Sequence[Sequence[Block]]) -> tuple[list[list[int]], Tensor, Tensor, Tensor]:
    """Responses in the batch's order: ids, row, first place and the place before, each [N]."""
    held: dict[int, tuple[list[int], int, int, int]] = {}
    for number, row in enumerate(rows):
        end = 0
        for prompt, responses, which in row:
            end += len(prompt)
            before = end - 1
            for response, name in zip(responses, which, strict=True):
                held[name] = (response, number, end, before)
                end += len(response)
    ordered = [held[name] for name in range(len(held))]
    row_of, first, ahead = torch.tensor([each[1:] for each in ordered]).unbind(1)
    return [each[0] for each in ordered], row_of, first, ahead


def _placed(
    responses: Sequence[list[int]], starts: Tensor, before: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`last`, `where`, `targets` and `mask` of responses that start at `starts` [N].

    `before` [N] is the position that predicts each first token.
    """
    targets = pad_sequence([_long(each) for each in responses], batch_first=True)
    lengths = torch.tensor([len(each) for each in responses])
    steps = torch.arange(targets.shape[1])
    mask = steps < lengths[:, None]
    where = torch.where(steps == 0, before[:, None], starts[:, None] - 1 + steps) * mask
    return starts + lengths - 1, where, targets, mask


def _long(ids: list[int]) -> Tensor:
    return torch.tensor(ids, dtype=torch.long)


class Room(NamedTuple):
    """What fits into one micro-batch: examples, and tokens with padding (0: any number).

    A pair counts both sides. One example always fits.
    """

    rows: int
    tokens: int = 0

    @classmethod
    def of(cls, machine: Machine) -> "Room":
        """As the machine says."""
        return cls(machine.micro_batch, machine.micro_tokens)

    def fits(self, length: int, sides: int) -> int:
        """How many examples fit of which the longest has so many tokens a side."""
        most = self.tokens // (sides * length) if self.tokens else self.rows
        return max(1, min(self.rows, most))


class Plan(Sequence[list[list[int]]]):
    """Row indices of every optimiser step, cut into micro-batches of rows that are alike.

    A step is worked out when it is asked for; only one epoch's order is held.
    """

    def __init__(self, examples: Sequence[Example], training: Training, room: Room) -> None:
        """Nothing is drawn yet."""
        self.examples, self.training, self.room = examples, training, room
        self.steps_of_epoch = -(-len(examples) // training.batch)
        self._epoch, self._order = -1, torch.empty(0)
        self._shuffle = torch.Generator()

    def __len__(self) -> int:
        """Steps of all epochs."""
        return self.training.epochs * self.steps_of_epoch

    @overload
    def __getitem__(self, step: int) -> list[list[int]]: ...

    @overload
    def __getitem__(self, step: slice) -> list[list[list[int]]]: ...

    def __getitem__(self, step: int | slice) -> list[list[int]] | list[list[list[int]]]:
        """The micro-batches of a step."""
        if isinstance(step, slice):
            return [self[each] for each in range(*step.indices(len(self)))]
        epoch, at = divmod(range(len(self))[step], self.steps_of_epoch)
        start = at * self.training.batch
        rows: list[int] = self._drawn(epoch)[start : start + self.training.batch].tolist()
        return alike(self.examples, rows, self.room)

    def _drawn(self, epoch: int) -> Tensor:
        """The epoch's order; each is drawn after the one before."""
        if epoch < self._epoch or self._epoch < 0:
            self._shuffle.manual_seed(self.training.seed)
            self._epoch = -1
        while self._epoch < epoch:
            self._order = torch.randperm(len(self.examples), generator=self._shuffle)
            self._epoch += 1
        return self._order


def plan(examples: Sequence[Example], training: Training, micro: Room | int) -> Plan:
    """Row indices of every optimiser step, cut into micro-batches of rows that are alike.

    Each epoch is a new shuffle; the last step of an epoch may be smaller. What fits into a
    micro-batch changes neither the order of the steps nor what is in them.
    """
    return Plan(examples, training, _room(micro))


def alike(examples: Sequence[Example], rows: Iterable[int], micro: Room | int) -> list[list[int]]:
    """Row indices in micro-batches that have room for them: sorted by length, longest first.

    Where the prompts come from a few templates, each micro-batch is of one template, so that what
    its rows begin with can be computed once.
    """
    lengths, openings, sides = _outline(examples)
    order = sorted(rows, key=lambda row: -lengths(row))
    templates: dict[Hashable, list[int]] = {}
    for row in order:
        templates.setdefault(openings(row), []).append(row)
    groups = list(templates.values()) if len(templates) <= FEW else [order]
    room = _room(micro)
    return [part for group in groups for part in _cut(group, lengths, room, sides)]


def _cut(
    group: list[int], lengths: Callable[[int], int], room: Room, sides: int
) -> Iterator[list[int]]:
    start = 0
    while start < len(group):
        end = start + room.fits(lengths(group[start]), sides)
        yield group[start:end]
        start = end


def _outline(
    examples: Sequence[Example],
) -> tuple[Callable[[int], int], Callable[[int], Hashable], int]:
    """Length and opening of a row, and sides of each; a corpus knows them without reading it."""
    if isinstance(examples, Corpus):
        return examples.lengths.__getitem__, examples.openings.__getitem__, examples.sides
    sides = 2 if examples and isinstance(examples[0], Pair) else 1
    return (lambda row: examples[row].length), (lambda row: examples[row].opening), sides


def _room(micro: Room | int) -> Room:
    return micro if isinstance(micro, Room) else Room(micro)
