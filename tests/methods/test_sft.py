"""SFT."""

import torch

from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.objective import TokenLogps


def test_sft_is_the_cross_entropy_of_every_token():
    batch = TokenLogps(logprobs=torch.tensor([[-1.0, -2.0]]), mask=torch.ones(1, 2))
    assert SFT().loss(batch).tolist() == [[1.0, 2.0]]
