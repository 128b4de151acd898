"""Sequential tests: a gambler by hand, error rates when looking always, and buying that stops."""

from itertools import product
from math import exp, log
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from alpacafarm_core.deciding import FIRST, Terms, judge_until_decided, next_look
from alpacafarm_core.errors import BadInput, BudgetReached
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.purse import Purse
from alpacafarm_core.sequential import (
    FRACTIONS,
    confidence,
    decided,
    decision_points,
    log_capital,
    worst_case,
)
from tests.test_annotate import Fake, pairs_of, panel_of


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_likely_bounds_lie_within_those_that_are_certain_in_an_unlikely_order_too():
    rng = np.random.default_rng(0)
    for _ in range(200):
        total = int(rng.integers(2, 60))
        values = np.sort(rng.choice([-1.0, 0.0, 1.0], size=int(rng.integers(1, total + 1))))
        likely, certain = confidence(values, 0.2, total), worst_case(values, total)
        assert certain.low <= likely.low <= likely.high <= certain.high


def test_a_gambler_by_hand():
    owned = np.exp(log_capital(np.array([1.0, -1.0, 0.0]), 0.0))
    assert owned[0] == pytest.approx(np.mean([1 + f for f in FRACTIONS]))
    assert owned[1] == owned[2] == pytest.approx(np.mean([1 - f * f for f in FRACTIONS]))


def test_on_average_a_fair_game_makes_no_money():
    games = np.array(list(product((-1.0, 0.0, 1.0), repeat=5)))
    assert np.exp(log_capital(games, 0.0)).mean(axis=0) == pytest.approx(1)


def test_wins_alone_decide_when_the_capital_is_40():
    wins = np.ones(30)
    by_hand = next(n for n in range(1, 30) if np.mean([(1 + f) ** n for f in FRACTIONS]) >= 40)
    assert int(decision_points(wins, 0.05)) == by_hand == 9
    assert int(decision_points(-wins, 0.05)) == -9
    assert (decided(wins[:8]), decided(wins[:9]), decided(-wins)) == (0, 1, -1)
    assert decided(np.array([])) == 0


def test_decided_means_that_the_interval_leaves_zero_out():
    for seed in range(20):
        values = np.random.default_rng(seed).choice([1.0, 0.0, -1.0], 300, p=[0.4, 0.3, 0.3])
        low, high = confidence(values)
        assert decided(values) == (1 if low > 0 else -1 if high < 0 else 0)


def test_looking_always_is_wrong_less_often_than_stated():
    values = np.random.default_rng(0).choice([1.0, 0.0, -1.0], (2000, 805), p=[0.4, 0.2, 0.4])
    assert np.mean(decision_points(values, 0.05) != 0) < 0.05


def test_the_mean_of_all_rows_is_bounded_ever_more_closely():
    values = np.random.default_rng(1).choice([1.0, -1.0], 400, p=[0.6, 0.4])
    everything = float(values.mean())
    for n in (1, 50, 200, 399):
        likely = confidence(values[:n], total=400)
        certain = worst_case(values[:n], 400)
        assert certain.low - 1e-9 <= likely.low <= everything <= likely.high <= certain.high + 1e-9
    assert confidence(values, total=400) == pytest.approx((everything, everything))


def test_bounds_of_the_rest_by_hand():
    assert worst_case(np.array([1.0, 1.0, 0.0]), 10) == ((2 - 7) / 10, (2 + 7) / 10)
    assert confidence(np.array([])) == pytest.approx((-1, 1))


def test_bounds_of_all_rows_hold_in_any_order():
    rows, wrong = np.array([1.0] * 60 + [-1.0] * 40), 0
    for seed in range(200):
        drawn = np.random.default_rng(seed).permutation(rows)[:50]
        low, high = confidence(drawn, alpha=0.2, total=100)
        wrong += not low <= 0.2 <= high
    assert wrong / 200 < 0.2


def test_the_capital_needed_is_two_over_alpha():
    owned = log_capital(np.ones(9), 0.0)
    assert owned[7] < log(2 / 0.05) <= owned[8] and exp(owned[8]) < 80


def test_a_look_comes_after_64_rows_and_then_after_a_quarter_more():
    looks = [0]
    while looks[-1] < 805:
        looks.append(next_look(looks[-1], 805))
    assert looks == [0, 64, 128, 192, 256, 320, 400, 500, 625, 781, 805]


