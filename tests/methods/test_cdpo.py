"""Conservative DPO: Fixture A, and the certainty it stops at."""

import math

import pytest

from alpacafarm_core.methods.cdpo import CDPO, cdpo_loss
from alpacafarm_core.methods.dpo import dpo_loss
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS, numbers


def test_its_steps():
    assert steps_of("cdpo") == ["train(sft, preferences)"]


def test_its_defaults_and_where_they_are_from():
    recipe = "AlpacaFarm's DPO recipe; the note has no runs"
    assert defaults_of("cdpo") == {
        "beta": (0.1, "AlpacaFarm's DPO recipe"),
        "epsilon": (0.1, "usual value; the note leaves it open"),
        "training.learning_rate": (1e-6, recipe),
        "training.epochs": (2, recipe),
        "training.batch": (64, recipe),
    }


def test_cdpo_on_fixture_a():
    assert CDPO().loss(PAIRS).tolist() == pytest.approx([0.600939, 0.755957], abs=5e-7)


def test_without_wrong_labels_cdpo_is_dpo():
    assert cdpo_loss(PAIRS, 0.1, 0.0).tolist() == dpo_loss(PAIRS, 0.1).tolist()


def test_cdpo_comes_to_rest_where_the_margin_says_how_probably_the_label_is_right():
    margin = math.log(0.9 / 0.1) / 0.1
    chosen = (PAIRS.ref_chosen + margin).requires_grad_()
    resting = PAIRS._replace(chosen=chosen, rejected=PAIRS.ref_rejected)
    cdpo_loss(resting, 0.1, 0.1).sum().backward()
    assert chosen.grad.tolist() == pytest.approx([0, 0], abs=1e-12)


def test_each_pair_may_have_a_share_of_its_own():
    both = cdpo_loss(PAIRS, 0.1, numbers(0.1, 0.0))
    assert both.tolist() == pytest.approx([0.600939, 0.770957], abs=5e-7)
