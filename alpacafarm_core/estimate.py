"""What calls to judges will take, before anybody is asked: tokens and dollars, low and high.

Prompts are rendered for real, so only two things are guessed: how many characters make a token, and
how long a judge's answer is. For a bare choice that is its shortest form; a panel may say it of an
annotator that explains itself (`usual_tokens`), else the longest answer allowed is the upper end.
"""

from collections.abc import Sequence
from typing import NamedTuple

from alpacafarm_core.buying import Order
from alpacafarm_core.prices import prompt_tokens

SLACK = 0.05
"""By how much counted tokens may be off, either way."""


class Estimate(NamedTuple):
    """Rows to be judged, calls, tokens as expected, and US dollars between low and high."""

    rows: int = 0
    calls: int = 0
    tokens: int = 0
    usd_low: float = 0.0
    usd_high: float = 0.0


def estimated(orders: Sequence[Order]) -> Estimate:
    """What these calls will take; raises BadInput for a model without a known price."""
    rows = sum(len(order.keys) for order in orders)
    tokens, low, high = 0.0, 0.0, 0.0
    for order in orders:
        rates, prompt = order.rates, prompt_tokens(order.request().messages)
        least, most = order.usual()
        tokens += prompt + (least + most) / 2
        low += rates.of((1 - SLACK) * prompt, (1 - SLACK) * least)
        high += rates.of((1 + SLACK) * prompt, (1 + SLACK) * most)
    return Estimate(rows, len(orders), round(tokens), low, high)
