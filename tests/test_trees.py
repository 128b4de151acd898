"""Tree search without a model: scores by hand, who survives, what trees find in small worlds."""

import math

import pytest
import torch

from alpacafarm_core.errors import BadInput, TrainingFailed
from alpacafarm_core.trees import (
    WEIGHTINGS,
    Branching,
    Budget,
    PrefixLogps,
    Pruning,
    offspring,
    partial_scores,
    random_score,
    segments,
    survivors,
)
from benchmarks.toy_trees import Bigram, Found, Late, Noise, best_normal, of_bigrams, searched

ROWS = [
    [0.5, -0.2, 0.1, 0.4],
    [0.8, 0.0, 0.0, 0.0],
    [0.0, 0.3, 0.3, 0.3],
    [0.6, 0.2],
    [0.3, 0.3, 0.3, 0.3],
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def prefixes(ratios: list[list[float]], pads: int = 0, reference: float = -1.0) -> PrefixLogps:
    """Branches with these log-ratios; `pads` columns more hold values that mean nothing."""
    longest = max(map(len, ratios)) + pads
    mask = torch.tensor([[at < len(row) for at in range(longest)] for row in ratios])
    lr = torch.tensor([row + [9.0] * (longest - len(row)) for row in ratios]).double()
    ref = torch.full_like(lr, reference)
    return PrefixLogps(ref + lr, ref, mask)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("dpo_sum", [0.8, 0.8, 0.9, 0.8, 1.2]),
        ("weighted", [0.533333, 0.8, 0.325, 0.7, 0.625]),
        ("dpo_mean", [0.2, 0.2, 0.225, 0.4, 0.3]),
        ("exp_decay", [0.5 - 0.1 + 0.025 + 0.05, 0.8, 0.2625, 0.7, 0.5625]),
    ],
)
def test_partial_scores_of_the_worked_log_ratios(kind, expected):
    found = partial_scores(prefixes(ROWS), kind, decay=0.5)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_scores_without_a_reference_are_the_log_probability_and_its_mean():
    found = prefixes(ROWS)
    assert partial_scores(found, "dpo_logp").tolist() == pytest.approx(
        [0.8 - 4, 0.8 - 4, 0.9 - 4, 0.8 - 2, 1.2 - 4]
    )
    assert partial_scores(found, "simpo").tolist() == pytest.approx(
        [0.2 - 1, 0.2 - 1, 0.225 - 1, 0.4 - 1, 0.3 - 1]
    )


@pytest.mark.parametrize("kind", WEIGHTINGS)
def test_columns_of_padding_change_no_score(kind):
    plain = partial_scores(prefixes(ROWS), kind, 0.9)
    assert partial_scores(prefixes(ROWS, pads=7), kind, 0.9).tolist() == plain.tolist()


@pytest.mark.parametrize(("sums", "means"), [("dpo_sum", "dpo_mean"), ("dpo_logp", "simpo")])
def test_sum_and_mean_select_alike_while_no_branch_has_ended(sums, means):
    draw = torch.Generator().manual_seed(0)
    lr = torch.randn(64, 9, generator=draw).double()
    equal = PrefixLogps(lr - 1, torch.full_like(lr, -1.0), torch.ones_like(lr, dtype=torch.bool))
    by_sum, by_mean = (partial_scores(equal, kind).tolist() for kind in (sums, means))
    assert survivors(by_sum, 16) == survivors(by_mean, 16)


def test_a_branch_that_ended_early_is_ranked_otherwise_by_sum_and_mean():
    by_sum, by_mean = (
        partial_scores(prefixes(ROWS[2:4]), kind).tolist() for kind in ("dpo_sum", "dpo_mean")
    )
    assert (survivors(by_sum, 1), survivors(by_mean, 1)) == ([0], [1])


@pytest.mark.parametrize("kind", ["weighted", "dpo_sum", "exp_decay", "dpo_mean"])
def test_a_policy_that_is_its_own_reference_keeps_the_first_branches(kind):
    same = prefixes([[0.0] * 5] * 8)
    assert survivors(partial_scores(same, kind, 0.9).tolist(), 2) == [0, 1]


