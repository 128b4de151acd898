"""SFT."""

import torch

from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.objective import TokenLogps
from tests.methods import defaults_of, steps_of


def test_sft_is_the_cross_entropy_of_every_token():
    batch = TokenLogps(logprobs=torch.tensor([[-1.0, -2.0]]), mask=torch.ones(1, 2))
    assert SFT().loss(batch).tolist() == [[1.0, 2.0]]


def test_its_steps():
    assert steps_of("sft") == ["train(base, demonstrations)"]


def test_its_defaults_are_the_papers():
    assert defaults_of("sft") == {
        "training.learning_rate": (2e-05, "AlpacaFarm, SFT10k"),
        "training.epochs": (3, "AlpacaFarm, SFT10k"),
        "training.batch": (128, "AlpacaFarm, SFT10k"),
    }
