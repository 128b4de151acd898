"""IPO: Fixture A in both forms, and where its loss is zero."""

import pytest
import torch

from alpacafarm_core.methods.ipo import IPO, ipo_loss
from alpacafarm_core.objective import LengthLogps
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import numbers, seen


def test_its_steps():
    assert steps_of("ipo") == ["train(sft, preferences)"]


def test_its_defaults_and_where_they_are_from():
    recipe = "AlpacaFarm's DPO recipe; the paper trains no language model"
    assert defaults_of("ipo") == {
        "tau": (0.1, "TRL's default; the paper's bandits take several values"),
        "per": ("response", "Azar et al. 2023, eq. 17"),
        "training.learning_rate": (1e-6, recipe),
        "training.epochs": (2, recipe),
        "training.batch": (64, recipe),
    }


def test_ipo_on_fixture_a():
    pairs = seen(LengthLogps)
    assert IPO().loss(pairs).tolist() == pytest.approx([6.25, 42.25], abs=5e-7)
    per_token = IPO(per="token").loss(pairs)
    assert per_token.tolist() == pytest.approx([20.930625, 26.408179], abs=5e-7)


def test_ipo_is_zero_exactly_where_the_margin_is_one_half_over_tau():
    reached = seen(LengthLogps, chosen=numbers(-8.5, -17.5))
    assert ipo_loss(reached, tau=0.1).tolist() == [0, 0]
    beyond = seen(LengthLogps, chosen=numbers(-7.5, -16.5))
    assert ipo_loss(beyond, tau=0.1).tolist() == [1, 1]


def test_ipo_at_the_reference_is_the_square_of_its_target():
    same = seen(LengthLogps, ref_chosen=numbers(-11, -24), ref_rejected=numbers(-15, -18.5))
    assert ipo_loss(same, tau=0.1).tolist() == [25, 25]


def test_ipo_pulls_the_chosen_up_and_the_rejected_down_alike():
    chosen = numbers(-11, -24).requires_grad_()
    rejected = numbers(-15, -18.5).requires_grad_()
    ipo_loss(seen(LengthLogps, chosen=chosen, rejected=rejected), tau=0.1).sum().backward()
    assert chosen.grad.tolist() == [-5, -13]
    torch.testing.assert_close(rejected.grad, -chosen.grad)


def test_a_response_without_tokens_is_no_division_by_zero():
    empty = seen(LengthLogps, chosen_length=numbers(0, 12))
    assert ipo_loss(empty, 0.1, per_token=True).isfinite().all()
