"""DPO with a likelihood term: Fixture A, and whose mean the likelihood is."""

import pytest
import torch

from alpacafarm_core.methods.dpo import dpo_loss
from alpacafarm_core.methods.rpo import RPO, rpo_loss
from alpacafarm_core.objective import LengthLogps
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS, seen


def test_its_steps():
    assert steps_of("rpo") == ["train(sft, preferences)"]


def test_its_defaults_are_the_papers():
    paper = "Pang et al. 2024, section 3"
    assert defaults_of("rpo") == {
        "beta": (0.1, paper),
        "alpha": (1.0, paper),
        "training.learning_rate": (7e-7, paper),
        "training.epochs": (1, "one pass; the paper counts steps"),
        "training.batch": (16, paper),
    }


def test_rpo_on_fixture_a():
    """DPO plus alpha times 35 / 17 nats a token, in the mean over the batch."""
    small = rpo_loss(seen(LengthLogps), beta=0.1, alpha=0.001)
    assert float(small.mean()) == pytest.approx((0.577998 + 0.773016) / 2, abs=5e-7)
    whole = RPO().loss(seen(LengthLogps))
    assert float(whole.mean()) == pytest.approx((0.575939 + 0.770957) / 2 + 2.058824, abs=1e-6)


def test_the_likelihood_is_a_mean_over_tokens_and_not_over_responses():
    term = rpo_loss(seen(LengthLogps), 0.1, 1.0) - dpo_loss(PAIRS, 0.1)
    assert float(term.mean()) == pytest.approx(35 / 17)
    assert float(term.mean()) != pytest.approx((11 / 5 + 24 / 12) / 2, abs=1e-3)


def test_the_weight_is_on_the_likelihood_and_not_on_dpo():
    assert float(rpo_loss(seen(LengthLogps), 0.1, 0.001)[0]) < 0.6


def test_without_its_term_rpo_is_dpo():
    torch.testing.assert_close(rpo_loss(seen(LengthLogps), 0.1, 0.0), dpo_loss(PAIRS, 0.1))


def test_every_chosen_token_is_pulled_by_alpha_over_the_batchs_tokens():
    chosen = PAIRS.chosen.clone().requires_grad_()
    pairs = seen(LengthLogps, chosen=chosen)
    (rpo_loss(pairs, 0.1, 1.0) - dpo_loss(pairs, 0.1)).mean().backward()
    assert chosen.grad.tolist() == pytest.approx([-1 / 17, -1 / 17])
