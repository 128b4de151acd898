"""Rows as a reward model reads them, without end token and cut to its length, and its numbers."""

from collections.abc import Sequence

import torch

from alpacafarm_core.machine import Machine
from alpacafarm_core.train.batches import Room, alike, padded
from alpacafarm_core.train.forward import response_scores
from alpacafarm_core.train.models import Loaded, autocast, begin
from alpacafarm_core.train.tokens import Tokens


@torch.no_grad()
def scores(scorer: Loaded, rows: Sequence[Tokens], machine: Machine) -> list[float]:
    """The reward of each response, read at its last token before the end token."""
    fitted = [scorable(row, scorer) for row in rows]
    found = torch.zeros(len(rows))
    for micro in alike(fitted, range(len(rows)), Room.of(machine)):
        batch = padded([fitted[row] for row in micro]).to(begin(machine))
        with autocast(machine):
            found[micro] = response_scores(scorer.model, batch).cpu()
    return [float(reward) for reward in found]


def scorable(row: Tokens, scorer: Loaded) -> Tokens:
    """The row without its end token, cut on the left so that it fits the model.

    The prompt is cut first, a begin token and one token of it stay; only a response longer than
    the model loses its own beginning. An empty response is read at the end of the prompt.
    """
    tokenizer = scorer.tokenizer
    prompt, response = list(row.prompt), list(row.response)
    while response and response[-1] == tokenizer.eos_token_id:
        response.pop()
    if not response:
        prompt, response = prompt[:-1], prompt[-1:]
    begins = prompt[:1] if prompt[:1] == [tokenizer.bos_token_id] else []
    response = response[-(longest(scorer) - len(begins) - 1) :]
    room = longest(scorer) - len(response)
    if len(prompt) > room:
        prompt = begins + prompt[len(prompt) - room + len(begins) :]
    return Tokens(prompt, response)


def longest(scorer: Loaded) -> int:
    """Tokens of prompt and response that the model reads at once."""
    positions = scorer.model.config.max_position_embeddings
    return int(min(scorer.tokenizer.model_max_length, positions))
