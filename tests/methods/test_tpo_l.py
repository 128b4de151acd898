"""TPO-L: Fixture A of the method notes, and what lengths do not change."""

import math

import pytest
import torch

from alpacafarm_core.methods.tpo import tpo_loss
from alpacafarm_core.methods.tpo_l import TripleByLength, tpo_l_loss
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import CHOSEN_LENGTH, PAIRS
from tests.methods.test_tpo import STEPS, TRIPLES


def test_its_steps_are_tpos():
    assert steps_of("tpo_l") == STEPS


def test_its_defaults_are_the_papers():
    ours = defaults_of("tpo_l")
    theirs = "the authors' settings for Mistral-7B-v0.3"
    named = ("beta", "gamma", "alpha", "smoothing")
    assert [ours[f"objective.{name}"] for name in named] == [
        (2.0, theirs),
        (1.6, theirs),
        (0.05, theirs),
        (0.0, "the authors' code: off"),
    ]
    assert ours["objective.training.learning_rate"] == (
        5e-7,
        "the authors' settings for base models",
    )
    assert ours["sampling.n"] == (4, "ours: the paper's answers come from a data set")
    assert all(source for _, source in ours.values())


def test_its_contrast_on_fixture_a():
    contrast = TripleByLength(beta=2, gamma=1.6, alpha=0).loss(TRIPLES)
    assert contrast.tolist() == pytest.approx([2.350207, 1.692338], abs=5e-7)
    assert float(contrast.mean()) == pytest.approx(2.021272, abs=5e-7)


@pytest.mark.parametrize(
    ("beta", "gamma", "alpha", "total"), [(2, 1.6, 0.05, 2.113580), (0.01, 0.5, 1, 2.821070)]
)
def test_its_total_on_fixture_a(beta, gamma, alpha, total):
    loss = TripleByLength(beta=beta, gamma=gamma, alpha=alpha).loss(TRIPLES)
    assert float(loss.mean()) == pytest.approx(total, abs=5e-7)


def test_without_imitation_it_is_simpo():
    simpo = TripleByLength(beta=2, gamma=1, alpha=0).loss(TRIPLES)
    assert simpo.tolist() == pytest.approx([1.825674, 1.233267], abs=5e-7)


def test_answers_of_equal_means_are_gamma_apart_from_its_aim():
    equal = TRIPLES._replace(rejected=PAIRS.chosen, rejected_length=CHOSEN_LENGTH)
    loss = TripleByLength(gamma=1.6, alpha=0).loss(equal)
    assert loss.tolist() == pytest.approx([math.log1p(math.exp(1.6))] * 2)


def test_saying_every_token_twice_changes_nothing_and_tpo_a_lot():
    twice = TRIPLES._replace(chosen=2 * PAIRS.chosen, chosen_length=2 * CHOSEN_LENGTH)
    settings = TripleByLength(alpha=0)
    torch.testing.assert_close(tpo_l_loss(twice, settings), tpo_l_loss(TRIPLES, settings))
    assert not torch.allclose(tpo_loss(twice, 0.1, 0), tpo_loss(TRIPLES, 0.1, 0))


def test_smoothing_mixes_in_the_opposite_label():
    plain = TripleByLength(gamma=0, alpha=0)
    swapped = TRIPLES._replace(
        chosen=PAIRS.rejected,
        rejected=PAIRS.chosen,
        chosen_length=TRIPLES.rejected_length,
        rejected_length=CHOSEN_LENGTH,
    )
    mixed = 0.8 * plain.loss(TRIPLES) + 0.2 * plain.loss(swapped)
    torch.testing.assert_close(plain.replace(smoothing=0.2).loss(TRIPLES), mixed)
