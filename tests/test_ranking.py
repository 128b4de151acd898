"""Rankings: the paper's two columns, and values one can work by hand."""

import pytest

from alpacafarm_core.errors import BadInput
from alpacafarm_core.ranking import agreement

# Win rates of arXiv 2305.14387, table 2: simulated and human, with standard errors.
PAPER = {
    "GPT-4": ((79.0, 1.4), (69.8, 1.6)),
    "ChatGPT": ((61.4, 1.7), (52.9, 1.7)),
    "PPO": ((46.8, 1.8), (55.1, 1.7)),
    "Best-of-n": ((45.0, 1.7), (50.7, 1.8)),
    "Expert iteration": ((41.9, 1.7), (45.7, 1.7)),
    "SFT 52k": ((39.2, 1.7), (40.7, 1.7)),
    "SFT 10k": ((36.7, 1.7), (44.3, 1.7)),
    "Binary FeedME": ((36.6, 1.7), (37.9, 1.7)),
    "Davinci001": ((24.4, 1.5), (32.5, 1.6)),
    "LLaMA 7B": ((11.3, 1.1), (6.5, 0.9)),
}


def test_the_papers_columns_agree_as_it_says():
    found = agreement(list(PAPER), *zip(*PAPER.values(), strict=True))
    assert (round(found.spearman, 3), round(found.r2, 3)) == (0.976, 0.871)
    assert set(found.swaps) == {("ChatGPT", "PPO"), ("SFT 52k", "SFT 10k")}
    (low, high), (r2_low, r2_high) = found.spearman_interval, found.r2_interval
    assert 0.85 < low < found.spearman and high <= 1 and r2_low < found.r2 < r2_high


def test_the_same_order_is_one_and_the_reverse_minus_one():
    up = [(1.0, None), (2.0, None), (5.0, None)]
    same = agreement("abc", up, [(10.0, None), (11.0, None), (12.0, None)])
    assert same.spearman == pytest.approx(1) and same.swaps == []
    assert same.spearman_interval is None
    turned = agreement("abc", up, up[::-1])
    assert turned.spearman == pytest.approx(-1)
    assert turned.swaps == [("c", "b"), ("c", "a"), ("b", "a")]


def test_equal_rates_share_a_rank_and_swap_nothing():
    found = agreement("abc", [(1, None), (1, None), (2, None)], [(1, None), (2, None), (3, None)])
    assert found.spearman == pytest.approx(0.866, abs=1e-3) and found.swaps == []


def test_two_models_are_no_ranking():
    with pytest.raises(BadInput, match="give three"):
        agreement("ab", [(1, None)] * 2, [(1, None)] * 2)
