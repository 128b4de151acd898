"""RSO: its steps, Fixture A of the method notes, and limits. Its sampling is in test_pairs."""

import math

import pytest
from pydantic import ValidationError

from alpacafarm_core.methods.dpo import dpo_loss
from alpacafarm_core.methods.rso import RSO, Normalised, rso_hinge_loss, rso_sigmoid_loss
from alpacafarm_core.settings import Rejection, Sampling
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS


def test_its_steps():
    assert steps_of("rso") == [
        "fit_reward(sft, preferences)",
        "generate(sft, instructions)",
        "score(generate2, fit_reward1)",
        "rank(score3)",
        "train(sft, rank4)",
    ]


def test_its_defaults_are_the_papers():
    ours = defaults_of("rso")
    fitting = {name for name in ours if name.startswith("fitting.")}
    drawn = "Liu et al. 2023: 64 answers at temperature 0.7, there of 40 tokens"
    trained = "Liu et al. 2023, there with Adafactor and T5"
    assert {name: ours[name] for name in ours.keys() - fitting} == {
        "sampling.n": (64, drawn),
        "sampling.temperature": (0.7, drawn),
        "sampling.top_p": (1.0, drawn),
        "sampling.max_tokens": (300, "AlpacaFarm's longest answer"),
        "rejection.keep": (8, "Liu et al. 2023"),
        "rejection.beta": (0.5, "Liu et al. 2023"),
        "rejection.copies": (True, "ours: the paper's listing has equal answers once"),
        "objective.gamma": (0.05, "Liu et al. 2023"),
        "objective.form": ("sigmoid", "Liu et al. 2023: sigmoid-norm"),
        "objective.training.learning_rate": (1e-5, trained),
        "objective.training.epochs": (1, "ours: the paper picks a checkpoint"),
        "objective.training.batch": (32, trained),
    }


@pytest.mark.parametrize("keep", [8, 9])
def test_keeping_as_many_as_are_drawn_is_refused(keep):
    refusal = f"rejection.keep {keep} of sampling.n 8 rejects nothing; lower rejection.keep"
    with pytest.raises(ValidationError, match=refusal):
        RSO(sampling=Sampling(n=8), rejection=Rejection(keep=keep))


def test_the_hinge_on_fixture_a():
    assert rso_hinge_loss(PAIRS, 0.5).tolist() == pytest.approx([0, 1.75])
    assert Normalised(gamma=0.5, form="hinge").loss(PAIRS).tolist() == pytest.approx([0, 1.75])


def test_the_sigmoid_is_dpo_with_gamma_for_beta():
    assert rso_sigmoid_loss(PAIRS, 0.1).tolist() == dpo_loss(PAIRS, 0.1).tolist()
    assert Normalised(gamma=0.1).loss(PAIRS).tolist() == dpo_loss(PAIRS, 0.1).tolist()


def test_where_policy_and_reference_agree():
    same = PAIRS._replace(ref_chosen=PAIRS.chosen, ref_rejected=PAIRS.rejected)
    assert rso_sigmoid_loss(same, 0.1).tolist() == pytest.approx([math.log(2)] * 2)
    assert rso_hinge_loss(same, 0.1).tolist() == [1.0, 1.0]


def test_the_hinge_pulls_with_gamma_until_the_margin_is_there_and_then_not_at_all():
    chosen = PAIRS.chosen.clone().requires_grad_()
    rso_hinge_loss(PAIRS._replace(chosen=chosen), 0.5).sum().backward()
    assert chosen.grad.tolist() == [0, -0.5]
