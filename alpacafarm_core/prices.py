"""Prices of models, and tokens counted before anybody is asked.

The table is data (`prices.yaml`); an annotator's own price overrules it. What no list knows has no
price, and what has no price is refused at the door unless it runs on this very machine.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import yaml

from alpacafarm_core.asked import Asked
from alpacafarm_core.errors import BadInput
from alpacafarm_core.llm import PEOPLE, WORLD, Answer, Message, Request

TABLE = Path(__file__).parent / "prices.yaml"
CHARACTERS_PER_TOKEN = 4
MARKS_OF_A_TURN = 8
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Rates(NamedTuple):
    """US dollars for a million prompt tokens, a million completion tokens, and a call."""

    prompt: float
    completion: float
    call: float = 0.0

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """US dollars of one call."""
        tokens = prompt_tokens * self.prompt + completion_tokens * self.completion
        return tokens / 1e6 + self.call

    def charged(self, answer: Answer) -> float:
        """US dollars for one answer, at the discount of how it was asked for."""
        return answer.discount * self.of(answer.prompt_tokens, answer.completion_tokens)

    def most(self, request: Request, longest: int) -> float:
        """US dollars that a call can cost: a token for each byte, and the longest answer.

        `extra` counts as well: tools and formats are part of the prompt.
        """
        prompt = most_tokens(request.messages) + len(request.extra.encode())
        return self.of(prompt, longest)


def rates(annotator: Asked) -> Rates:
    """What a judge's calls cost; raises BadInput for a model that no list knows."""
    own, call = annotator.price_per_1k_tokens, annotator.price_per_call
    if own is not None:
        return Rates(1000 * own, 1000 * own, call)
    if is_local(annotator.endpoint):
        return Rates(0.0, 0.0, call)
    listed = [name for name in _table() if annotator.model.startswith(name)]
    if not listed:
        raise BadInput(
            f"annotator {annotator.name}: no price is known for {annotator.model!r}; give "
            "price_per_1k_tokens in its panel (0 when it is free)"
        )
    prompt, completion = _table()[max(listed, key=len)]
    return Rates(prompt, completion, call)


def is_local(endpoint: str) -> bool:
    """Whether nobody is paid there: the built-in world, or a server on this machine."""
    return endpoint in (WORLD, PEOPLE) or urlsplit(endpoint).hostname in LOOPBACK


def tokens_of(text: str) -> int:
    """Tokens of a text, by the rule of thumb of four characters each."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def prompt_tokens(messages: Sequence[Message]) -> int:
    """Tokens of a prompt, estimated."""
    return sum(tokens_of(message.content) for message in messages)


def most_tokens(messages: Sequence[Message]) -> int:
    """Tokens that a prompt can have: no token is less than a byte, a turn adds a few marks."""
    return sum(len(message.content.encode()) + MARKS_OF_A_TURN for message in messages)


@cache
def _table() -> dict[str, tuple[float, float]]:
    return {
        str(name): (held[0], held[1]) for name, held in yaml.safe_load(TABLE.read_text()).items()
    }
