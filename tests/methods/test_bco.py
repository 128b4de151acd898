"""BCO: Fixture A, and the running mean of its rewards."""

import math

import pytest

from alpacafarm_core.methods.bco import BCO, bco_loss
from alpacafarm_core.objective import NO_PAST, CarriedLogps, Past
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS, numbers, seen


def test_its_steps():
    assert steps_of("bco") == ["train(sft, preferences)"]


def test_its_defaults_are_the_papers():
    listed = "Jung et al. 2024, appendix C, as TRL lists it"
    assert defaults_of("bco") == {
        "beta": (0.01, listed),
        "training.learning_rate": (5e-7, listed),
        "training.epochs": (1, "one pass, ours"),
        "training.batch": (128, listed),
    }


def test_bco_on_fixture_a():
    loss = BCO(beta=0.1).loss(seen(CarriedLogps))
    assert loss.tolist() == pytest.approx([1.265354, 1.462856], abs=5e-7)


def test_rewards_count_from_their_mean():
    """Rewards 0.15 and -0.1 less 0.05 are 0.1 and -0.15."""
    shifted = bco_loss(seen(CarriedLogps, carried=numbers(0.05, 0.05)), 0.1)
    first = math.log(1 + math.exp(-0.1)) + math.log(1 + math.exp(-0.15))
    assert float(shifted[0]) == pytest.approx(first)


def test_the_mean_is_of_all_responses_of_the_steps_before():
    """Log-ratios of 2 and -1, mean 0.5, over 32 pairs; 6 and 0, mean 3, over 8."""
    steps = [
        {"rows": 32.0, "chosen": 2.0, "rejected": -1.0},
        {"rows": 8.0, "chosen": 6.0, "rejected": 0.0},
    ]
    assert BCO(beta=0.1).carry(Past(steps, 3)) == pytest.approx(0.1 * (32 * 0.5 + 8 * 3) / 40)


def test_before_the_first_step_the_mean_is_zero():
    assert BCO().carry(NO_PAST) == 0.0


def test_at_the_reference_both_sides_are_a_coin():
    same = seen(CarriedLogps, ref_chosen=PAIRS.chosen, ref_rejected=PAIRS.rejected)
    assert bco_loss(same, 0.1).tolist() == pytest.approx([2 * math.log(2)] * 2)
