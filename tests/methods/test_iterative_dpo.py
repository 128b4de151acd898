"""Iterative DPO: its steps, and where its defaults are from."""

from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.iterative_dpo import IterativeDPO
from tests.methods import defaults_of, steps_of


def test_each_round_answers_new_prompts_and_refreshes_the_reference():
    assert steps_of("iterative_dpo", rounds=2) == [
        "fit_reward(sft, preferences)",
        "share(instructions, 1, 2)",
        "generate(sft, share2)",
        "score(generate3, fit_reward1)",
        "rank(score4)",
        "train(sft, rank5)",
        "share(instructions, 2, 2)",
        "generate(train6, share7)",
        "score(generate8, fit_reward1)",
        "rank(score9)",
        "train(train6, rank10)",
    ]


def test_its_rounds_together_take_the_steps_of_one_dpo():
    method, dpo = IterativeDPO.at("small"), DPO.at("small")
    assert method.objective == dpo and dpo.training.epochs == 1  # a third of the prompts a round


def test_its_defaults_are_the_papers():
    ours = defaults_of("iterative_dpo")
    fitting = {name for name in ours if name.startswith("fitting.")}
    assert {ours[name][1] for name in fitting} == {"AlpacaFarm's reward model recipe"}
    paper = "Dong et al. 2024; their script smooths labels by 0.1"
    drawn = "Dong et al. 2024: 8 answers at temperature 1"
    assert {name: ours[name] for name in ours.keys() - fitting} == {
        "rounds": (3, "Dong et al. 2024"),
        "sampling.n": (8, drawn),
        "sampling.temperature": (1.0, drawn),
        "sampling.top_p": (1.0, drawn),
        "sampling.max_tokens": (300, "AlpacaFarm's longest answer"),
        "objective.beta": (0.1, paper),
        "objective.training.learning_rate": (5e-7, paper),
        "objective.training.epochs": (2, paper),
        "objective.training.batch": (128, paper),
    }
