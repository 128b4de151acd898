"""GRPO: its steps, its defaults, and advantages within a group by hand."""

import pytest
import torch
from pydantic import ValidationError

from alpacafarm_core.methods.grpo import GRPO, GroupObjective
from alpacafarm_core.methods.ppo import PPO
from alpacafarm_core.proximal import KLPenalty
from alpacafarm_core.settings import Sampling
from tests.methods import defaults_of, steps_of
from tests.methods.sampled import rollouts_of

FIVE = GroupObjective(rollouts=5, epsilon=1e-9, sampling=Sampling(n=5))
FIXTURE = [1.0, 2, 4, 5, 8]


def test_its_steps():
    assert steps_of("grpo") == [
        "fit_reward(sft, preferences)",
        "roll_out(sft, fit_reward1, instructions)",
    ]


def test_its_defaults_are_the_papers():
    found = defaults_of("grpo")
    paper, trl = "DeepSeekMath, 4.2", "TRL; not in the paper"
    assert (
        found.items()
        >= {
            "objective.steps": (40, "AlpacaFarm's PPO"),
            "objective.rollouts": (1024, paper),
            "objective.minibatch": (1024, paper),
            "objective.inner_epochs": (1, paper),
            "objective.kl.coef": (0.04, paper),
            "objective.kl.estimator": ("k3", "DeepSeekMath, eq. 4"),
            "objective.clip": (0.2, "Schulman et al. 2017; not in the paper"),
            "objective.spread": ("sample", "TRL; the paper does not say"),
            "objective.epsilon": (1e-4, trl),
            "objective.average": ("response", "DeepSeekMath, eq. 3"),
            "objective.shaping.missing_eos": (None, "ours: off"),
            "objective.sampling.n": (64, paper),
            "objective.sampling.temperature": (1.0, trl),
            "objective.training.learning_rate": (1e-6, paper),
            "objective.training.schedule": ("constant", "ours: constant; not in the paper"),
        }.items()
    )
    assert all(source for _, source in found.values())


def test_at_small_it_samples_and_learns_as_often_as_ppo():
    ours, theirs = (steps.objective for steps in (GRPO.at("small"), PPO.at("small")))
    for name in ("steps", "rollouts", "minibatch", "inner_epochs", "training"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_advantages_of_the_fixture():
    found = FIVE.advantages(rollouts_of(FIXTURE, torch.zeros(5, 2)), 0.04)
    expected = [-1.095445, -0.730297, 0, 0.365148, 1.460593]
    for token in found.advantages.T:
        assert token.tolist() == pytest.approx(expected, abs=5e-7)
    assert found.kl_price == 0.04


def test_a_squashed_reward_has_other_advantages():
    squashed = torch.sigmoid(torch.tensor(FIXTURE) - 4).tolist()
    found = FIVE.advantages(rollouts_of(squashed, torch.zeros(5, 1)), 0.0).advantages[:, 0]
    expected = [-1.077482, -0.897001, 0.060497, 0.641485, 1.272501]
    assert found.tolist() == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(("scale", "shift"), [(3.0, 7.0), (0.5, -2.0)])
def test_scaling_and_shifting_the_reward_changes_nothing(scale, shift):
    one, other = (
        FIVE.advantages(rollouts_of(scores, torch.zeros(5, 1)), 0.0).advantages
        for scores in (FIXTURE, [scale * score + shift for score in FIXTURE])
    )
    torch.testing.assert_close(one, other)


def test_kl_is_left_to_the_loss():
    strayed = FIVE.advantages(rollouts_of(FIXTURE, torch.full((5, 2), 3.0)), 0.04)
    stayed = FIVE.advantages(rollouts_of(FIXTURE, torch.zeros(5, 2)), 0.04)
    assert torch.equal(strayed.advantages, stayed.advantages)


def test_padding_has_no_advantage():
    mask = torch.tensor([[1.0, 1], [1, 0], [1, 1], [1, 0], [1, 1]])
    found = FIVE.advantages(rollouts_of(FIXTURE, torch.zeros(5, 2), mask), 0.0).advantages
    assert found[1, 1] == 0 and found[3, 1] == 0 and found[4, 1] == found[4, 0]


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        ({"sampling": Sampling(n=1)}, "raise sampling.n"),
        ({"rollouts": 10, "sampling": Sampling(n=4)}, "multiple of sampling.n, 4"),
        ({"kl": KLPenalty(estimator="k1")}, "take k3 or k2"),
        ({"average": "mean"}, "average"),
        ({"epsilon": 0.0}, "epsilon"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, mend):
    with pytest.raises(ValidationError, match=mend):
        GroupObjective(**settings)
