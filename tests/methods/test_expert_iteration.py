"""Expert iteration: its steps and its defaults."""

from alpacafarm_core.methods.expert_iteration import ExpertIteration
from tests.methods import defaults_of, steps_of


def test_its_steps():
    assert steps_of("expert_iteration") == [
        "fit_reward(sft, preferences)",
        "generate(sft, instructions)",
        "score(generate2, fit_reward1)",
        "select(score3)",
        "train(sft, select4)",
    ]


def test_a_second_round_answers_with_the_policy_of_the_first_and_goes_on_from_it():
    assert steps_of("expert_iteration", rounds=2)[5:] == [
        "generate(train5, instructions)",
        "score(generate6, fit_reward1)",
        "select(score7)",
        "train(train5, select8)",
    ]


def test_its_defaults_are_alpacafarms():
    drawn = "AlpacaFarm: best of 16 at temperature 1"
    found = defaults_of("expert_iteration")
    assert found["rounds"] == (1, "AlpacaFarm: one round")
    assert found["sampling.n"] == (16, drawn)
    assert found["sampling.temperature"] == (1.0, drawn)
    assert found["sampling.top_p"] == (1.0, drawn)
    assert found["sampling.max_tokens"] == (300, drawn)
    assert all(source for _, source in found.values())
    training = ExpertIteration().objective.training
    assert (training.learning_rate, training.epochs, training.batch) == (2e-5, 3, 128)


def test_on_the_world_it_draws_fewer_and_cooler_answers():
    method = ExpertIteration.at("small")
    assert (method.sampling.n, method.sampling.temperature) == (8, 0.7)
    assert method.objective.training.epochs == 1
