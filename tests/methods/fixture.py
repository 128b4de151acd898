"""Fixture A of the method notes: two pairs and two gold responses, for every loss."""

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
