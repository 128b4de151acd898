"""PPO."""

import pytest
from pydantic import ValidationError

from alpacafarm_core.methods import METHODS
from alpacafarm_core.train.descent import rate
from tests.methods import defaults_of, steps_of

FIRST = "AlpacaFarm's first 40 of 390 steps, in which the rate falls by a tenth"


def test_its_steps():
    assert steps_of("ppo") == [
        "fit_reward(sft, preferences)",
        "roll_out(sft, fit_reward1, instructions)",
    ]


def test_its_defaults_are_the_papers():
    assert defaults_of("ppo") == {
        "fitting.training.learning_rate": (3e-06, "AlpacaFarm's reward model"),
        "fitting.training.epochs": (1, "AlpacaFarm's reward model"),
        "fitting.training.batch": (16, "AlpacaFarm's reward model"),
        "fitting.held_out": (500, "AlpacaFarm's reward model"),
        "fitting.above_length": (True, "AlpacaFarm's reward model"),
        "objective.steps": (40, "AlpacaFarm"),
        "objective.rollouts": (512, "AlpacaFarm"),
        "objective.minibatch": (256, "AlpacaFarm"),
        "objective.inner_epochs": (2, "AlpacaFarm"),
        "objective.kl.coef": (0.0067, "AlpacaFarm, simulated preferences"),
        "objective.kl.estimator": ("k1", "Schulman 2020; AlpacaFarm clamps at 0"),
        "objective.kl.target": (None, "AlpacaFarm"),
        "objective.kl.limit": (100.0, "ours: a run beyond it is lost"),
        "objective.clip": (0.2, "AlpacaFarm"),
        "objective.gamma": (1.0, "AlpacaFarm"),
        "objective.lam": (1.0, "AlpacaFarm"),
        "objective.critic.init": ("reward", "AlpacaFarm"),
        "objective.critic.clip": (0.2, "AlpacaFarm"),
        "objective.critic.coef": (0.1, "AlpacaFarm"),
        "objective.shaping.whiten": (True, "AlpacaFarm"),
        "objective.shaping.missing_eos": (-1.0, "AlpacaFarm's penalty, there off"),
        "objective.shaping.importance_cap": (None, "ours: off"),
        "objective.shaping.over": ("tokens", "ours: AlpacaFarm's means have padding in them"),
        "objective.shaping.together": (None, "ours: AlpacaFarm whitens in each process"),
        "compat": ("none", "ours: off"),
        "objective.sampling.n": (1, "AlpacaFarm"),
        "objective.sampling.temperature": (1.0, "AlpacaFarm"),
        "objective.sampling.top_p": (1.0, "AlpacaFarm"),
        "objective.sampling.max_tokens": (300, "AlpacaFarm"),
        "objective.training.learning_rate": (1e-05, "AlpacaFarm"),
        "objective.training.epochs": (3, "unused"),
        "objective.training.batch": (128, "unused"),
        "objective.training.schedule": ("constant", FIRST),
        "objective.training.warmup": (0.125, FIRST),
        "objective.training.adam_epsilon": (1e-05, "AlpacaFarm"),
    }


def test_its_rates_are_those_of_the_first_40_of_alpacafarms_390_steps_but_for_a_tenth():
    objective = METHODS["ppo"]().objective
    long = objective.training.replace(schedule="linear", warmup=5 / 390)
    for step in range(40):
        theirs = rate(long, step, 390)
        assert theirs <= rate(objective.training, step, objective.steps) <= theirs / 0.9


@pytest.mark.parametrize("name", ["ppo", "grpo", "rloo", "reinforce_pp", "quark"])
def test_answers_that_leave_no_room_for_a_prompt_are_refused_by_both_settings_names(name):
    objective = METHODS[name]().objective
    complaint = "training.max_length 512 leaves no room for a prompt beside sampling.max_tokens 512"
    with pytest.raises(ValidationError, match=complaint):
        objective.replace(sampling=objective.sampling.replace(max_tokens=512))
    assert objective.replace(sampling=objective.sampling.replace(max_tokens=511))
