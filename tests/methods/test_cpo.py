"""CPO: Fixture A, and whose mean the likelihood is."""

import math

import pytest

from alpacafarm_core.methods.cpo import CPO, cpo_loss
from alpacafarm_core.objective import ContrastLogps
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS, seen


def test_its_steps():
    assert steps_of("cpo") == ["train(sft, preferences)"]


def test_its_defaults_and_where_they_are_from():
    script = "Xu et al. 2024; the authors' script"
    recipe = "AlpacaFarm's DPO recipe; the paper trains translators' adapters"
    assert defaults_of("cpo") == {
        "beta": (0.1, script),
        "alpha": (1.0, "Xu et al. 2024"),
        "training.learning_rate": (1e-6, recipe),
        "training.epochs": (1, script),
        "training.batch": (64, recipe),
    }


def test_the_contrast_on_fixture_a():
    contrast = cpo_loss(seen(ContrastLogps), beta=0.1, alpha=0)
    assert contrast.tolist() == pytest.approx([0.513015, 1.005492], abs=5e-7)


def test_the_whole_loss_adds_a_mean_over_the_batchs_tokens_and_not_over_responses():
    whole = float(CPO().loss(seen(ContrastLogps)).mean())
    contrast = (0.513015 + 1.005492) / 2
    assert whole == pytest.approx(contrast + 2.058824, abs=1e-6)
    assert whole != pytest.approx(contrast + (11 / 5 + 24 / 12) / 2, abs=1e-3)


def test_equal_scores_are_ln_2():
    same = seen(ContrastLogps, rejected=PAIRS.chosen)
    assert cpo_loss(same, 0.1, 0).tolist() == pytest.approx([math.log(2)] * 2)


def test_the_pull_on_the_chosen_is_beta_by_how_wrong_the_order_is():
    chosen = PAIRS.chosen.clone().requires_grad_()
    cpo_loss(seen(ContrastLogps, chosen=chosen), beta=0.1, alpha=0).sum().backward()
    wrong = [1 / (1 + math.exp(0.1 * gap)) for gap in (4, -5.5)]
    assert chosen.grad.tolist() == pytest.approx([-0.1 * each for each in wrong])
