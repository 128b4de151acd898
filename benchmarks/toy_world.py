"""Toy worlds: policies that are tables, answers of a few tokens, and the true reward of each.

In one world a policy is a table of logits [group, position, token]: four kinds of prompts, up to
six tokens, eight of them, of which 0 ends the answer. Each kind of prompt has a good and a bad
token; the gold reward of an answer is (good - bad) / tokens, the end not counted, in [-1, 1].
Worlds are independent and lie side by side: S worlds are one tensor [S, group, position, token].
A policy that knows reward tokens has as many groups again behind each of them.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import polars as pl
import torch
from torch import Tensor

GROUPS, LONGEST, TOKENS, END = 4, 6, 8, 0
GOOD = torch.arange(GROUPS) + 1
BAD = (torch.arange(GROUPS) + 4) % (TOKENS - 1) + 1
SPREAD, LEANING = 0.5, 0.5  # of the first logits, and of the start towards the good token


class Answers(NamedTuple):
    """N answers: their worlds and groups [N], token ids [N, R] and 1 on real tokens [N, R].

    The end token is a real one where it was drawn.
    """

    worlds: Tensor
    groups: Tensor
    ids: Tensor
    mask: Tensor

    @classmethod
    def of(cls, frame: pl.DataFrame, column: str) -> Self:
        """The answers in a column of texts, which are the numbers of tokens."""
        each = frame[column].str.split(" ").cast(pl.List(pl.Int64))
        lengths = each.list.len().cast(pl.Int64).to_torch()
        padding = pl.lit([END] * LONGEST, dtype=pl.List(pl.Int64))
        padded = pl.select(pl.lit(each).list.concat(padding).list.head(LONGEST)).to_series()
        ids = padded.list.to_array(LONGEST).to_torch()
        mask = torch.arange(LONGEST) < lengths[:, None]
        groups = groups_of(frame)
        if "tag" in frame.columns:
            groups = groups + GROUPS * (1 + frame["tag"].to_torch())
        return cls(worlds_of(frame), groups, ids, mask.float())

    def take(self, at: Tensor) -> Self:
        """Those at some places."""
        return type(self)(*(field[at] for field in self))

    def answered_by(self, others: "Answers") -> Self:
        """The same prompts with others' answers."""
        return self._replace(ids=others.ids, mask=others.mask)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each, the end included, [N]."""
        return self.mask.sum(1)

    @property
    def shares(self) -> Tensor:
        """How much of each answer is each token, the end not counted, [N, token]."""
        counts = torch.zeros(len(self.ids), TOKENS).scatter_add(1, self.ids, self.mask)
        counts[:, END] = 0
        return counts / counts.sum(1, keepdim=True).clamp(min=1)


def worlds_of(frame: pl.DataFrame) -> Tensor:
    """The world of each row, [N]; it is the row's `dataset`."""
    return frame["dataset"].cast(pl.Int64).to_torch()


def groups_of(frame: pl.DataFrame) -> Tensor:
    """The group of each row's prompt, [N]."""
    return frame["instruction"].str.split(" ").list.last().cast(pl.Int64).to_torch() % GROUPS


def first_tables(worlds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The raw base of each world, and the start, which leans to the good token; both [S, ...]."""
    shape = (GROUPS, LONGEST, TOKENS)
    draws = (torch.Generator().manual_seed(world) for world in worlds)
    base = SPREAD * torch.stack([torch.randn(shape, generator=draw) for draw in draws])
    start = base.clone()
    start[:, torch.arange(GROUPS), :, GOOD] += LEANING
    return base, start


def behind(table: Tensor, tag: int | None) -> Tensor:
    """The part of a table that answers behind a reward token, or behind none."""
    first = 0 if tag is None else GROUPS * (1 + tag)
    return table[:, first : first + GROUPS]


def grown(table: Tensor, answers: Answers) -> Tensor:
    """The table with room for every reward token of the answers; a new one changes nothing yet."""
    missing = int(answers.groups.max()) // GROUPS + 1 - table.shape[1] // GROUPS
    return torch.cat([table, *[table[:, :GROUPS]] * missing], dim=1)


def true_weights(worlds: int) -> Tensor:
    """What a token's share of the answer is worth in truth, [S, group, token]."""
    weights = torch.zeros(worlds, GROUPS, TOKENS)
    weights[:, torch.arange(GROUPS), GOOD] = 1.0
    weights[:, torch.arange(GROUPS), BAD] = -1.0
    return weights


def worth(weights: Tensor, answers: Answers) -> Tensor:
    """The answers' numbers by weights [S, group, token], [N]."""
    return (weights[answers.worlds, answers.groups % GROUPS] * answers.shares).sum(1)


def gold(answers: Answers) -> Tensor:
    """True reward of each answer, [N]."""
    return worth(true_weights(int(answers.worlds.max()) + 1), answers)


def expected_gold(table: Tensor) -> Tensor:
    """True reward that a policy expects in each world, exactly, [S].

    Positions are independent, so an answer of n tokens is worth the mean, over its places, of the
    probability of the good token less that of the bad one among those that do not end it.
    """
    chances = table.softmax(-1)
    ends = chances[..., END]
    every = torch.arange(GROUPS)
    net = chances[:, every, :, GOOD] - chances[:, every, :, BAD]  # [group, S, position]
    net = net.transpose(0, 1) / (1 - ends)
    alive = (1 - ends).cumprod(-1)  # [S, group, position]: still going after this place
    stops = torch.cat([ends[..., 1:], torch.ones_like(ends[..., :1])], -1)
    means = net.cumsum(-1) / torch.arange(1, LONGEST + 1)
    return (alive * stops * means).sum(-1).mean(-1)


def token_logprobs(table: Tensor, answers: Answers) -> Tensor:
    """Log-probability of each token, [N, R], zero on padding."""
    worlds, groups = answers.worlds[:, None], answers.groups[:, None]
    rows = (worlds * table.shape[1] + groups) * LONGEST + torch.arange(LONGEST)
    flat = table.log_softmax(-1).flatten()
    found = flat.index_select(0, (rows * TOKENS + answers.ids).flatten())
    return found.view(answers.ids.shape) * answers.mask


def sums(table: Tensor, answers: Answers) -> Tensor:
    """Log-probability of each answer, [N]."""
    return token_logprobs(table, answers).sum(1)


def drawn(logits: Tensor, top_p: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """One answer for each row of logits [N, position, token]: ids and mask, each [N, R]."""
    chances = logits.softmax(-1)
    if top_p < 1:
        ordered, places = chances.sort(dim=-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= top_p] = 0
        chances = torch.zeros_like(chances).scatter(-1, places, ordered)
    ids = torch.multinomial(chances.flatten(0, 1), 1, generator=draw).view(logits.shape[:2])
    ended = (ids == END).cumsum(1)
    mask = (ended - (ids == END).long()) == 0
    return ids * mask, mask.float()
