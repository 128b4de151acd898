"""SPPO: Fixture A of the method notes, its gradients, its kin, and the game it stands for."""

from math import exp, log

import polars as pl
import pytest
import torch
from torch import Tensor

from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.ipo import ipo_loss
from alpacafarm_core.methods.sppo import (
    SelfPlayWins,
    sppo_hard_loss,
    sppo_loss,
    sppo_single_loss,
)
from alpacafarm_core.objective import LengthLogps, WinLogps
from alpacafarm_core.pairs import compared, probable
from alpacafarm_core.settings import Winning
from tests.methods import defaults_of, steps_of
from tests.methods.fixture import PAIRS, numbers, seen
from tests.test_pairs import matrix, scored

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


def test_a_judge_of_two_answers_at_once_takes_the_place_of_the_reward_model():
    assert steps_of("sppo", rounds=1, judge="pairwise") == [
        "fit_pairwise(sft, preferences)",
        "share(instructions, 1, 1)",
        "generate(sft, share2)",
        "compare(generate3, fit_pairwise1)",
        "rank(compare4)",
        "train(sft, rank5)",
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
        "judge": ("reward", "ours: the other methods' judge; the paper has PairRM"),
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
    gaps = seen(LengthLogps, chosen=best.chosen, rejected=best.rejected)
    tau = 1 / (2 * eta)
    assert ipo_loss(gaps, tau).tolist() == pytest.approx([0, 0])
    shifted = best._replace(chosen=best.chosen + 1, rejected=best.rejected + 1)
    assert sppo_loss(shifted, eta).tolist() == pytest.approx([1, 1])
    assert ipo_loss(
        gaps._replace(chosen=shifted.chosen, rejected=shifted.rejected), tau
    ).tolist() == pytest.approx([0, 0])


def payoffs(comparisons: pl.DataFrame) -> Tensor:
    """How probably the answer of a row beats that of a column, [K, K]."""
    told = probable(comparisons, Winning(probability="pairwise"))
    k = told["index"].n_unique()
    return torch.tensor(told.sort("index", "rival")["beats"].to_list()).double().view(k, k)


def played(game: Tensor, mixed: Tensor, eta: float) -> Tensor:
    """The policy after a round in which every answer's log-ratio is brought to what its wins say.

    The loss is a parabola of curvature one in each log-ratio, so one step along its gradient ends
    at its lowest point.
    """
    logps = mixed.log().requires_grad_()
    wins, held = game @ mixed, mixed.log()
    batch = WinLogps(logps, held, held, held, wins, torch.full_like(wins, 0.5))
    (slope,) = torch.autograd.grad(sppo_loss(batch, eta).sum(), logps)
    return torch.softmax(logps.detach() - slope, 0)


def exploited(game: Tensor, mixed: Tensor) -> float:
    """By how much the best single answer beats the mixture more often than half the time."""
    return (game @ mixed).max().item() - 0.5


def test_in_a_game_that_goes_in_circles_the_average_policy_is_the_solution_and_the_last_is_not():
    odds = log(0.9 / 0.1)
    game = payoffs(matrix((0, odds, -odds), (-odds, 0, odds), (odds, -odds, 0)))
    mixed, rounds = torch.tensor([0.6, 0.3, 0.1]).double(), 5000
    assert exploited(game, mixed) == pytest.approx(0.12)
    summed = torch.zeros(3).double()
    for _ in range(rounds):
        summed += mixed
        mixed = played(game, mixed, 0.1)
    average = summed / rounds
    assert average.tolist() == pytest.approx([0.3344, 0.3249, 0.3407], abs=5e-5)
    assert exploited(game, average) == pytest.approx(0.0038, abs=5e-5)
    assert exploited(game, mixed) > 0.1


def test_where_preferences_follow_rewards_the_last_policy_has_nearly_all_on_the_best():
    game = payoffs(compared(scored({"x": 1.0, "y": 0.0, "z": -1.0})))
    mixed = torch.full((3,), 1 / 3).double()
    for _ in range(20):
        mixed = played(game, mixed, 1.0)
    assert mixed.tolist() == pytest.approx([0.9887, 0.0109, 0.0004], abs=5e-5)


def test_a_round_multiplies_each_answer_by_e_to_its_wins():
    game = payoffs(compared(scored({"x": 1.0, "y": 0.0})))
    half = torch.tensor([0.5, 0.5]).double()
    win = 0.5 * 0.5 + 0.5 / (1 + exp(-1))
    assert played(game, half, 4.0)[0].item() == pytest.approx(1 / (1 + exp(4 * (1 - 2 * win))))
