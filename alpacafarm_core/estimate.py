"""What calls to judges will take, before anybody is asked: tokens and dollars, low and high.

Prompts are rendered for real, so only two things are guessed: how many characters make a token, and
how long a judge's answer is. For a bare choice that is its shortest form; a panel may say it of an
annotator that explains itself (`usual_tokens`), else the longest answer allowed is the upper end.
"""

from collections.abc import Sequence
from typing import NamedTuple

from alpacafarm_core.answers import Choice
from alpacafarm_core.buying import Batch
from alpacafarm_core.prices import prompt_tokens, tokens_of

SLACK = 0.05
"""By how much counted tokens may be off, either way."""


class Estimate(NamedTuple):
    """Rows to be judged, calls, tokens as expected, and US dollars between low and high."""

    rows: int = 0
    calls: int = 0
    tokens: int = 0
    usd_low: float = 0.0
    usd_high: float = 0.0


def estimated(batches: Sequence[Batch]) -> Estimate:
    """What these calls will take; raises BadInput for a model without a known price."""
    rows = sum(len(batch.rows) for batch in batches)
    tokens, low, high = 0.0, 0.0, 0.0
    for batch in batches:
        rates, prompt = batch.desk.rates, prompt_tokens(batch.request().messages)
        least, most = answer_tokens(batch)
        tokens += prompt + (least + most) / 2
        low += rates.of((1 - SLACK) * prompt, (1 - SLACK) * least)
        high += rates.of((1 + SLACK) * prompt, (1 + SLACK) * most)
    return Estimate(rows, len(batches), round(tokens), low, high)


def answer_tokens(batch: Batch) -> tuple[int, int]:
    """Tokens of a usual answer to the batch, at least and at most."""
    judge = batch.desk.annotator
    size = judge.batch if judge.pads else len(batch.rows)
    if judge.usual_tokens is not None:
        return (judge.usual_tokens * size,) * 2
    least = min(batch.desk.longest, tokens_of(judge.answer.written([1.0] * size).text))
    bare = isinstance(judge.answer, Choice)
    return least, least if bare else batch.desk.longest
