"""Quark: its steps, its defaults, its quantiles and its loss."""

import math
from statistics import NormalDist

import pytest
import torch
from pydantic import ValidationError

from alpacafarm_core.conditioning import ConditionedLogps, Sorting
from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.quark import QuarkObjective, quark_loss
from alpacafarm_core.proximal import ProximalObjective
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
    assert METHODS["quark"]().optimise(PaperFarm(), START).decode == Plain()
    tagged = METHODS["quark"](objective=QuarkObjective(sorting=Sorting(train_on="all")))
    assert tagged.optimise(PaperFarm(), START).decode == Tagged(tag=0)


def test_its_defaults_are_alpacafarms():
    found = {where: value for where, (value, _) in defaults_of("quark").items()}
    expected = {
        "objective.steps": 390,
        "objective.rollouts": 512,
        "objective.minibatch": 256,
        "objective.gradient_steps": 1,
        "objective.sorting.quantiles": 4,
        "objective.sorting.train_on": "best",
        "objective.sorting.scope": "pool",
        "objective.sorting.keep_pool": False,
        "objective.sorting.missing_eos": -1.0,
        "objective.kl_coef": 0.05,
        "objective.entropy_coef": 0.0,
        "objective.mean_over": "tokens",
        "objective.sampling.temperature": 1.0,
        "objective.sampling.max_tokens": 300,
        "objective.training.learning_rate": 3e-6,
        "objective.training.schedule": "linear",
        "objective.training.adam_epsilon": 1e-5,
    }
    assert expected.items() <= found.items()
    assert all(source for _, source in defaults_of("quark").values())


def test_its_warm_up_is_five_steps():
    objective = METHODS["quark"]().objective
    assert math.ceil(objective.training.warmup * objective.steps) == 5


@pytest.mark.parametrize("unused", ["epochs", "batch"])
def test_settings_that_its_loop_does_not_read_say_so(unused):
    assert defaults_of("quark")[f"objective.training.{unused}"][1] == "unused"


@pytest.mark.parametrize("kind", [QuarkObjective, Sorting, ProximalObjective])
def test_no_settings_have_more_than_twelve_fields(kind):
    assert len(kind.model_fields) <= 12


def test_at_equal_budget_it_takes_about_as_many_optimiser_steps_as_a_pass_over_the_pairs():
    small = METHODS["quark"].at("small").objective
    assert small.steps * small.gradient_steps == 126
    assert small.rollouts // small.sorting.quantiles == small.minibatch == 32


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
        ({"sorting": Sorting(scope="prompt")}, "sampling.n 1 cannot be cut into 4 quantiles"),
        ({"sampling": Sampling(n=3)}, "make them a multiple of sampling.n, 3"),
        (
            {"sorting": Sorting(train_on="all"), "training": Training(lora=Lora())},
            "reward tokens are learned with all weights",
        ),
        (
            {"sorting": Sorting(train_on="all"), "training": Training(max_length=301)},
            "training.max_length 301 leaves no room",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, complaint):
    with pytest.raises(ValidationError, match=complaint):
        QuarkObjective(**settings)