def test_a_clear_case_stops_after_the_first_chunk_and_says_so(ledger):
    fake, pairs = Fake(), pairs_of(400)
    found = judge_until_decided(pairs, panel_of(), fake, ledger)
    assert (found.verdict, found.asked, found.total, found.calls_saved) == (
        "better", FIRST, 400, 400 - FIRST
    )  # fmt: skip
    assert len(fake.requests) == found.preferences.height == found.spending.calls == FIRST
    assert found.is_stopped and found.difference == 50
    assert found.certain == pytest.approx((50 * (2 * FIRST - 400) / 400, 50))
    assert str(found).startswith("better (stopped after 64 of 400 rows, 64 labels): +50.0 points")


def test_the_same_call_again_buys_nothing_and_another_seed_other_rows(ledger):
    fake, pairs = Fake(), pairs_of(200)
    first = judge_until_decided(pairs, panel_of(), fake, ledger)
    again = judge_until_decided(pairs, panel_of(), fake, ledger)
    assert again.preferences.equals(first.preferences) and len(fake.requests) == FIRST
    other = judge_until_decided(pairs, panel_of(), fake, ledger, Terms(seed=1))
    assert set(other.preferences["instruction"]) != set(first.preferences["instruction"])


def test_what_is_never_decided_is_judged_to_the_end(ledger):
    def alternating(shown: list[tuple[str, str]]) -> str:
        longer = 0 if len(shown[0][0]) > len(shown[0][1]) else 1
        number = int(shown[0][0].strip("x"))
        return f"Output ({'ab'[(longer + number) % 2]})"

    found = judge_until_decided(pairs_of(200), panel_of(), Fake(alternating), ledger)
    assert (found.verdict, found.asked, found.calls_saved) == ("undecided", 200, 0)
    assert not found.is_stopped and found.difference == 0
    assert found.likely == pytest.approx((0, 0)) and found.certain == (0, 0)
    assert "undecided (not stopped: 200 of 200 rows" in str(found)


def test_a_rival_that_always_won_too_is_never_beaten(ledger):
    pairs = pairs_of(100)
    same = judge_until_decided(pairs, panel_of(), Fake(), ledger, Terms(rival=rival(pairs, 2.0)))
    assert (same.verdict, same.difference, same.asked) == ("undecided", 0, 100)
    poor = judge_until_decided(pairs, panel_of(), Fake(), ledger, Terms(rival=rival(pairs, 1.0)))
    assert (poor.verdict, poor.difference, poor.asked) == ("better", 100, FIRST)


def rival(pairs: pl.DataFrame, preference: float) -> pl.DataFrame:
    return pairs.select("instruction", "input", preference=pl.lit(preference))


def test_only_prompts_of_the_rival_are_asked(ledger):
    pairs, fake = pairs_of(100), Fake()
    found = judge_until_decided(pairs, panel_of(), fake, ledger, Terms(rival=rival(pairs[:5], 1.0)))
    assert (found.total, len(fake.requests)) == (5, 5)
    with pytest.raises(BadInput, match="none whose prompt the rival"):
        judge_until_decided(pairs, panel_of(), fake, ledger, Terms(rival=rival(pairs[:0], 1.0)))
    with pytest.raises(BadInput, match="100 of 200 rows repeat a prompt"):
        judge_until_decided(pl.concat([pairs, pairs]), panel_of(), fake, ledger)


def test_the_cap_holds_and_more_money_goes_on(ledger):
    fake, pairs = Fake(), pairs_of(300)
    with pytest.raises(BudgetReached):
        judge_until_decided(pairs, panel_of(), fake, ledger, Terms(purse=Purse(5.0)))
    bought = len(fake.requests)
    found = judge_until_decided(pairs, panel_of(), fake, ledger)
    assert 0 < bought < FIRST and found.spending.rows_from_ledger == bought


def test_rows_without_a_verdict_are_asked_but_no_labels(ledger):
    found = judge_until_decided(pairs_of(70), panel_of(), Fake(lambda _: "?"), ledger)
    assert (found.verdict, found.labels, found.asked) == ("undecided", 0, 70)
    assert found.certain == (-50, 50) and found.difference == 0
