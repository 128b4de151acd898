"""REINFORCE++: its steps, its defaults, and advantages over the batch by hand."""

import math

import pytest
import torch

from alpacafarm_core.methods.ppo import PPO
from alpacafarm_core.methods.reinforce_pp import BatchObjective, ReinforcePP
from tests.methods import defaults_of, steps_of
from tests.methods.sampled import rollouts_of


def test_its_steps():
    assert steps_of("reinforce_pp") == [
        "fit_reward(sft, preferences)",
        "roll_out(sft, fit_reward1, instructions)",
    ]


def test_its_defaults_and_where_they_are_from():
    found = defaults_of("reinforce_pp")
    script = "OpenRLHF's script for REINFORCE++"
    assert (
        found.items()
        >= {
            "objective.steps": (40, "AlpacaFarm's PPO"),
            "objective.rollouts": (1024, script),
            "objective.minibatch": (128, script),
            "objective.inner_epochs": (1, script),
            "objective.kl.coef": (0.01, script),
            "objective.kl.estimator": ("k1", "Hu 2025, token-level KL penalty"),
            "objective.clip": (0.2, "Hu 2025; Schulman et al. 2017"),
            "objective.gamma": (1.0, "Hu 2025"),
            "objective.shaping.missing_eos": (None, "ours: off"),
            "objective.sampling.n": (1, script),
            "objective.training.learning_rate": (5e-7, script),
        }.items()
    )
    assert all(source for _, source in found.values())


def test_at_small_it_samples_and_learns_as_often_as_ppo():
    ours, theirs = (method.at("small").objective for method in (ReinforcePP, PPO))
    for name in ("steps", "rollouts", "minibatch", "inner_epochs", "kl", "training"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_returns_are_what_is_still_to_come():
    ratios, mask = torch.tensor([[0.2, -0.1, 0.4, 7.0]]), torch.tensor([[1.0, 1, 1, 0]])
    found = BatchObjective().advantages(rollouts_of([0.8], ratios, mask), 0.005)
    torch.testing.assert_close(found.returns[0, :3], torch.tensor([0.7975, 0.7985, 0.798]))


def test_without_a_price_every_token_gets_its_responses_score_normalised_over_tokens():
    # Scores 3, 0, 0 on 1, 2 and 1 tokens: mean 3/4 and variance 27/16 over the four tokens.
    mask = torch.tensor([[1.0, 0], [1, 1], [1, 0]])
    found = BatchObjective().advantages(rollouts_of([3, 0, 0], torch.zeros(3, 2), mask), 0.0)
    high, low = (3 - 0.75) / math.sqrt(27 / 16), -0.75 / math.sqrt(27 / 16)
    expected = torch.tensor([[high, 0], [low, low], [low, 0]])
    torch.testing.assert_close(found.advantages, expected)
    assert float(found.advantages.sum()) == pytest.approx(0, abs=1e-6)


def test_equal_scores_teach_nothing():
    found = BatchObjective().advantages(rollouts_of([2, 2, 2], torch.zeros(3, 2)), 0.01)
    assert found.advantages.tolist() == [[0, 0]] * 3


def test_a_discount_makes_early_tokens_worth_less():
    found = BatchObjective(gamma=0.5).advantages(rollouts_of([4], torch.zeros(1, 3)), 0.0)
    assert found.returns.tolist() == [[1, 2, 4]]
