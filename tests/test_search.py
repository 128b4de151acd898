"""Best-of-n: worked numbers, and every subset counted."""

from itertools import combinations
from math import nan

import pytest

from alpacafarm_core.errors import TrainingFailed
from alpacafarm_core.search import best, best_of_n_kl, expected_best_of_n

PROXY, GOLD = (0.1, 0.4, 0.2, 0.9), (1.0, 0.0, 3.0, 2.0)


def test_the_first_of_equal_scores_wins():
    assert best([1.0, 3.0, 3.0, 2.0]) == 1
    assert best([-5.0]) == 0


def test_a_score_that_is_no_number_wins_nothing():
    with pytest.raises(TrainingFailed, match="answer 0 of 3 has the score nan"):
        best([nan, 5.0, 6.0])


@pytest.mark.parametrize(
    ("n", "nats"),
    [(1, 0), (2, 0.193147), (4, 0.636294), (16, 1.835089), (128, 3.859843), (1024, 5.932448)],
)
def test_the_kl_of_best_of_n(n, nats):
    assert best_of_n_kl(n) == pytest.approx(nats, abs=1e-6)


@pytest.mark.parametrize(("n", "expected"), [(1, 1.5), (2, 1.5), (3, 1.5), (4, 2.0)])
def test_the_estimate_is_the_mean_over_all_subsets(n, expected):
    every = [max(some, key=PROXY.__getitem__) for some in combinations(range(4), n)]
    assert sum(GOLD[i] for i in every) / len(every) == pytest.approx(expected)
    assert expected_best_of_n(PROXY, GOLD, n) == pytest.approx(expected)


def test_with_gold_as_proxy_more_draws_never_earn_less():
    curve = [expected_best_of_n(GOLD, GOLD, n) for n in range(1, 5)]
    assert curve == sorted(curve) and curve[0] == 1.5 and curve[-1] == 3.0
