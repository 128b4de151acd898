"""Every loss: Fixture A of the method notes, numbers by hand, limits and gradients."""

import math

import pytest
import torch

from alpacafarm_core.methods.dpo import DPO, dpo_loss
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.objective import PairLogps, TokenLogps

FIXTURE = PairLogps(
    chosen=torch.tensor([-11.0, -24.0], dtype=torch.float64),
    rejected=torch.tensor([-15.0, -18.5], dtype=torch.float64),
    ref_chosen=torch.tensor([-12.5, -23.0], dtype=torch.float64),
    ref_rejected=torch.tensor([-14.0, -19.0], dtype=torch.float64),
)


def test_dpo_on_fixture_a():
    assert dpo_loss(FIXTURE, 0.1).tolist() == pytest.approx([0.575939, 0.770957], abs=5e-7)
    assert DPO(beta=0.1).loss(FIXTURE).tolist() == pytest.approx([0.575939, 0.770957], abs=5e-7)


def test_dpo_is_ln_2_where_policy_and_reference_agree():
    same = FIXTURE._replace(ref_chosen=FIXTURE.chosen, ref_rejected=FIXTURE.rejected)
    assert dpo_loss(same, 0.1).tolist() == pytest.approx([math.log(2)] * 2)


def test_swapping_chosen_and_rejected_mirrors_dpo():
    swapped = PairLogps(FIXTURE.rejected, FIXTURE.chosen, FIXTURE.ref_rejected, FIXTURE.ref_chosen)
    difference = dpo_loss(swapped, 0.1) - dpo_loss(FIXTURE, 0.1)
    assert difference.tolist() == pytest.approx([0.25, -0.15])


def test_the_same_shift_of_both_policy_scores_leaves_dpo_alone():
    shifted = FIXTURE._replace(chosen=FIXTURE.chosen - 3, rejected=FIXTURE.rejected - 3)
    torch.testing.assert_close(dpo_loss(shifted, 0.1), dpo_loss(FIXTURE, 0.1))


def test_dpo_pulls_half_of_beta_at_the_start():
    chosen = FIXTURE.ref_chosen.clone().requires_grad_()
    pairs = FIXTURE._replace(chosen=chosen, rejected=FIXTURE.ref_rejected)
    dpo_loss(pairs, 0.1).sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-0.05, -0.05])


def test_sft_is_the_cross_entropy_of_every_token():
    batch = TokenLogps(logprobs=torch.tensor([[-1.0, -2.0]]), mask=torch.ones(1, 2))
    assert SFT().loss(batch).tolist() == [[1.0, 2.0]]
