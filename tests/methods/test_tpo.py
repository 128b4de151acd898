"""TPO: its steps, Fixture A of the method notes, identities, limits and gradients."""

import math

import pytest
import torch

from alpacafarm_core.methods.tpo import (
    Triple,
    cross_entropy_of_gold,
    tpo_hinge_loss,
    tpo_ipo_loss,
    tpo_loss,
)
from alpacafarm_core.objective import TripleLogps
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import (
    CHOSEN_LENGTH,
    GOLD,
    GOLD_LENGTH,
    MEAN_GOLD_LENGTH,
    PAIRS,
    REJECTED_LENGTH,
)

TRIPLES = TripleLogps(
    chosen=PAIRS.chosen,
    rejected=PAIRS.rejected,
    chosen_length=CHOSEN_LENGTH,
    rejected_length=REJECTED_LENGTH,
    gold=GOLD,
    mean_gold_length=MEAN_GOLD_LENGTH,
)
STEPS = [
    "fit_reward(sft, preferences)",
    "generate(sft, instructions)",
    "score(generate2, fit_reward1)",
    "rank(score3)",
    "train(base, rank4)",
]


def test_it_trains_the_base_model_without_a_stage_of_imitation_before():
    assert steps_of("tpo") == STEPS


def test_its_defaults_are_the_papers():
    ours = defaults_of("tpo")
    fitting = {name for name in ours if name.startswith("fitting.")}
    drawn, base = "ours: the paper's answers come from a data set", "the authors' settings for base"
    assert {name: ours[name] for name in ours.keys() - fitting} == {
        "sampling.n": (4, drawn),
        "sampling.temperature": (1.0, drawn),
        "sampling.top_p": (1.0, drawn),
        "sampling.max_tokens": (300, drawn),
        "objective.beta": (0.01, f"{base} models"),
        "objective.alpha": (1.0, f"{base} models"),
        "objective.form": ("sigmoid", f"{base} models"),
        "objective.smoothing": (0.0, "the authors' code: off"),
        "objective.training.learning_rate": (5e-7, f"{base} models"),
        "objective.training.epochs": (1, f"{base} models"),
        "objective.training.batch": (128, "ours: not found"),
        "objective.training.warmup": (0.1, f"{base} models"),
        "objective.training.max_length": (1024, f"{base} models"),
    }


@pytest.mark.parametrize(
    ("beta", "expected"), [(0.01, [0.673347, 0.721025]), (0.1, [0.513015, 1.005492])]
)
def test_its_contrast_on_fixture_a(beta, expected):
    assert tpo_loss(TRIPLES, beta, alpha=0).tolist() == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(("beta", "alpha", "total"), [(0.01, 1.0, 2.543340), (0.1, 0.5, 1.682331)])
def test_its_total_on_fixture_a_averages_over_the_gold_tokens_of_the_batch(beta, alpha, total):
    mean = Triple(beta=beta, alpha=alpha).loss(TRIPLES).mean()
    assert float(mean) == pytest.approx(total, abs=5e-7)


def test_a_mean_of_each_sequences_mean_would_be_another_number():
    of_sequences = float((-GOLD / GOLD_LENGTH).mean())
    contrast = float(tpo_loss(TRIPLES, 0.01, alpha=0).mean())
    assert contrast + of_sequences == pytest.approx(2.534686, abs=5e-7)
    assert float(cross_entropy_of_gold(TRIPLES).mean()) == pytest.approx(24 / 13)


def test_without_contrast_it_is_imitation_and_ln_2():
    almost = tpo_loss(TRIPLES, 1e-12, alpha=1.0) - cross_entropy_of_gold(TRIPLES)
    assert almost.tolist() == pytest.approx([math.log(2)] * 2)


def test_with_the_chosen_as_gold_it_is_cpo_with_the_chosen_tokens_cross_entropy():
    same = TRIPLES._replace(gold=PAIRS.chosen, mean_gold_length=torch.full_like(GOLD, 8.5))
    cpo = -torch.nn.functional.logsigmoid(0.1 * (PAIRS.chosen - PAIRS.rejected))
    torch.testing.assert_close(tpo_loss(same, 0.1, alpha=1.0), cpo - PAIRS.chosen / 8.5)
    assert float((-PAIRS.chosen / 8.5).mean()) == pytest.approx(2.058824, abs=5e-7)


def test_smoothing_mixes_in_the_opposite_label():
    swapped = TRIPLES._replace(chosen=PAIRS.rejected, rejected=PAIRS.chosen)
    mixed = 0.9 * tpo_loss(TRIPLES, 0.1, 0) + 0.1 * tpo_loss(swapped, 0.1, 0)
    torch.testing.assert_close(Triple(beta=0.1, alpha=0, smoothing=0.1).loss(TRIPLES), mixed)


def test_the_hinge_is_on_sums_and_ipo_on_means():
    hinge = tpo_hinge_loss(TRIPLES, 0.1, alpha=0)
    assert hinge.tolist() == pytest.approx([0.6, 1.55])  # 1 - 0.1 * 4, 1 + 0.1 * 5.5
    ipo = tpo_ipo_loss(TRIPLES, 1.0, alpha=0)
    assert ipo.tolist() == pytest.approx([(-0.325 - 0.5) ** 2, (1 / 18 - 0.5) ** 2])
    for form, loss in (("hinge", tpo_hinge_loss), ("ipo", tpo_ipo_loss)):
        made = Triple(beta=0.5, form=form).loss(TRIPLES)
        torch.testing.assert_close(
            made, loss(TRIPLES, 0.5, alpha=0) + cross_entropy_of_gold(TRIPLES)
        )


def test_its_gradients_are_those_of_the_formula():
    chosen, gold = PAIRS.chosen.clone().requires_grad_(), GOLD.clone().requires_grad_()
    losses = tpo_loss(TRIPLES._replace(chosen=chosen, gold=gold), 0.1, alpha=0.5)
    losses.mean().backward()
    sigma = torch.sigmoid(-0.1 * (PAIRS.chosen - PAIRS.rejected))
    torch.testing.assert_close(chosen.grad, -0.1 * sigma / 2)
    torch.testing.assert_close(gold.grad, torch.full_like(gold, -0.5 / 13))


def test_the_same_shift_of_both_answers_leaves_its_contrast_alone():
    shifted = TRIPLES._replace(chosen=PAIRS.chosen - 3, rejected=PAIRS.rejected - 3)
    torch.testing.assert_close(tpo_loss(shifted, 0.1, 1.0), tpo_loss(TRIPLES, 0.1, 1.0))
