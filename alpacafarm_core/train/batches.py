"""Rows to tensors: prompts and responses as ids, padded on the right, in an order fixed by a seed.

Sampled ids are used as they are, never by way of text. Padding is on the right and attention is
causal, so the padding id means nothing. A pair may share a row and so its prompt. B is rows, L
tokens of a row, N responses, R tokens of a response.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alpacafarm_core.prompts import render
from alpacafarm_core.settings import Training

OPENING = 8
FEW = 4  # templates at most; more openings are no templates


class Tokens(NamedTuple):
    """One prompt and one response to it, as ids."""

    prompt: list[int]
    response: list[int]

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt) + len(self.response)

    @property
    def opening(self) -> tuple[int, ...]:
        """The first tokens of the prompt, by which templates are told apart."""
        return tuple(self.prompt[:OPENING])


class Pair(NamedTuple):
    """The preferred and the other response to one prompt."""

    chosen: Tokens
    rejected: Tokens

    @property
    def length(self) -> int:
        """Tokens of the longer one."""
        return max(self.chosen.length, self.rejected.length)

    @property
    def opening(self) -> tuple[int, ...]:
        """The first tokens of the prompt."""
        return self.chosen.opening


Example = Tokens | Pair


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


def tokenizer_digest(tokenizer: Any) -> str:
    """What ids mean: a hash of the vocabulary, the merges and the special tokens."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for how_it_was_last_called in ("padding", "truncation"):
        backend.pop(how_it_was_last_called, None)
    content = json.dumps([backend, tokenizer.bos_token_id, tokenizer.eos_token_id], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def prompt_texts(rows: pl.DataFrame) -> list[str]:
    """The rendered prompt of each row."""
    return [render(*row) for row in rows.select("instruction", "input").iter_rows()]


def prompt_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each prompt, with the begin token where the tokenizer adds one."""
    return list(tokenizer(list(texts)).input_ids) if texts else []


def encode(rows: pl.DataFrame, output: str, tokenizer: Any) -> list[Tokens]:
    """Each row's prompt with the response in column `output`.

    The response is `<output>_ids` where it was sampled under this very tokenizer, else its text
    and the end token.
    """
    texts = prompt_texts(rows)
    prompts = prompt_ids(tokenizer, texts)
    ours = tokenizer_digest(tokenizer)
    is_sampled = [
        digest == ours and bool(ids)
        for digest, ids in zip(rows["tokenizer"], rows[f"{output}_ids"].to_list(), strict=True)
    ]
    written = _written(tokenizer, texts, prompts, rows[output].to_list())
    sampled = rows[f"{output}_ids"].to_list()
    return [
        Tokens(prompt, ids if known else text)
        for prompt, ids, known, text in zip(prompts, sampled, is_sampled, written, strict=True)
    ]


def demonstrations(rows: pl.DataFrame, tokenizer: Any) -> list[Tokens]:
    """Prompt and response of each row of Demonstrations."""
    return encode(rows, "output", tokenizer)


def labelled(preferences: pl.DataFrame) -> pl.DataFrame:
    """The pairs with a decision, 1 or 2; ties, graded and missing labels are left out."""
    return preferences.filter(pl.col("preference").is_in([1.0, 2.0]))


def pairs(rows: pl.DataFrame, tokenizer: Any) -> list[Pair]:
    """Chosen and rejected of each row of Preferences, all labelled 1 or 2."""
    first, second = (encode(rows, output, tokenizer) for output in ("output_1", "output_2"))
    return [
        Pair(one, two) if preference == 1 else Pair(two, one)
        for one, two, preference in zip(first, second, rows["preference"], strict=True)
    ]


def batch_of(examples: Sequence[Example], sharing: bool) -> Padded:
    """One batch of these examples; of pairs, all chosen responses before all rejected ones.

    With `sharing` a pair is one row, if both sides of every pair have the same prompt and rows do
    not become so long that attention costs more than the prompts save.
    """
    couples = [each for each in examples if isinstance(each, Pair)]
    if couples and sharing and all(one.prompt == two.prompt for one, two in couples):
        together = max(pair.chosen.length + len(pair.rejected.response) for pair in couples)
        if together <= 1.5 * max(pair.length for pair in couples):
            return paired(couples)
    return padded(responses_of(examples))


def responses_of(examples: Sequence[Example]) -> list[Tokens]:
    """Responses of these examples; of pairs, all chosen ones before all rejected ones."""
    firsts = [each.chosen if isinstance(each, Pair) else each for each in examples]
    return firsts + [each.rejected for each in examples if isinstance(each, Pair)]


def padded(rows: Sequence[Tokens]) -> Padded:
    """A response a row, padded to the longest row and the longest response."""
    ids = pad_sequence([_long(row.prompt + row.response) for row in rows], batch_first=True)
    starts = torch.tensor([len(row.prompt) for row in rows])
    return Padded(ids, torch.arange(len(rows)), *_placed(rows, starts, starts - 1))


def paired(pairs: Sequence[Pair]) -> Padded:
    """A pair a row: the prompt, the chosen response, the rejected one.

    The rejected response takes its positions and its attention as if it followed the prompt.
    """
    prompts = torch.tensor([len(pair.chosen.prompt) for pair in pairs])
    seconds = torch.tensor([pair.chosen.length for pair in pairs])
    ids = pad_sequence(
        [_long(one.prompt + one.response + two.response) for one, two in pairs], batch_first=True
    )
    at = torch.arange(ids.shape[1])
    is_second = at >= seconds[:, None]
    positions = torch.where(is_second, at - (seconds - prompts)[:, None], at)
    is_first = (at >= prompts[:, None]) & ~is_second
    unseen = (at > at[:, None]) | (is_second[:, :, None] & is_first[:, None, :])
    attention = torch.zeros(unseen.shape).masked_fill(unseen, torch.finfo(torch.float32).min)
    placed = _placed(responses_of(pairs), torch.cat([prompts, seconds]), (prompts - 1).repeat(2))
    rows = torch.arange(len(pairs)).repeat(2)
    return Padded(ids, rows, *placed, positions, attention[:, None])


def _placed(
    responses: Sequence[Tokens], starts: Tensor, before: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`last`, `where`, `targets` and `mask` of responses that start at `starts` [N].

    `before` [N] is the position that predicts each first token.
    """
    targets = pad_sequence([_long(each.response) for each in responses], batch_first=True)
    lengths = torch.tensor([len(each.response) for each in responses])
    steps = torch.arange(targets.shape[1])
    mask = steps < lengths[:, None]
    where = torch.where(steps == 0, before[:, None], starts[:, None] - 1 + steps) * mask
    return starts + lengths - 1, where, targets, mask


def _long(ids: list[int]) -> Tensor:
    return torch.tensor(ids, dtype=torch.long)


def plan(examples: Sequence[Example], training: Training, micro: int) -> Iterator[list[list[int]]]:
    """Row indices of every optimiser step, cut into micro-batches of rows that are alike.

    Each epoch is a new shuffle; the last step of an epoch may be smaller. The micro-batch size
    changes neither the order of the steps nor what is in them.
    """
    shuffle = torch.Generator().manual_seed(training.seed)
    for _ in range(training.epochs):
        order: list[int] = torch.randperm(len(examples), generator=shuffle).tolist()
        for start in range(0, len(order), training.batch):
            yield alike(examples, order[start : start + training.batch], micro)


def alike(examples: Sequence[Example], rows: Iterable[int], micro: int) -> list[list[int]]:
    """Row indices in micro-batches of at most `micro`: sorted by length, longest first.

    Where the prompts come from a few templates, each micro-batch is of one template, so that what
    its rows begin with can be computed once.
    """
    order = sorted(rows, key=lambda row: -examples[row].length)
    templates: dict[tuple[int, ...], list[int]] = {}
    for row in order:
        templates.setdefault(examples[row].opening, []).append(row)
    groups = list(templates.values()) if len(templates) <= FEW else [order]
    return [
        group[start : start + micro] for group in groups for start in range(0, len(group), micro)
    ]


def _written(
    tokenizer: Any, texts: Sequence[str], prompts: Sequence[list[int]], outputs: Sequence[str]
) -> list[list[int]]:
    """Ids of texts that follow their prompt, and the end token.

    Prompt and text are tokenised in one piece, as AlpacaFarm does; where that changes the prompt's
    own ids, the text is tokenised alone, so that the prompt is the one that is sampled from.
    """
    joint = prompt_ids(tokenizer, [text + out for text, out in zip(texts, outputs, strict=True)])
    return [
        (whole[len(prompt) :] if whole[: len(prompt)] == prompt else _alone(tokenizer, output))
        + [tokenizer.eos_token_id]
        for whole, prompt, output in zip(joint, prompts, outputs, strict=True)
    ]


def _alone(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)
