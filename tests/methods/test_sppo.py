"""SPPO: Fixture A of the method notes, its gradients, its kin, and the game it stands for."""

from math import exp

import pytest
import torch

from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.sppo import (
    SelfPlayWins,
    sppo_hard_loss,
    sppo_loss,
    sppo_single_loss,
)
from alpacafarm_core.objective import WinLogps
from alpacafarm_core.settings import Winning
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS, numbers

WINS = WinLogps(*PAIRS, chosen_win=numbers(0.8, 0.7), rejected_win=numbers(0.2, 0.25))
CERTAIN = WINS._replace(chosen_win=numbers(1, 1), rejected_win=numbers(0, 0))
BEGUN = WINS._replace(ref_chosen=PAIRS.chosen, ref_rejected=PAIRS.rejected)


def test_each_round_answers_new_prompts_and_plays_the_policy_it_starts_from():
    assert steps_of("sppo", rounds=2) == [
        "fit_reward(sft, preferences)",
        "share(instructions, 1, 2)",
        "generate(sft, share2)",
        "compare(generate3, fit_reward1)",
        "rank(compare4)",
        "train(sft, rank5)",
        "share(instructions, 2, 2)",
        "generate(train6, share7)",
        "compare(generate8, fit_reward1)",
        "rank(compare9)",
        "train(train6, rank10)",
    ]


def test_single_counts_the_wins_over_the_rival():
    method = METHODS["sppo"].model_validate({})
    assert method.wins() == Winning(against="all")
    single = method.replace(objective=SelfPlayWins(form="single"))
    assert single.wins() == Winning(against="rival")


def test_its_defaults_are_the_papers():
    ours = defaults_of("sppo")
    fitting = {name for name in ours if name.startswith("fitting.")}
    code = "the authors' code; the paper's text says 1 and 1"
    counted = "the authors' code; the paper's text has pairwise"
    script = "the authors' launch script, there with RMSProp"
    assert {name: ours[name] for name in ours.keys() - fitting} == {
        "rounds": (3, "Wu et al. 2024"),
        "sampling.n": (5, "Wu et al. 2024"),
        "sampling.temperature": (0.7, code),
        "sampling.top_p": (0.9, code),
        "sampling.max_tokens": (300, "AlpacaFarm's longest answer"),
        "winning.probability": ("aggregated", counted),
        "winning.against": ("all", counted),
        "objective.eta": (1000.0, script),
        "objective.form": ("sppo", "Wu et al. 2024"),
        "objective.training.learning_rate": (5e-7, script),
        "objective.training.epochs": (1, script),
        "objective.training.batch": (64, script),
        "objective.training.schedule": ("linear", script),
        "objective.training.warmup": (0.1, script),
        "objective.training.max_length": (1024, script),
    }


@pytest.mark.parametrize(("eta", "expected"), [(10, [3.125, 9.0]), (1000, [89251.625, 51575.625])])
def test_sppo_on_fixture_a(eta, expected):
    assert sppo_loss(WINS, eta).tolist() == pytest.approx(expected)
    assert SelfPlayWins(eta=eta).loss(WINS).tolist() == pytest.approx(expected)


def test_single_on_fixture_a():
    certain = WINS._replace(chosen_win=numbers(0.9, 0.85))
    expected = pytest.approx([159001.625, 123025.625])
    assert sppo_single_loss(certain, 1000).tolist() == expected
    assert SelfPlayWins(form="single").loss(certain).tolist() == expected


def test_hard_on_fixture_a_is_twice_sppo_with_certain_wins():
    assert sppo_hard_loss(WINS, 10).tolist() == pytest.approx([28.25, 66.25])
    torch.testing.assert_close(sppo_hard_loss(WINS, 10), 2 * sppo_loss(CERTAIN, 10))
    torch.testing.assert_close(
        SelfPlayWins(eta=10, form="hard").loss(WINS), sppo_hard_loss(WINS, 10)
    )


