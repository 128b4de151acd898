"""RLOO: its steps, its defaults, and leave-one-out advantages by hand."""

import pytest
import torch
from pydantic import ValidationError

from alpacafarm_core.methods.ppo import PPO
from alpacafarm_core.methods.rloo import RLOO, LeaveOneOutObjective
from alpacafarm_core.settings import Sampling
from alpacafarm_core.train import rl
from tests.methods import defaults_of, steps_of
from tests.methods.sampled import rollouts_of

FOUR = LeaveOneOutObjective(rollouts=4, sampling=Sampling(n=4))


def test_its_steps():
    assert steps_of("rloo") == [
        "fit_reward(sft, preferences)",
        "roll_out(sft, fit_reward1, instructions)",
    ]


def test_its_defaults_and_where_they_are_from():
    found = defaults_of("rloo")
    memory = "Ahmadian et al. 2024, TL;DR, quoted from memory"
    assert (
        found.items()
        >= {
            "objective.steps": (40, "AlpacaFarm's PPO"),
            "objective.rollouts": (512, memory),
            "objective.minibatch": (512, "Ahmadian et al. 2024: on-policy, so all rollouts"),
            "objective.inner_epochs": (1, "Ahmadian et al. 2024: on-policy"),
            "objective.kl.coef": (0.03, memory),
            "objective.kl.estimator": ("k1", "Ahmadian et al. 2024, section 3"),
            "objective.clip": (0.2, "TRL; unused at one step a batch"),
            "objective.shaping.missing_eos": (None, "ours: off"),
            "objective.sampling.n": (4, "Ahmadian et al. 2024, the larger of 2 and 4"),
            "objective.training.learning_rate": (1e-6, memory),
            "objective.training.schedule": ("constant", "ours: constant after warm-up"),
        }.items()
    )
    assert all(source for _, source in found.values())


@pytest.mark.parametrize("scale", ["small", "smoke"])
def test_it_samples_and_learns_as_often_as_ppo(scale):
    ours, theirs = (
        (
            each.steps * each.rollouts,
            each.steps * each.inner_epochs * each.rollouts / each.minibatch,
        )
        for each in (method.at(scale).objective for method in (RLOO, PPO))
    )
    assert ours == theirs


def test_each_answer_is_held_against_the_mean_of_the_others():
    # The others' means are 11/3, 10/3, 3 and 2.
    found = FOUR.advantages(rollouts_of([1, 2, 3, 6], torch.zeros(4, 2)), 0.03).advantages
    for token in found.T:
        assert token.tolist() == pytest.approx([-8 / 3, -4 / 3, 0, 4], abs=1e-6)


def test_the_reward_is_less_the_kl_of_the_whole_response():
    # Two responses, one token of the first strays by 2 nats and one by 3, at 0.1 a nat.
    two = LeaveOneOutObjective(rollouts=2, sampling=Sampling(n=2))
    ratios = torch.tensor([[2.0, 3.0], [0.0, 0.0]])
    found = two.advantages(rollouts_of([1, 1], ratios), 0.1)
    assert found.advantages[:, 0].tolist() == pytest.approx([-0.5, 0.5])
    assert found.kl_price == 0


def test_adding_a_constant_to_the_reward_changes_nothing_and_scaling_it_scales():
    once, shifted, doubled = (
        FOUR.advantages(rollouts_of(scores, torch.zeros(4, 1)), 0.0).advantages
        for scores in ([1, 2, 3, 6], [8, 9, 10, 13], [2, 4, 6, 12])
    )
    torch.testing.assert_close(shifted, once)
    torch.testing.assert_close(doubled, 2 * once)


def test_at_the_first_step_it_is_plain_reinforce():
    logprobs = torch.tensor([[-1.0, -2.0], [-0.5, -0.1]], requires_grad=True)
    advantages = torch.tensor([[2.0, 2.0], [-3.0, -3.0]])
    old = FOUR.compared(logprobs.detach(), logprobs.detach())
    rl.policy_loss(logprobs, old, advantages, FOUR.clip).sum().backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, -advantages)


def test_a_response_is_clipped_as_a_whole():
    # The ratio of the first is e^(0.1 + 0.2), above 1.2; of the second e^0, of the third below 0.8.
    logprobs = torch.tensor([[0.1, 0.2], [0.3, -0.3], [-0.2, -0.2]], requires_grad=True)
    old = FOUR.compared(logprobs.detach(), torch.zeros(3, 2))
    rl.policy_loss(logprobs, old, torch.ones(3, 2), 0.2).sum().backward()
    assert logprobs.grad is not None
    lower = pytest.approx([-0.670320] * 2, abs=1e-6)
    assert logprobs.grad[0].tolist() == [0, 0]
    assert logprobs.grad[1].tolist() == pytest.approx([-1, -1])
    assert logprobs.grad[2].tolist() == lower


def test_one_answer_leaves_no_other_out():
    with pytest.raises(ValidationError, match=r"raise sampling\.n to 2 or more"):
        LeaveOneOutObjective(sampling=Sampling(n=1))
