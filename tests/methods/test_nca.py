"""NCA: Fixture A, the reference, and what it does to each side."""

import math

import pytest

from alpacafarm_core.methods.nca import NCA, nca_loss
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS


def test_its_steps():
    assert steps_of("nca") == ["train(sft, preferences)"]


def test_its_defaults_are_the_papers():
    script = "Chen et al. 2024; the authors' script, with adapters there"
    assert defaults_of("nca") == {
        "beta": (0.01, "Chen et al. 2024; the authors' script"),
        "training.learning_rate": (5e-6, script),
        "training.epochs": (1, script),
        "training.batch": (32, script),
        "training.warmup": (0.1, script),
    }


def test_nca_on_fixture_a():
    assert NCA(beta=0.1).loss(PAIRS).tolist() == pytest.approx([1.328634, 1.425825], abs=5e-7)


def test_at_the_reference_the_chosen_is_pulled_up_and_the_rejected_as_much_down():
    chosen, rejected = (each.clone().requires_grad_() for each in PAIRS[2:])
    loss = nca_loss(PAIRS._replace(chosen=chosen, rejected=rejected), 0.1)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([2 * math.log(2)] * 2)
    assert chosen.grad.tolist() == pytest.approx([-0.025] * 2)
    assert rejected.grad.tolist() == pytest.approx([0.025] * 2)


def test_a_chosen_response_comes_to_rest_at_odds_of_two_to_one():
    """It counts once as data and half as noise."""
    chosen = (PAIRS.ref_chosen + math.log(2) / 0.1).requires_grad_()
    nca_loss(PAIRS._replace(chosen=chosen), 0.1).sum().backward()
    assert chosen.grad.tolist() == pytest.approx([0, 0], abs=1e-12)
