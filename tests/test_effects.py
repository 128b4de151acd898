"""What the methods do on the toy: mechanisms, by paired differences over worlds.

Levels are asserted nowhere, nor which of two methods of one kind is better; see docs/effects.md.
"""

from functools import cache
from itertools import pairwise

import pytest
import torch

from benchmarks import toy_scans as scans
from benchmarks.toy_farm import Toy
from benchmarks.toy_runs import Run, in_toy, paced, run
from benchmarks.toy_world import GROUPS, Answers, drawn, expected_gold, first_tables, gold

TOY = Toy(worlds=3, pairs=256, steps=150)
"""Half the labels, prompts and steps of the published tables."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def found(name: str) -> Run:
    """The method on three worlds."""
    return run(in_toy(name), paced(name, TOY))


def everywhere(condition: torch.Tensor) -> bool:
    assert condition.shape == (TOY.worlds,)
    return bool(condition.all())


def rising(*numbers: torch.Tensor) -> bool:
    return all(everywhere(low < high) for low, high in pairwise(numbers))


def test_the_reward_a_policy_expects_is_the_mean_over_its_answers():
    _, policy = first_tables([0, 1])
    worlds = torch.tensor([0, 1]).repeat_interleave(40_000)
    groups = torch.arange(len(worlds)) % GROUPS
    draw = torch.Generator().manual_seed(0)
    answers = Answers(worlds, groups, *drawn(policy[worlds, groups], 1.0, draw))
    means = gold(answers).view(2, -1).mean(1)
    torch.testing.assert_close(expected_gold(policy), means, atol=0.005, rtol=0)


def test_imitating_the_chosen_answers_helps_and_dpo_helps_more():
    assert rising(found("feedme").start, found("feedme").gold, found("dpo").gold)


def test_dpo_tells_answers_apart_and_still_makes_the_chosen_ones_less_likely():
    (stage,) = found("dpo").stages
    assert rising(stage.rejected, stage.chosen, torch.zeros(TOY.worlds))


@pytest.mark.parametrize("name", ["ipo", "simpo", "rso", "ppo", "grpo", "rloo", "reinforce_pp"])
def test_the_other_losses_and_the_online_methods_improve_on_the_start(name):
    assert everywhere(found(name).gain > 0)


def test_orpo_makes_the_chosen_answers_likelier():
    assert everywhere(found("orpo").gain > 0)
    assert everywhere(found("orpo").stages[0].chosen > 0)


def test_asft_makes_chosen_answers_likelier_and_rejected_ones_less_likely():
    (stage,) = found("asft").stages
    assert everywhere(found("asft").gain > 0)
    assert rising(stage.rejected, torch.zeros(TOY.worlds), stage.chosen)


def test_sppo_rises_round_by_round_and_raises_the_winner_each_time():
    played = scans.sppo_by_gold(TOY)
    assert rising(played.start, *(stage.gold for stage in played.stages))
    for stage in played.stages:
        assert rising(stage.rejected, torch.zeros(TOY.worlds), stage.chosen)


def test_a_larger_eta_gains_more_and_up_to_10_the_winner_gets_likelier():
    by_eta = dict(scans.sppo_by_eta(TOY, (1.0, 10.0, 1000.0)))
    assert rising(*(by_eta[eta].gain for eta in (1.0, 10.0, 1000.0)))
    for eta in (1.0, 10.0):
        assert everywhere(by_eta[eta].stages[0].chosen > 0)


def test_drift_keeps_its_signal_and_spin_loses_it():
    drift, spin = scans.drift_rounds(TOY), scans.spin_rounds(TOY)
    rounds = drift.stages[1:]
    assert rising(*(stage.gold for stage in drift.stages))
    assert everywhere(rounds[-1].grad_norm >= rounds[0].grad_norm)
    assert all(everywhere(stage.margin > 0) for stage in rounds)
    assert rising(spin.gold, drift.gold)
    assert rising(spin.stages[-1].grad_norm, spin.stages[0].grad_norm)


def test_tpo_gains_over_imitation_and_raises_its_gold_answer_only_if_that_weighs_enough():
    imitation = scans.tpo_without_contrast(TOY)
    by_alpha = dict(scans.tpo_by_alpha(TOY, (1.0, 0.0)))
    assert rising(imitation.gold, by_alpha[1.0].gold)
    zero = torch.zeros(TOY.worlds)
    assert rising(by_alpha[0.0].stages[0].imitated, zero, by_alpha[1.0].stages[0].imitated)


def test_own_labels_carry_on_what_128_labels_taught_and_nothing_where_those_were_coins():
    ((_, taught),) = scans.selfie_by_labels(TOY, (128,))
    ((_, coins),) = scans.selfie_by_labels(TOY, (128,), flip=0.5)
    gained, gained_from_coins = (each.gold - each.stages[0].gold for each in (taught, coins))
    assert everywhere(gained > 0)
    assert rising(gained_from_coins, gained)
    assert everywhere(taught.stages[1].right > 0.6)
    assert rising(coins.stages[1].right, taught.stages[1].right)


def test_curry_dpo_gains_and_hard_pairs_alone_gain_less():
    curriculum, hard = (scans.curry_dpo(TOY, order).gain for order in ((-1, 3, 2), (2, 2, 2)))
    assert rising(torch.zeros(TOY.worlds), hard, curriculum)


def test_wrong_labels_cost_dpo_more_the_more_there_are():
    gains = [each.gain for _, each in scans.by_flips(TOY, "dpo")]
    assert rising(*reversed(gains))


def test_the_reward_model_of_best_of_n_orders_most_fresh_pairs():
    assert everywhere(scans.reward_accuracy(TOY) > 0.8)


def test_best_of_n_rises_with_n_by_its_reward_model_and_in_truth():
    sizes = (1, 2, 4, 8)
    by_model = [many for _, many in scans.best_of(TOY, sizes)]
    by_truth = [many for _, many in scans.best_of(TOY, sizes, judge="gold")]
    assert rising(*(many.proxy for many in by_model))
    assert rising(*(many.gold for many in by_model))
    for proxy, oracle in zip(by_model, by_truth, strict=True):
        assert everywhere(proxy.gold <= oracle.gold + 1e-6)


@pytest.mark.parametrize("name", ["quark", "expert_iteration"])
def test_imitating_ones_own_best_answers_beats_imitating_the_chosen_ones(name):
    assert rising(found("feedme").gold, found(name).gold)
