"""Draws of a pair: who judges it, whether a coin decides instead, which output is shown first.

Each depends on texts and the panel's seed alone, so a row keeps its draws whatever stands beside
it. Two ways to seed them: ours, by the pair's own text, so that draws are independent between the
models that answer one prompt; and alpaca_eval's, by the instruction, which repeats its published
draws.
"""

import random
from typing import NamedTuple

from alpacafarm_core.panel import Panel
from alpacafarm_core.prompts import merged
from alpacafarm_core.templates import Example


class Draws(NamedTuple):
    """The judge's place in the panel; 1 or 2 where a coin decides, else None; whether to switch."""

    judge: int
    coin: float | None
    is_switched: bool


def draws(row: Example, panel: Panel) -> Draws:
    """The draws of one pair."""
    return _theirs(row, panel) if panel.draws == "alpaca_eval" else _ours(row, panel)


def coin(row: Example, seed: int) -> float:
    """1 or 2, for a tie that must be decided."""
    return random.Random(f"tie{''.join(row)}{seed}").choice([1.0, 2.0])


def _ours(row: Example, panel: Panel) -> Draws:
    pair = f"{''.join(row)}{panel.seed}"
    prompt = pair if panel.level == "pair" else f"{row.instruction}{row.input}{panel.seed}"
    judge = random.Random(f"annotator{prompt}").choice(range(len(panel.annotators)))
    switched = _uniform(f"is_switched_outputs{pair}") < 0.5
    return Draws(judge, _coin(pair, panel.flip), _ordered(switched, panel))


def _theirs(row: Example, panel: Panel) -> Draws:
    """As alpaca_eval 0.6.6 draws: one `choices` each, seeded by the merged instruction.

    The order alone may be seeded by other columns, sorted by name.
    """
    held = row._asdict() | {"instruction": merged(row.instruction, row.input)}
    seed = f"{held['instruction']}{panel.seed}"
    columns = "".join(held[column] for column in sorted(panel.order_by))
    (judge,) = random.Random(f"annotator{seed}").choices(range(len(panel.annotators)))
    order = random.Random(f"is_switched_outputs{columns}{panel.seed}")
    (switched,) = order.choices([False, True])
    share = min(panel.flip, 1 - panel.flip)
    weights = [1 - 2 * share, share, share]
    (coin,) = random.Random(f"noisy_preference{seed}").choices([None, 1.0, 2.0], weights)
    return Draws(judge, coin, _ordered(switched, panel))


def _ordered(drawn: bool, panel: Panel) -> bool:
    return drawn if panel.order == "random" else panel.order == "switched"


def _uniform(text: str) -> float:
    """A uniform number in [0, 1) that depends on the text alone."""
    return random.Random(text).random()


def _coin(pair: str, flip: float) -> float | None:
    """1 or 2 by a coin with probability 2 * flip, else None; beyond one half 2 * (1 - flip)."""
    share = min(flip, 1 - flip)
    if share == 0:
        return None
    drawn = _uniform(f"noisy_preference{pair}")
    return 1.0 if drawn < share else 2.0 if drawn < 2 * share else None