def test_only_ranks_matter():
    scores = partial_scores(prefixes(ROWS), "weighted").tolist()
    for increasing in (lambda s: 3 * s - 7, math.exp, lambda s: s**3):
        assert survivors(list(map(increasing, scores)), 2) == survivors(scores, 2) == [1, 3]


def test_of_equal_scores_the_lower_index_survives():
    assert survivors([0.1, 0.7, 0.7, 0.2, 0.7], 2) == [1, 2]
    assert survivors([1.0, 1.0], 9) == [0, 1]


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(TrainingFailed, match="branch 1 of 2 has the partial score nan"):
        survivors([0.0, float("nan")], 1)


def test_a_random_score_is_the_seeds_alone():
    assert random_score(7) == random_score(7) != random_score(8)
    found = [random_score(seed) for seed in range(2000)]
    assert min(found) >= 0 and max(found) < 1
    assert sum(found) / 2000 == pytest.approx(0.5, abs=0.02)


def test_the_first_segments_take_the_remainder():
    assert segments(384, 4) == [96] * 4
    assert segments(10, 4) == [3, 3, 2, 2]
    assert segments(5, 5) == [1] * 5
    assert segments(72, 1) == [72]


def test_more_layers_than_tokens_are_refused_by_name():
    with pytest.raises(BadInput, match=r"layers 5 of max_tokens 4 .* raise max_tokens"):
        segments(4, 5)


def test_children_that_do_not_divide_the_width_are_refused_by_name():
    with pytest.raises(ValueError, match="children 5 does not divide width 128"):
        Branching(children=5)


def test_the_papers_tree_has_32_survivors():
    assert Branching().survivors == 32
    assert Branching().pruning == Pruning(width=128, children=4)


def test_every_survivor_grows_as_many_children():
    assert offspring([False] * 4, Pruning(width=16, children=4)) == [4] * 4


def test_a_finished_survivor_grows_none_and_its_other_slots_stay_empty():
    grown = offspring([False, True, False, True], Pruning(width=16, children=4))
    assert grown == [4, 0, 4, 0]


def test_refilled_slots_go_in_turn_to_the_best_that_still_grow():
    refilled = Pruning(width=16, children=4, refill_finished=True)
    assert offspring([False, True, False, True], refilled) == [7, 0, 7, 0]
    assert offspring([True, False, False, False], refilled) == [0, 5, 5, 5]
    assert offspring([False, False, True, False], refilled) == [5, 5, 0, 5]
    assert offspring([True] * 4, refilled) == [0] * 4


def test_budgets_add_up():
    total = Budget(10, 4, 30, 0).plus(Budget(5, 0, 0, 8))
    assert total == Budget(sampled_tokens=15, partial_scores=4, scored_tokens=30, reward_calls=8)


