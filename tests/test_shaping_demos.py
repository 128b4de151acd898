"""When a wrong reward is hacked: the toys of `benchmarks/toy_shaping.py`, a seed or two of each."""

import pytest

from benchmarks.toy_shaping import (
    SHAPINGS,
    at_distance,
    bandit,
    descended,
    reinforced,
    shaped_once,
    smoothed,
)


@pytest.mark.parametrize("nats", [1, 3])
def test_at_the_same_distance_bounded_margins_are_worth_more_than_the_raw_reward(nats):
    of = bandit(0)
    gold = {name: at_distance(of, shaped_once(of, r), nats) for name, r in SHAPINGS.items()}
    for affine in ("meanstd", "minmax"):
        assert gold[affine] == pytest.approx(gold["vanilla"], abs=1e-3)
    assert gold["vanilla"] < 0 < gold["par"] < gold["tanh"]
    expected = {1: {"vanilla": -0.35, "lsc": 1.18, "par": 1.14, "tanh": 1.21}}.get(nats, {})
    expected |= {3: {"vanilla": -1.97, "lsc": 0.85, "par": 0.54, "tanh": 1.49}}.get(nats, {})
    for name, said in expected.items():
        assert gold[name] == pytest.approx(said, abs=0.25)


def test_far_enough_from_the_start_par_is_hacked_too():
    of = bandit(0)
    reward = shaped_once(of, SHAPINGS["par"])
    assert at_distance(of, reward, 5) < 0 < at_distance(of, reward, 3)


def test_in_exact_descent_par_is_good_for_longer_and_ends_less_badly():
    runs = {name: descended(bandit(0), SHAPINGS[name]) for name in ("vanilla", "minmax", "par")}
    good = {name: sum(worth >= 1 for worth in run) for name, run in runs.items()}
    assert good["vanilla"] == good["minmax"] == 0 < good["par"]
    assert runs["vanilla"][-1] == pytest.approx(-5, abs=0.01)
    assert runs["par"][-1] > runs["vanilla"][-1] + 2


def test_with_sampled_gradients_vanilla_ends_worse_than_it_began_and_par_better():
    vanilla, par = (reinforced(SHAPINGS[name], 0, whiten=True) for name in ("vanilla", "par"))
    first = vanilla[0]
    proxies = [sum(point.proxy for point in run[-20:]) / 20 for run in (vanilla, par)]
    golds = [smoothed(run) for run in (vanilla, par)]
    assert proxies[0] > 2 * proxies[1] > 4 * first.proxy
    assert golds[0][-1] < first.gold and golds[1][-1] > 2 * first.gold
    lost = [max(gold) - gold[-1] for gold in golds]
    assert lost[1] < lost[0] / 3
