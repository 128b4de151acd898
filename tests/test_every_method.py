"""Every method from end to end on the smoke world: a policy that answers, made once."""

import os

import pytest

from alpacafarm_core.methods import METHODS
from alpacafarm_core.setup import Setup
from alpacafarm_core.store import Store
from flows.evaluate import answered
from flows.leaderboard import methods_named
from flows.optimise import optimised

SMOKE = Setup(scale="smoke")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One store for all methods, so that what they have in common is made once."""
    root = tmp_path_factory.mktemp("every")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALPACAFARM_STORE", str(root))
        yield Store(root)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_makes_a_policy_that_answers(name, shared):
    assert os.environ["ALPACAFARM_STORE"] == str(shared.root)
    (method,) = methods_named([name], SMOKE)
    policy = optimised(method, SMOKE)
    answers = shared.read(answered(policy, SMOKE))
    assert answers.height == SMOKE.sizes.eval
    assert answers["output_ids"].list.len().min() > 0
    events = len(shared.journal())
    assert answered(optimised(method, SMOKE), SMOKE).key
    assert [event["stage"] for event in shared.journal()[events:] if event["ran"]] == []


def test_what_methods_share_was_made_once(shared):
    """Candidates, labels, the reward model and what the reference makes of the labelled pairs."""
    before = len(shared.journal())
    for name in ("dpo", "ipo", "kto", "best_of_n", "ppo"):
        (method,) = methods_named([name], SMOKE)
        optimised(method, SMOKE)
    made = [event for event in shared.journal() if event["ran"]]
    by_stage = {each: [e["artifact"] for e in made if e["stage"] == each] for each in STAGES}
    for stage, artifacts in by_stage.items():
        assert len(artifacts) == len(set(artifacts)), stage
    asked = shared.journal()[before:]
    for stage in ("annotate", "fit_reward"):
        assert len({each["artifact"] for each in asked if each["stage"] == stage}) == 1, stage


STAGES = ("generate", "annotate", "fit_reward", "score", "look", "train_policy")
