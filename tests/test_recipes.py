"""Every method: what it asks of the farm, in order."""

import pytest

from alpacafarm_core.methods import METHODS
from alpacafarm_core.settings import Fitting, Training
from alpacafarm_core.weights import BestOf, Policy
from tests.paper_farm import START, PaperFarm

RECIPES = {
    "sft": ["train(base, demonstrations)"],
    "feedme": ["select(preferences)", "train(sft, select1)"],
    "dpo": ["train(sft, preferences)"],
    "best_of_n": ["fit_reward(sft, preferences)"],
    "ppo": ["fit_reward(sft, preferences)", "roll_out(sft, fit_reward1, instructions)"],
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_method_asks_the_farm_for_the_steps_of_its_paper(name):
    farm = PaperFarm()
    policy = METHODS[name].at("small").optimise(farm, START)
    assert farm.asked == RECIPES[name]
    assert isinstance(policy, Policy)


def test_best_of_n_keeps_the_weights_and_changes_the_decoding():
    policy = METHODS["best_of_n"](n=4).optimise(PaperFarm(), START)
    assert policy.key == START.policy.key
    assert isinstance(policy.decode, BestOf) and policy.decode.n == 4


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_is_settings_that_survive_json(name):
    for scale in ("smoke", "small", "paper"):
        method = METHODS[name].at(scale)
        assert METHODS[name].model_validate_json(method.model_dump_json()) == method


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_seed_reaches_every_seed_of_a_method(name):
    assert '"seed":42' not in METHODS[name]().seeded(7).model_dump_json()


def test_a_seed_that_was_chosen_is_kept():
    chosen = Fitting(training=Training(seed=3)).seeded(7)
    assert (chosen.seed, chosen.training.seed) == (7, 3)