def test_at_the_start_of_a_round_the_winner_rises_and_the_loser_falls_by_how_they_win():
    chosen, rejected = (side.clone().requires_grad_() for side in (PAIRS.chosen, PAIRS.rejected))
    begun = BEGUN._replace(chosen=chosen, rejected=rejected)
    sppo_loss(begun, 10).sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-3.0, -2.0])  # -eta (p_w - 1/2)
    assert rejected.grad.tolist() == pytest.approx([3.0, 2.5])
    start = sppo_loss(BEGUN, 10)
    assert start.tolist() == pytest.approx([50 * (0.09 + 0.09), 50 * (0.04 + 0.0625)])


def test_answers_as_good_as_all_others_are_held_where_they_are():
    even = WINS._replace(chosen_win=numbers(0.5, 0.5), rejected_win=numbers(0.5, 0.5))
    assert sppo_loss(even, 10).tolist() == pytest.approx([(1.5**2 + 1) / 2, (1 + 0.5**2) / 2])
    chosen = PAIRS.chosen.clone().requires_grad_()
    begun = even._replace(chosen=chosen, ref_chosen=PAIRS.chosen, ref_rejected=PAIRS.rejected)
    sppo_loss(begun, 10).sum().backward()
    assert chosen.grad.tolist() == [0, 0]


def test_with_certain_wins_the_best_gap_is_eta_as_for_ipo_with_tau_half_of_one_over_eta():
    eta = 7.0
    best = CERTAIN._replace(
        chosen=PAIRS.ref_chosen + eta / 2, rejected=PAIRS.ref_rejected - eta / 2
    )
    assert sppo_loss(best, eta).tolist() == pytest.approx([0, 0])
    gap = (best.chosen - best.ref_chosen) - (best.rejected - best.ref_rejected)
    ipo = (gap - 1 / (2 * (1 / (2 * eta)))) ** 2
    assert ipo.tolist() == pytest.approx([0, 0])
    shifted = best._replace(chosen=best.chosen + 1, rejected=best.rejected + 1)
    assert sppo_loss(shifted, eta).tolist() == pytest.approx([1, 1])  # IPO would still be 0


def weighed(game: list[list[float]], mixed: list[float], eta: float) -> list[float]:
    """One exact step of multiplicative weights: pi(y) exp(eta P(y beats pi)), made to sum to 1."""
    wins = [sum(p * q for p, q in zip(row, mixed, strict=True)) for row in game]
    raised = [q * exp(eta * win) for q, win in zip(mixed, wins, strict=True)]
    return [each / sum(raised) for each in raised]


def exploited(game: list[list[float]], mixed: list[float]) -> float:
    """By how much the best single answer beats the mixture more often than half the time."""
    return max(sum(p * q for p, q in zip(row, mixed, strict=True)) for row in game) - 0.5


def test_in_a_game_that_goes_in_circles_the_average_policy_is_the_solution_and_the_last_is_not():
    game, mixed = [[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]], [0.6, 0.3, 0.1]
    assert exploited(game, mixed) == pytest.approx(0.12)
    summed, rounds = [0.0] * 3, 5000
    for _ in range(rounds):
        summed = [total + each for total, each in zip(summed, mixed, strict=True)]
        mixed = weighed(game, mixed, 0.1)
    average = [total / rounds for total in summed]
    assert average == pytest.approx([0.3344, 0.3249, 0.3407], abs=5e-5)
    assert exploited(game, average) == pytest.approx(0.0038, abs=5e-5)
    assert exploited(game, mixed) > 0.1


def test_where_preferences_follow_rewards_the_last_policy_has_nearly_all_on_the_best():
    rewards = (1, 0, -1)
    game = [[1 / (1 + exp(b - a)) for b in rewards] for a in rewards]
    mixed = [1 / 3] * 3
    for _ in range(20):
        mixed = weighed(game, mixed, 1.0)
    assert mixed == pytest.approx([0.9887, 0.0109, 0.0004], abs=5e-5)
