"""ORPO: Fixture A, both terms, its gradients."""

import math

import pytest

from alpacafarm_core.methods.orpo import ORPO, odds_ratio_loss, orpo_loss
from alpacafarm_core.objective import MeanLogps, log_odds
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import CHOSEN_LENGTH, PAIRS, numbers, seen

ONE = numbers(1, 1)


def test_its_steps():
    """It takes the place of SFT."""
    assert steps_of("orpo") == ["train(base, preferences)"]


def test_its_defaults_are_the_authors():
    script = "the authors' Mistral script, but for its schedule"
    assert defaults_of("orpo") == {
        "lam": (0.1, "Hong et al. 2024; the authors' Mistral script"),
        "training.learning_rate": (5e-6, script),
        "training.epochs": (5, script),
        "training.batch": (32, script),
    }


def test_orpo_on_fixture_a():
    odds = odds_ratio_loss(seen(MeanLogps))
    assert odds.tolist() == pytest.approx([0.897553, 0.661670], abs=5e-7)
    assert ORPO().loss(seen(MeanLogps)).tolist() == pytest.approx([2.289755, 2.066167], abs=5e-7)


def test_equal_means_are_ln_2_beside_the_cross_entropy():
    same = seen(MeanLogps, rejected=PAIRS.chosen, rejected_length=CHOSEN_LENGTH)
    assert odds_ratio_loss(same).tolist() == pytest.approx([math.log(2)] * 2)
    assert orpo_loss(same, 1.0).tolist() == pytest.approx([2.2 + math.log(2), 2 + math.log(2)])


def test_the_gradients_of_the_odds_term_on_fixture_a():
    """Of the means, which with one token a response are the sums."""
    chosen = numbers(-2.2, -2.0).requires_grad_()
    rejected = numbers(-1.875, -18.5 / 9).requires_grad_()
    odds_ratio_loss(MeanLogps(chosen, rejected, ONE, ONE)).sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-0.666258, -0.559767], abs=5e-7)
    assert rejected.grad.tolist() == pytest.approx([0.699743, 0.555072], abs=5e-7)


def test_log_odds_are_right_from_nearly_certain_to_nearly_impossible():
    even = numbers(math.log(0.5), math.log(0.9), math.log(0.1))
    assert log_odds(even).tolist() == pytest.approx([0, math.log(9), -math.log(9)])
    assert float(log_odds(numbers(-700))) == pytest.approx(-700)
    assert float(log_odds(numbers(-1e-5))) == pytest.approx(math.log(1e5), abs=1e-4)


def test_a_certain_response_has_odds_and_a_gradient():
    for certain in (numbers(0).float(), numbers(0), numbers(-1e-9), numbers(-1e4).float()):
        given = certain.clone().requires_grad_()
        odds = log_odds(given)
        odds.sum().backward()
        assert odds.isfinite().all() and given.grad.isfinite().all()
