"""Quark: its steps, its defaults, its quantiles and its loss."""

import math
from statistics import NormalDist

import pytest
import torch
from pydantic import ValidationError

from alpacafarm_core.conditioning import ConditionedLogps
from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.quark import quark_loss
from alpacafarm_core.quantiles import quantiles, quantiles_within
from alpacafarm_core.settings import Lora, Sampling, Training
from alpacafarm_core.weights import Plain, Tagged
from tests.methods import defaults_of, steps_of
from tests.paper_farm import START, PaperFarm

LOGPS = ConditionedLogps(
    logprobs=torch.tensor([[-1.0, -2.0]]),
    kl=torch.tensor([[0.5, 1.0]]),
    entropies=torch.tensor([[2.0, 3.0]]),
    mask=torch.ones(1, 2),
)


def test_its_steps():
    assert steps_of("quark") == [
        "fit_reward(sft, preferences)",
        "roll_out(sft, fit_reward1, instructions)",
    ]


def test_only_a_policy_with_reward_tokens_answers_behind_the_best_one():
    quark = METHODS["quark"]
    assert quark().optimise(PaperFarm(), START).decode == Plain()
    assert quark(train_on="all").optimise(PaperFarm(), START).decode == Tagged(tag=0)


def test_its_defaults_are_alpacafarms():
    found = {where: value for where, (value, _) in defaults_of("quark").items()}
    expected = {
        "steps": 390,
        "rollouts": 512,
        "minibatch": 256,
        "gradient_steps": 1,
        "quantiles": 4,
        "train_on": "best",
        "scope": "pool",
        "keep_pool": False,
        "kl_coef": 0.05,
        "entropy_coef": 0.0,
        "missing_eos": -1.0,
        "mean_over": "tokens",
        "sampling.temperature": 1.0,
        "sampling.max_tokens": 300,
        "training.learning_rate": 3e-6,
        "training.schedule": "linear",
        "training.adam_epsilon": 1e-5,
    }
    assert expected.items() <= found.items()
    assert all(source for _, source in defaults_of("quark").values())


def test_its_warm_up_is_five_steps():
    method = METHODS["quark"]()
    assert math.ceil(method.training.warmup * method.steps) == 5


def test_at_equal_budget_it_takes_about_as_many_optimiser_steps_as_a_pass_over_the_pairs():
    small = METHODS["quark"].at("small")
    assert small.steps * small.gradient_steps == 126
    assert small.rollouts // small.quantiles == small.minibatch == 32


def test_quantiles_are_equal_and_the_worst_takes_what_is_left():
    assert quantiles([5.0, 9.0, 1.0, 7.0, 3.0, 8.0, 2.0, 6.0, 4.0, 0.0], 4) == [
        *(2, 0, 3, 1, 3, 0, 3, 1, 2, 3)
    ]


def test_of_equal_rewards_the_earlier_one_is_the_better_one():
    assert quantiles([1.0, 1.0, 1.0, 1.0], 2) == [0, 0, 1, 1]


def test_quantiles_are_over_the_whole_pool_unless_they_are_told_to_stay_within_a_prompt():
    scores, prompts = [9.0, 8.0, 2.0, 1.0], ["easy", "easy", "hard", "hard"]
    assert quantiles(scores, 2) == [0, 0, 1, 1]
    assert quantiles_within(scores, prompts, 2) == [0, 1, 0, 1]


@pytest.mark.parametrize(("number", "mean"), [(4, 1.271106), (5, 1.399810), (2, 0.797885)])
def test_the_best_quantile_of_normal_rewards_has_the_mean_of_a_cut_off_normal(number, mean):
    many = 100_000
    rewards = [NormalDist().inv_cdf((i + 0.5) / many) for i in range(many)]
    best = [r for r, place in zip(rewards, quantiles(rewards, number), strict=True) if place == 0]
    assert sum(best) / len(best) == pytest.approx(mean, abs=2e-5)
    cut = NormalDist().inv_cdf(1 - 1 / number)
    assert NormalDist().pdf(cut) * number == pytest.approx(mean, abs=1e-6)


def test_quark_on_a_hand_example():
    found = quark_loss(LOGPS, kl_coef=0.2, entropy_coef=0.1)
    assert found[0].tolist() == pytest.approx([1 + 0.1 - 0.2, 2 + 0.2 - 0.3])


def test_without_prices_quark_is_the_cross_entropy():
    assert quark_loss(LOGPS, kl_coef=0.0, entropy_coef=0.0)[0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"rollouts": 3}, "rollouts 3 cannot be cut into 4 quantiles"),
        ({"scope": "prompt"}, "sampling.n 1 cannot be cut into 4 quantiles"),
        ({"sampling": Sampling(n=3)}, "rollouts 512 are no multiple of sampling.n 3"),
        (
            {"train_on": "all", "training": Training(lora=Lora())},
            "reward tokens are learned with all weights",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, complaint):
    with pytest.raises(ValidationError, match=complaint):
        METHODS["quark"](**settings)
