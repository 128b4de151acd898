"""APO: Fixture A, and where each anchor sends the two responses."""

import pytest
import torch

from alpacafarm_core.methods.apo import APO, apo_down_loss, apo_zero_loss
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS


def at_the_reference(loss) -> tuple[list[float], list[float], list[float]]:
    """The loss where policy and reference agree, and its gradients in both responses."""
    chosen, rejected = (each.clone().requires_grad_() for each in PAIRS[2:])
    value = loss(PAIRS._replace(chosen=chosen, rejected=rejected), 0.1)
    value.sum().backward()
    return value.tolist(), chosen.grad.tolist(), rejected.grad.tolist()


def test_its_steps():
    assert steps_of("apo") == ["train(sft, preferences)"]


def test_its_defaults_are_the_papers():
    listed = "D'Oosterlinck et al. 2024, as TRL lists it"
    assert defaults_of("apo") == {
        "beta": (0.1, "D'Oosterlinck et al. 2024, section 5.2, as TRL lists it"),
        "anchor": ("zero", "D'Oosterlinck et al. 2024, section 4"),
        "training.learning_rate": (2e-7, listed),
        "training.epochs": (1, "one pass, ours"),
        "training.batch": (64, listed),
    }


def test_apo_zero_on_fixture_a():
    assert APO().loss(PAIRS).tolist() == pytest.approx([0.937591, 1.037477], abs=5e-7)


def test_apo_zero_sends_the_chosen_up_and_the_rejected_down():
    value, chosen, rejected = at_the_reference(apo_zero_loss)
    assert value == pytest.approx([1, 1])
    assert chosen == pytest.approx([-0.025] * 2) and rejected == pytest.approx([0.025] * 2)


def test_apo_down_is_the_chosen_ones_probability_and_what_the_gap_lacks():
    """d_w = 1.5, h = 2.5 in the first pair: sigmoid(0.15) + 1 - sigmoid(0.25)."""
    down = APO(anchor="down").loss(PAIRS)
    assert down.tolist() == pytest.approx([0.975253, 1.012451], abs=5e-7)


def test_apo_down_sends_the_rejected_down_and_the_chosen_after_it_once_they_are_apart():
    value, chosen, rejected = at_the_reference(apo_down_loss)
    assert value == pytest.approx([1, 1])
    assert chosen == pytest.approx([0, 0]) and rejected == pytest.approx([0.025] * 2)
    apart = PAIRS.ref_chosen.clone().requires_grad_()
    low = PAIRS._replace(chosen=apart, rejected=PAIRS.ref_rejected - 30)
    apo_down_loss(low, 0.1).sum().backward()
    assert (apart.grad > 0).all()


def test_both_losses_stay_within_two():
    far = PAIRS._replace(chosen=PAIRS.chosen - 1e4, rejected=PAIRS.rejected + 1e4)
    worst = torch.stack([apo_zero_loss(far, 0.1), apo_down_loss(far, 0.1)])
    assert (worst <= 2).all() and worst.isfinite().all()
