"""DPO: Fixture A of the method notes, numbers by hand, limits and gradients."""

import math

import pytest
import torch

from alpacafarm_core.methods.dpo import DPO, dpo_loss
from alpacafarm_core.objective import PairLogps
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS


def test_its_steps():
    assert steps_of("dpo") == ["train(sft, preferences)"]


def test_its_defaults_are_the_papers():
    recipe = "AlpacaFarm's DPO recipe"
    assert defaults_of("dpo") == {
        "beta": (0.1, "Rafailov et al. 2023; AlpacaFarm"),
        "training.learning_rate": (1e-6, recipe),
        "training.epochs": (2, recipe),
        "training.batch": (64, recipe),
    }


def test_dpo_on_fixture_a():
    assert dpo_loss(PAIRS, 0.1).tolist() == pytest.approx([0.575939, 0.770957], abs=5e-7)
    assert DPO(beta=0.1).loss(PAIRS).tolist() == pytest.approx([0.575939, 0.770957], abs=5e-7)


def test_dpo_is_ln_2_where_policy_and_reference_agree():
    same = PAIRS._replace(ref_chosen=PAIRS.chosen, ref_rejected=PAIRS.rejected)
    assert dpo_loss(same, 0.1).tolist() == pytest.approx([math.log(2)] * 2)


def test_swapping_chosen_and_rejected_mirrors_dpo():
    swapped = PairLogps(PAIRS.rejected, PAIRS.chosen, PAIRS.ref_rejected, PAIRS.ref_chosen)
    difference = dpo_loss(swapped, 0.1) - dpo_loss(PAIRS, 0.1)
    assert difference.tolist() == pytest.approx([0.25, -0.15])


def test_the_same_shift_of_both_policy_scores_leaves_dpo_alone():
    shifted = PAIRS._replace(chosen=PAIRS.chosen - 3, rejected=PAIRS.rejected - 3)
    torch.testing.assert_close(dpo_loss(shifted, 0.1), dpo_loss(PAIRS, 0.1))


def test_dpo_pulls_half_of_beta_at_the_start():
    chosen = PAIRS.ref_chosen.clone().requires_grad_()
    pairs = PAIRS._replace(chosen=chosen, rejected=PAIRS.ref_rejected)
    dpo_loss(pairs, 0.1).sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-0.05, -0.05])
