"""Best-of-n."""

from alpacafarm_core.methods import METHODS
from alpacafarm_core.weights import BestOf
from tests.methods import defaults_of, steps_of
from tests.paper_farm import START, PaperFarm


def test_its_steps():
    assert steps_of("best_of_n") == ["fit_reward(sft, preferences)"]


def test_it_keeps_the_weights_and_changes_the_decoding():
    policy = METHODS["best_of_n"](n=4).optimise(PaperFarm(), START)
    assert policy.key == START.policy.key
    assert isinstance(policy.decode, BestOf) and policy.decode.n == 4


def test_its_defaults_are_the_papers():
    assert defaults_of("best_of_n") == {
        "n": (16, "AlpacaFarm: the peak of its simulated curve"),
        "temperature": (1.0, "AlpacaFarm"),
        "top_p": (1.0, "the whole distribution; AlpacaFarm's helper took 0.9"),
        "fitting.training.learning_rate": (3e-06, "AlpacaFarm's reward model"),
        "fitting.training.epochs": (1, "AlpacaFarm's reward model"),
        "fitting.training.batch": (16, "AlpacaFarm's reward model"),
        "fitting.held_out": (500, "AlpacaFarm's reward model"),
        "fitting.above_length": (True, "AlpacaFarm's reward model"),
    }
