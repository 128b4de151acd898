"""Reward models that learn again from a policy's answers, on the toy: what holds, and when not."""

from collections.abc import Iterator
from functools import cache
from statistics import fmean

import pytest
import torch

from benchmarks.toy_relearning import (
    ARGMAX,
    FIXED,
    RANDOM,
    Found,
    Pairs,
    Toy,
    accuracy,
    answered,
    fitted,
    labelled,
    run,
)

SEEDS, PROMPTS = range(3), 700


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def found(dominated: float) -> list[dict[str, Found]]:
    return [run(seed, Toy(dominated=dominated, prompts=PROMPTS)) for seed in SEEDS]


def mean(name: str, dominated: float = 0.0) -> float:
    return fmean(each[name].accuracy for each in found(dominated))


@pytest.mark.parametrize("dominated", [0.0, 0.1])
def test_where_right_answers_agree_pairs_by_agreement_make_a_better_reward_model(dominated):
    assert mean(ARGMAX, dominated) > mean(FIXED, dominated) + 0.05


def test_where_half_of_the_prompts_have_a_wrong_majority_they_make_a_worse_one():
    assert mean(ARGMAX, 0.5) < mean(FIXED, 0.5)


def test_any_winner_that_agrees_is_better_than_the_one_the_old_model_likes_most():
    assert mean(RANDOM) > mean(ARGMAX) + 0.05
    assert mean(RANDOM) > mean("annotator's labels")


def test_a_models_own_ranking_teaches_it_nothing_good():
    assert mean("own ranking") < mean(FIXED) + 0.01


def test_labels_by_agreement_are_right_and_less_often_so_on_all_prompts():
    for each in found(0.0):
        labels = {name: made.labels for name, made in each.items() if made.labels is not None}
        assert labels[ARGMAX] > 0.98
        assert labels["own ranking"] < labels["all prompts, argmax"] < labels[ARGMAX]


def test_the_chosen_ones_best_of_16_is_right_more_often_than_before():
    for each in found(0.0):
        assert each[FIXED].best < each[ARGMAX].best < each[RANDOM].best


def test_the_old_model_likes_style_because_its_labels_went_with_it():
    draw = torch.Generator().manual_seed(0)
    weights = fitted(labelled(draw))
    answers = answered(Toy(prompts=PROMPTS), 16, draw)
    without = weights.clone()
    without[2] = 0
    assert weights[2] > 0.1
    assert accuracy(without, answers) > accuracy(weights, answers)


def test_a_fit_is_the_best_by_its_loss():
    pairs = Pairs(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]]))
    assert fitted(pairs).abs().item() < 1e-6
    (weight,) = fitted(Pairs(torch.ones(4, 1), torch.zeros(4, 1)))
    slope = 4 * torch.sigmoid(-weight) - weight
    assert slope.abs().item() < 1e-5
