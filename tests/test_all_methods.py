"""What a method used, as the table of budgets counts it."""

import pytest

from alpacafarm_core.methods import METHODS
from benchmarks.all_methods import gradient_steps, own_samples


@pytest.mark.parametrize(
    ("name", "steps", "answers"),
    [
        ("ppo", 80, 1280),  # 20 rounds of 64 answers, twice through two minibatches of 32
        ("grpo", 80, 1280),
        ("reinforce_pp", 80, 1280),
        ("rloo", 80, 1280),  # once through four minibatches of 16
        ("quark", 126, 5376),  # 42 rounds of 128 answers and three steps
    ],
)
def test_a_policy_that_learns_from_its_own_samples_takes_more_steps_than_rounds(
    name, steps, answers
):
    objective = METHODS[name].at("small").objective.model_dump(mode="json")
    assert (gradient_steps(objective), own_samples(objective)) == (steps, answers)


def test_a_last_minibatch_that_is_not_full_is_a_step_too():
    settings = {"steps": 2, "rollouts": 10, "minibatch": 4, "inner_epochs": 3}
    assert gradient_steps(settings) == 18
