"""SimPO: Fixture A, its margin, and what length does to it."""

import math

import pytest
import torch

from alpacafarm_core.methods.simpo import SimPO, simpo_loss
from alpacafarm_core.objective import MeanLogps
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import CHOSEN_LENGTH, PAIRS, numbers, seen


def test_its_steps():
    assert steps_of("simpo") == ["train(sft, preferences)"]


def test_its_defaults_are_the_papers():
    paper = "Meng et al. 2024, Llama-3-Base; the authors' script"
    assert defaults_of("simpo") == {
        "beta": (2.0, paper),
        "gamma": (1.0, paper),
        "training.learning_rate": (6e-7, paper),
        "training.epochs": (1, paper),
        "training.batch": (128, paper),
        "training.warmup": (0.1, paper),
    }


def test_simpo_on_fixture_a():
    assert SimPO().loss(seen(MeanLogps)).tolist() == pytest.approx([1.825674, 1.233267], abs=5e-7)


def test_equal_means_are_softplus_of_the_margin():
    same = seen(MeanLogps, rejected=PAIRS.chosen, rejected_length=CHOSEN_LENGTH)
    assert simpo_loss(same, 2, 1).tolist() == pytest.approx([math.log(1 + math.e)] * 2)
    assert simpo_loss(same, 2, 0).tolist() == pytest.approx([math.log(2)] * 2)


def test_saying_every_token_twice_changes_nothing():
    twice = seen(MeanLogps, chosen=2 * PAIRS.chosen, chosen_length=2 * CHOSEN_LENGTH)
    torch.testing.assert_close(simpo_loss(twice, 2, 1), simpo_loss(seen(MeanLogps), 2, 1))


def test_a_response_without_tokens_is_no_division_by_zero():
    empty = seen(MeanLogps, chosen=numbers(0, -24), chosen_length=numbers(0, 12))
    assert simpo_loss(empty, 2, 1).isfinite().all()
