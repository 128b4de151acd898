"""Best-of-n."""

import pytest

from alpacafarm_core import scoring
from alpacafarm_core.errors import BadInput
from alpacafarm_core.generate import best_of, generate
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.methods import METHODS
from alpacafarm_core.settings import Sampling
from alpacafarm_core.weights import BestOf, RewardModel, Tagged
from tests.methods import defaults_of, steps_of
from tests.paper_farm import START, PaperFarm
from tests.test_training import EXACT
from tests.tiny import demonstrations

QUICK = EXACT.replace(micro_batch=256)


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
        "compat": ("none", "ours: off"),
        "fitting.training.learning_rate": (3e-06, "AlpacaFarm's reward model"),
        "fitting.training.epochs": (1, "AlpacaFarm's reward model"),
        "fitting.training.batch": (16, "AlpacaFarm's reward model"),
        "fitting.held_out": (500, "AlpacaFarm's reward model"),
        "fitting.above_length": (True, "AlpacaFarm's reward model"),
    }


def asked(tiny, scorer, tmp_path, decode, prompts):
    reward = RewardModel(key="0" * 16)
    how = BestOf(reward=reward, temperature=0.8, **decode)
    sampling = Sampling(temperature=0.3, max_tokens=2, seed=5)
    rows, ledger = demonstrations(1)[:prompts], Ledger(tmp_path / "best.sqlite")
    best = best_of((tiny, scorer), rows, (sampling, how), ledger, QUICK)
    drawn = sampling.replace(temperature=0.8, n=how.n)
    return best, generate(tiny, rows, drawn, Ledger(tmp_path / "plain.sqlite"), QUICK)


def test_best_of_one_is_the_policy_at_the_temperature_of_the_draws(tiny, scorer, tmp_path):
    best, plain = asked(tiny, scorer, tmp_path, {"n": 1}, prompts=4)
    assert best["output_ids"].to_list() == plain["output_ids"].to_list()


def test_best_of_1024_is_the_highest_score_of_as_many_draws(tiny, scorer, tmp_path):
    best, plain = asked(tiny, scorer, tmp_path, {"n": 1024}, prompts=1)
    assert (best.height, plain.height) == (1, 1024)
    with scoring.scorer(scorer, QUICK) as judge:
        scores = judge.score(plain)
    # Batches of other rows may change the last bits.
    assert best["score"].item() == pytest.approx(max(scores), abs=1e-5)


def test_a_policy_that_answers_behind_a_reward_token_is_refused():
    tagged = START.replace(policy=START.policy.replace(decode=Tagged()))
    with pytest.raises(BadInput, match="start from a policy that decodes plainly"):
        METHODS["best_of_n"]().optimise(PaperFarm(), tagged)
