"""Rows to tensors: prompts and responses as ids, padded on the right, in an order fixed by a seed.

Sampled ids are used as they are, never by way of text. Padding is on the right and attention is
causal, so no attention mask is needed and the padding id means nothing. B is rows, L tokens of
prompt and response, R response tokens.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor

from alpacafarm_core.prompts import render
from alpacafarm_core.settings import Training


class Tokens(NamedTuple):
    """One prompt and one response to it, as ids."""

    prompt: list[int]
    response: list[int]

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt) + len(self.response)


class Pair(NamedTuple):
    """The preferred and the other response to one prompt."""

    chosen: Tokens
    rejected: Tokens

    @property
    def length(self) -> int:
        """Tokens of the longer one."""
        return max(self.chosen.length, self.rejected.length)


class Padded(NamedTuple):
    """A batch of prompts with responses.

    `ids` [B, L]; `where` [B, R] is the position that predicts each response token, `targets`
    [B, R] that token, and `mask` [B, R] true where there is one.
    """

    ids: Tensor
    where: Tensor
    targets: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> "Padded":
        """The same on another device."""
        return Padded(*(tensor.to(device) for tensor in self))


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


def padded(rows: Sequence[Tokens]) -> Padded:
    """One batch, padded to its longest row and its longest response."""
    longest = max(len(row.response) for row in rows)
    ids = torch.zeros(len(rows), max(row.length for row in rows), dtype=torch.long)
    targets = torch.zeros(len(rows), longest, dtype=torch.long)
    starts = torch.tensor([len(row.prompt) for row in rows])
    lengths = torch.tensor([len(row.response) for row in rows])
    for i, (prompt, response) in enumerate(rows):
        ids[i, : len(prompt) + len(response)] = torch.tensor(prompt + response)
        targets[i, : len(response)] = torch.tensor(response, dtype=torch.long)
    mask = torch.arange(longest) < lengths[:, None]
    where = (starts[:, None] - 1 + torch.arange(longest)) * mask
    return Padded(ids, where, targets, mask)


def plan(lengths: Sequence[int], training: Training, micro: int) -> Iterator[list[list[int]]]:
    """Row indices of every optimiser step, cut into micro-batches of similar length.

    Each epoch is a new shuffle; the last step of an epoch may be smaller. The micro-batch size
    changes neither the order of the steps nor what is in them.
    """
    shuffle = torch.Generator().manual_seed(training.seed)
    for _ in range(training.epochs):
        order: list[int] = torch.randperm(len(lengths), generator=shuffle).tolist()
        for start in range(0, len(order), training.batch):
            yield by_length(order[start : start + training.batch], lengths, micro)


def by_length(rows: Sequence[int], lengths: Sequence[int], micro: int) -> list[list[int]]:
    """Row indices sorted by length, longest first, in micro-batches of `micro`."""
    order = sorted(rows, key=lambda row: -lengths[row])
    return [order[start : start + micro] for start in range(0, len(order), micro)]


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
