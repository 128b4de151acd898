"""SPIN: Fixture A of the method notes, its steps, and DPO in other words."""

import math

import pytest

from alpacafarm_core.methods.dpo import dpo_loss
from alpacafarm_core.methods.spin import SelfPlay, spin_loss
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS


def test_each_round_plays_against_the_policy_of_the_round_before():
    assert steps_of("spin", rounds=2) == [
        "generate(sft, demonstrations)",
        "prefer(demonstrations, generate1)",
        "train(sft, prefer2)",
        "generate(train3, demonstrations)",
        "prefer(demonstrations, generate4)",
        "train(train3, prefer5)",
    ]


def test_its_defaults_are_the_papers():
    code, trained = "SPIN's code, there up to 256 tokens", "SPIN's code, there with RMSProp"
    assert defaults_of("spin") == {
        "rounds": (4, "Chen et al. 2024: iterations 0 to 3"),
        "sampling.n": (1, code),
        "sampling.temperature": (1.0, code),
        "sampling.top_p": (1.0, code),
        "sampling.max_tokens": (300, code),
        "objective.lam": (0.1, "Chen et al. 2024"),
        "objective.training.learning_rate": (5e-7, trained),
        "objective.training.epochs": (3, trained),
        "objective.training.batch": (64, trained),
        "objective.training.schedule": ("linear", trained),
        "objective.training.warmup": (0.1, trained),
        "objective.training.max_length": (1024, trained),
    }


def test_spin_on_fixture_a():
    assert spin_loss(PAIRS, 0.1).tolist() == pytest.approx([0.575939, 0.770957], abs=5e-7)
    assert SelfPlay().loss(PAIRS).tolist() == spin_loss(PAIRS, 0.1).tolist()


def test_on_the_same_pairs_it_is_dpo():
    assert spin_loss(PAIRS, 0.3).tolist() == dpo_loss(PAIRS, 0.3).tolist()


def test_every_round_begins_at_ln_2():
    begun = PAIRS._replace(ref_chosen=PAIRS.chosen, ref_rejected=PAIRS.rejected)
    assert spin_loss(begun, 0.1).tolist() == pytest.approx([math.log(2)] * 2)
