"""The prompts of a loop that samples: those that leave room for an answer, over and over."""

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import polars as pl
import torch

from alpacafarm_core.errors import BadInput
from alpacafarm_core.train.tokens import prompt_ids, prompt_texts

log = logging.getLogger("alpacafarm.training")


def that_fit(instructions: pl.DataFrame, tokenizer: Any, room: int) -> list[list[int]]:
    """Ids of the prompts of at most `room` tokens; raises BadInput where there is none."""
    every = prompt_ids(tokenizer, prompt_texts(instructions, tokenizer))
    kept = [prompt for prompt in every if len(prompt) <= room]
    if len(kept) < len(every):
        log.warning("%d of %d prompts left out: too_long", len(every) - len(kept), len(every))
    if not kept:
        raise BadInput(
            f"none of {len(every)} prompts fits in the {room} tokens that training.max_length "
            f"leaves beside sampling.max_tokens; the shortest has {min(map(len, every), default=0)}"
            ": raise max_length"
        )
    return kept


def endless(prompts: Sequence[list[int]], seed: int) -> Iterator[list[int]]:
    """The prompts over and over, in a new order each time."""
    shuffle = torch.Generator().manual_seed(seed)
    while True:
        for row in torch.randperm(len(prompts), generator=shuffle).tolist():
            yield prompts[row]


def asked(drawn: Iterator[list[int]], rollouts: int, times: int) -> list[list[int]]:
    """The next prompts for so many rollouts, each `times` in a row."""
    return [prompt for prompt in islice(drawn, rollouts // times) for _ in range(times)]
