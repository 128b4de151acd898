"""ASFT: Fixture A in every form, its gradients, its limits, and what it shares with ORPO."""

import math

import pytest
import torch
from torch import Tensor

from alpacafarm_core.methods.asft import ASFT, align_loss, asft_loss
from alpacafarm_core.methods.orpo import orpo_loss
from alpacafarm_core.objective import MeanLogps
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import numbers, seen


def of_means(chosen: Tensor, rejected: Tensor) -> MeanLogps:
    """One token a response, so that sums are means."""
    one = torch.ones_like(chosen)
    return MeanLogps(chosen, rejected, one, one)


def test_its_steps():
    assert steps_of("asft") == ["train(base, preferences)"]
    aligned = {"start": "sft", "imitation": 0.0, "beta": 0.1}
    assert steps_of("asft", **aligned) == ["train(sft, preferences)"]


def test_its_defaults_and_where_they_are_from():
    comparison = "arXiv 2502.01237, one stage"
    assert defaults_of("asft") == {
        "beta": (1.0, "Wang et al. 2024: one"),
        "lam": (1.0, "arXiv 2502.01237, best of four"),
        "imitation": (1.0, "Wang et al. 2024"),
        "start": ("base", "Wang et al. 2024"),
        "training.learning_rate": (6e-6, comparison),
        "training.epochs": (1, comparison),
        "training.batch": (128, comparison),
        "training.schedule": ("linear", comparison),
        "training.clip": (2.0, comparison),
    }


def test_aligning_on_fixture_a():
    align = align_loss(seen(MeanLogps), beta=1.0)
    assert align.tolist() == pytest.approx([2.366474, 2.136991], abs=5e-7)
    tempered = ASFT(imitation=0, beta=0.1).loss(seen(MeanLogps))
    assert tempered.tolist() == pytest.approx([1.414052, 1.391983], abs=5e-7)


def test_one_stage_on_fixture_a():
    whole = ASFT().loss(seen(MeanLogps))
    assert whole.tolist() == pytest.approx([4.566474, 4.136991], abs=5e-7)
    assert float(whole.mean()) == pytest.approx(4.351732, abs=1e-6)
    tenth = ASFT(lam=0.1).loss(seen(MeanLogps))
    assert tenth.tolist() == pytest.approx([2.436647, 2.213699], abs=5e-7)


def test_the_push_on_the_rejected_is_its_odds_and_the_pull_on_the_chosen_is_one():
    chosen = numbers(-2.2, -2.0).requires_grad_()
    rejected = numbers(-1.875, -18.5 / 9).requires_grad_()
    align_loss(of_means(chosen, rejected), 1.0).sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-1, -1])
    assert rejected.grad.tolist() == pytest.approx([0.181133, 0.146818], abs=5e-7)


def test_two_even_responses_are_two_ln_2():
    even = numbers(math.log(0.5))
    assert float(align_loss(of_means(even, even), 1.0)) == pytest.approx(1.386294, abs=5e-7)


def test_a_beta_near_zero_teaches_nothing():
    chosen = numbers(-2.2, -2.0).requires_grad_()
    loss = align_loss(of_means(chosen, numbers(-1.875, -2)), 1e-9)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([2 * math.log(2)] * 2)
    assert chosen.grad.tolist() == pytest.approx([0, 0], abs=1e-8)


@pytest.mark.parametrize("lam", [0.1, 1.0])
def test_with_an_impossible_rejected_response_it_is_sft_times_one_and_lam(lam):
    chosen = numbers(-2.2, -0.3)
    loss = asft_loss(of_means(chosen, numbers(-800, -800)), lam, 1.0, 1.0)
    torch.testing.assert_close(loss, -(1 + lam) * chosen)


@pytest.mark.parametrize("lam", [0.1, 0.5, 1.0])
def test_orpo_is_asft_plus_the_probability_that_just_one_of_two_is_said(lam):
    torch.manual_seed(0)
    p, q = torch.rand(2, 100, dtype=torch.float64).clamp(1e-3, 1 - 1e-3)
    means = of_means(p.log(), q.log())
    orpo, asft = orpo_loss(means, lam), asft_loss(means, lam, 1.0, 1.0)
    torch.testing.assert_close(orpo, asft + lam * (p * (1 - q) + q * (1 - p)).log())
    assert (orpo <= asft).all()


def test_what_the_rejected_response_is_does_not_matter_to_the_chosen():
    gradients = []
    for rejected in (numbers(-15, -18.5), numbers(-1, -400)):
        chosen = numbers(-11, -24).requires_grad_()
        ASFT().loss(seen(MeanLogps, chosen=chosen, rejected=rejected)).sum().backward()
        gradients.append(chosen.grad.tolist())
    assert gradients[0] == gradients[1]


def test_empty_and_certain_responses_have_a_loss_and_a_gradient():
    """No tokens at all, and tokens of probability one, in the precision of a training."""
    chosen = torch.tensor([0.0, 0.0, -11.0]).requires_grad_()
    rejected = torch.tensor([0.0, -8.0, 0.0]).requires_grad_()
    lengths = torch.tensor([0.0, 5.0, 5.0]), torch.tensor([0.0, 4.0, 4.0])
    loss = ASFT().loss(MeanLogps(chosen, rejected, *lengths))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert chosen.grad.isfinite().all() and rejected.grad.isfinite().all()
    assert (loss[[0, 2]] > 10).all() and loss[1].item() == pytest.approx(0.145, abs=1e-3)
