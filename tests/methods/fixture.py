"""Fixture A of the method notes: two pairs and two gold responses, for every loss."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from alpacafarm_core.objective import PairLogps


def numbers(*held: float) -> Tensor:
    """[B] in float64."""
    return torch.tensor(held, dtype=torch.float64)


PAIRS = PairLogps(
    chosen=numbers(-11, -24),
    rejected=numbers(-15, -18.5),
    ref_chosen=numbers(-12.5, -23),
    ref_rejected=numbers(-14, -19),
)
CHOSEN_LENGTH, REJECTED_LENGTH = numbers(5, 12), numbers(8, 9)
GOLD, GOLD_LENGTH = numbers(-9, -15), numbers(5, 8)
MEAN_CHOSEN_LENGTH, MEAN_GOLD_LENGTH = numbers(8.5, 8.5), numbers(6.5, 6.5)
View = TypeVar("View")
WINS, LOSES = numbers(0.8, 0.7), numbers(0.2, 0.25)
FIELDS = {
    **PAIRS._asdict(),
    "chosen_length": CHOSEN_LENGTH,
    "rejected_length": REJECTED_LENGTH,
    "mean_chosen_length": MEAN_CHOSEN_LENGTH,
    "gold": GOLD,
    "mean_gold_length": MEAN_GOLD_LENGTH,
    "mismatch_kl": numbers(0.3, 0.3),
    "chosen_win": WINS,
    "rejected_win": LOSES,
    "carried": numbers(0, 0),
    "mixed_chosen": PAIRS.chosen,
    "mixed_rejected": PAIRS.rejected,
}


def seen(view: type[View], **changed: Tensor) -> View:
    """The fixture as a loss with this view sees it, some fields changed."""
    known: dict[str, Any] = FIELDS | changed
    return view(**{name: known[name] for name in view._fields})  # type: ignore[attr-defined]
