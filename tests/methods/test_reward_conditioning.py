"""Binary reward conditioning: its steps and its defaults."""

from alpacafarm_core.methods import METHODS
from alpacafarm_core.weights import Tagged
from tests.methods import defaults_of, steps_of
from tests.paper_farm import START, PaperFarm


def test_its_steps():
    assert steps_of("reward_conditioning") == ["grade(preferences)", "train(sft, grade1)"]


def test_its_policy_answers_behind_the_good_token():
    policy = METHODS["reward_conditioning"]().optimise(PaperFarm(), START)
    assert policy.decode == Tagged(tag=0)


def test_its_defaults_are_alpacafarms():
    source = "AlpacaFarm, SFT10k; its code for this method is not public"
    assert {source} == {said for _, said in defaults_of("reward_conditioning").values()}
    training = METHODS["reward_conditioning"]().objective.training
    assert (training.learning_rate, training.epochs, training.batch) == (2e-5, 3, 128)


def test_two_answers_a_pair_take_as_many_optimiser_steps_as_pairs_do():
    assert METHODS["reward_conditioning"].at("small").objective.training.batch == 2 * 32