def answers(toy: Bigram, branches: int, tokens: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    return toy.grow(torch.zeros(1, branches, 0, dtype=torch.long), tokens, draw)


def values_along(toy: Bigram, branches: torch.Tensor) -> torch.Tensor:
    """V of every prefix, the empty one first, [N, K + 1]: what is earned, and the rest's worth."""
    earned = torch.stack([toy.reward(branches[..., :k]) for k in range(1, branches.shape[-1] + 1)])
    last = branches[0].T
    ahead = torch.stack([toy.values[k + 1][last[k]] for k in range(len(last))])
    return torch.cat([toy.values[0, 0].expand(1, last.shape[1]), earned[:, 0] + ahead]).T


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_the_summed_log_ratio_is_the_soft_value_of_the_prefix_up_to_a_constant(beta):
    toy = Bigram(0, beta=beta)
    for tokens in (1, 7, 24):
        branches = answers(toy, 50, tokens)
        value = values_along(toy, branches)
        summed = beta * partial_scores(toy.logps(branches), "dpo_sum")
        torch.testing.assert_close(summed, value[:, -1] - value[:, 0], atol=1e-12, rtol=0)


def test_the_weighted_score_is_a_mean_of_soft_values_that_counts_the_first_token_for_half():
    toy = Bigram(1)
    for tokens in (2, 7, 24):
        branches = answers(toy, 50, tokens)
        value = values_along(toy, branches)
        shares = [1 / (k * (k + 1)) for k in range(1, tokens)] + [1 / tokens]
        assert sum(shares) == pytest.approx(1, abs=1e-12) and shares[0] == 0.5
        mean = (value[:, 1:] * torch.tensor(shares, dtype=torch.double)).sum(1)
        weighted = partial_scores(toy.logps(branches), "weighted")
        torch.testing.assert_close(weighted, mean - value[:, 0], atol=1e-12, rtol=0)


def test_noise_of_the_log_ratio_adds_up_in_the_sum_and_hardly_in_the_weighted_score():
    noise = torch.randn(20_000, 96, generator=torch.Generator().manual_seed(0)).double()
    known = PrefixLogps(noise, torch.zeros_like(noise), torch.ones_like(noise, dtype=torch.bool))
    assert float(partial_scores(known, "dpo_sum").var()) == pytest.approx(96, rel=0.05)
    assert float(partial_scores(known, "weighted").var()) == pytest.approx(1.6346, rel=0.05)


def test_the_mean_likelihood_ratio_of_drawn_prefixes_is_one():
    toy = Bigram(2)
    for tokens in (1, 3, 6):
        ratios = partial_scores(toy.logps(answers(toy, 20_000, tokens)), "dpo_sum").exp()
        assert abs(float(ratios.mean()) - 1) < 4 * float(ratios.std()) / 20_000**0.5


def test_the_expected_best_of_normals():
    found = [best_normal(n) for n in (4, 8, 16, 64)]
    assert found == pytest.approx([1.02938, 1.42360, 1.76599, 2.34373], abs=1e-5)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(2, [2.498, 2.861, 3.151, 3.381, 3.532]), (4, [3.520, 4.880, 5.879, 6.584, 7.072])],
)
def test_a_tree_on_white_noise_finds_what_is_known(layers, expected):
    for children, known in zip((1, 2, 4, 8, 16), expected, strict=True):
        tree = Branching(width=16, children=children, layers=layers, partial="dpo_sum")
        draw = torch.Generator().manual_seed(0)
        found = Found.of(searched(Noise(layers), tree, 1000, draw))
        assert found.mean == pytest.approx(known, abs=4 * found.error + 0.02)


def in_errors(tree: Branching, noise: float) -> float:
    """Paired difference to best-of-32 on the same bigram models, in standard errors."""
    plain = of_bigrams(Branching(width=32, layers=1), noise, models=3, runs=40)
    gap = Found.of(of_bigrams(tree, noise, models=3, runs=40) - plain)
    return gap.mean / gap.error


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("partial", ["weighted", "dpo_sum"])
def test_at_equal_tokens_a_tree_is_above_best_of_n_while_the_ranking_knows_something(
    partial, noise
):
    assert in_errors(Branching(width=32, layers=4, partial=partial), noise) > 4


def test_a_tree_that_is_pruned_at_random_is_below_best_of_n():
    assert in_errors(Branching(width=32, layers=4, partial="random"), 0.0) < -3


def test_the_gain_goes_where_the_ranking_is_noise():
    exact = in_errors(Branching(width=32, layers=4), 0.0)
    assert in_errors(Branching(width=32, layers=4), 3.0) < exact / 3


def test_where_reward_comes_late_ranking_by_the_reward_so_far_is_worse_than_no_tree():
    draw = torch.Generator().manual_seed(0)
    none = Found.of(searched(Late(), Branching(width=16, layers=1), 300, draw))
    found = {
        kind: Found.of(searched(Late(), Branching(width=16, partial=kind), 300, draw))
        for kind in ("rm_prefix", "weighted", "dpo_sum", "random")
    }
    assert found["rm_prefix"].mean < none.mean - 4 * none.error
    assert found["random"].mean < none.mean - 4 * none.error
    for kind in ("weighted", "dpo_sum"):
        assert found[kind].mean > 1.8 * none.mean
