"""SLiC: Fixture A with both hinges, and the pairs it leaves alone."""

import pytest

from alpacafarm_core.methods.slic import SLiC, hinge_loss
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS


def test_its_steps():
    assert steps_of("slic") == ["train(sft, preferences)"]


def test_its_defaults_and_where_they_are_from():
    recipe = "AlpacaFarm's DPO recipe; the paper trains T5"
    assert defaults_of("slic") == {
        "beta": (0.1, "TRL's default for its hinge"),
        "training.learning_rate": (1e-6, recipe),
        "training.epochs": (2, recipe),
        "training.batch": (64, recipe),
    }


def test_slic_on_fixture_a():
    assert SLiC().loss(PAIRS).tolist() == pytest.approx([0.75, 1.15])


def test_rsos_normalised_hinge_on_fixture_a():
    assert hinge_loss(PAIRS, 0.5).tolist() == pytest.approx([0, 1.75])


def test_a_pair_beyond_the_margin_teaches_nothing():
    chosen = PAIRS.chosen.clone().requires_grad_()
    hinge_loss(PAIRS._replace(chosen=chosen), 0.5).sum().backward()
    assert chosen.grad.tolist() == [0, -0.5]
