"""Robust DPO: Fixture A, and that wrong labels leave its mean alone."""

import pytest
import torch

from alpacafarm_core.methods.dpo import dpo_loss
from alpacafarm_core.methods.robust_dpo import RobustDPO, robust_dpo_loss
from alpacafarm_core.objective import PairLogps
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS


def test_its_steps():
    assert steps_of("robust_dpo") == ["train(sft, preferences)"]


def test_its_defaults_and_where_they_are_from():
    recipe = "AlpacaFarm's DPO recipe; the paper trains GPT-2"
    assert defaults_of("robust_dpo") == {
        "beta": (0.1, "AlpacaFarm's DPO recipe; the paper's GPT-2 takes 0.01"),
        "epsilon": (0.1, "Chowdhury et al. 2024, section 6, as TRL lists it"),
        "training.learning_rate": (1e-6, recipe),
        "training.epochs": (2, recipe),
        "training.batch": (64, recipe),
    }


def test_robust_dpo_on_fixture_a():
    assert RobustDPO().loss(PAIRS).tolist() == pytest.approx([0.544689, 0.789707], abs=5e-7)


def test_the_mean_over_labels_turned_round_at_its_rate_is_dpos_loss_on_the_right_ones():
    turned = PairLogps(PAIRS.rejected, PAIRS.chosen, PAIRS.ref_rejected, PAIRS.ref_chosen)
    right, wrong = (robust_dpo_loss(pairs, 0.1, 0.3) for pairs in (PAIRS, turned))
    torch.testing.assert_close(0.7 * right + 0.3 * wrong, dpo_loss(PAIRS, 0.1))


def test_without_wrong_labels_it_is_dpo():
    assert robust_dpo_loss(PAIRS, 0.1, 0.0).tolist() == dpo_loss(PAIRS, 0.1).tolist()


def test_it_may_be_below_zero_where_dpo_is_not():
    sure = PAIRS._replace(chosen=PAIRS.chosen + 100)
    assert (robust_dpo_loss(sure, 0.1, 0.1) < 0).all()
