"""KTO: Fixture A side by side, its reference point, its weights."""

import pytest

from alpacafarm_core.methods.kto import KTO, kto_loss, kto_sides
from alpacafarm_core.objective import UnpairedLogps
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS, numbers, seen


def test_its_steps():
    assert steps_of("kto") == ["train(sft, preferences)"]


def test_its_defaults_are_the_papers():
    script = "Ethayarajh et al. 2024; the authors' script"
    assert defaults_of("kto") == {
        "beta": (0.1, script),
        "desirable": (1.0, script),
        "undesirable": (1.0, script),
        "training.learning_rate": (5e-6, "the authors' script"),
        "training.epochs": (1, "the authors' script"),
        "training.batch": (16, "the authors' 32 responses a step"),
    }


def test_both_sides_on_fixture_a():
    good, bad = kto_sides(seen(UnpairedLogps), 0.1)
    assert good.tolist() == pytest.approx([0.470036, 0.532454], abs=5e-7)
    assert bad.tolist() == pytest.approx([0.467546, 0.505000], abs=5e-7)


def test_the_loss_is_the_mean_of_both_sides_by_their_weights():
    assert KTO().loss(seen(UnpairedLogps)).tolist() == pytest.approx([0.468791, 0.518727], abs=1e-6)
    weighted = KTO(desirable=2, undesirable=0).loss(seen(UnpairedLogps))
    assert weighted.tolist() == pytest.approx([0.470036, 0.532454], abs=5e-7)


def test_a_reference_point_below_zero_is_zero():
    below = seen(UnpairedLogps, mismatch_kl=numbers(-3, -3))
    zero = seen(UnpairedLogps, mismatch_kl=numbers(0, 0))
    assert kto_loss(below, 0.1).tolist() == kto_loss(zero, 0.1).tolist()


def test_at_the_reference_with_no_divergence_it_is_one_half():
    same = seen(
        UnpairedLogps,
        ref_chosen=PAIRS.chosen,
        ref_rejected=PAIRS.rejected,
        mismatch_kl=numbers(0, 0),
    )
    assert kto_loss(same, 0.1).tolist() == [0.5, 0.5]


def test_no_gradient_goes_through_the_reference_point():
    point = numbers(0.3, 0.3).requires_grad_()
    chosen = PAIRS.chosen.clone().requires_grad_()
    kto_loss(seen(UnpairedLogps, mismatch_kl=point, chosen=chosen), 0.1).sum().backward()
    assert point.grad is None and (chosen.grad < 0).all()


def test_far_from_the_reference_point_a_response_teaches_little_on_either_side():
    chosen = numbers(-12.5 + 200, -23 - 200).requires_grad_()
    kto_loss(seen(UnpairedLogps, chosen=chosen), 0.1).sum().backward()
    assert chosen.grad.abs().max() < 1e-8
