"""PPO's arithmetic: numbers by hand, a naive loop, and padding that changes nothing."""

import math
import statistics

import pytest
import torch
from torch import Tensor

from alpacafarm_core.train import rl

MASK = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])


def naive_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Sum over l of (gamma lam)^l delta_(t+l), each term written out in float64."""
    ahead = [*values[1:], 0.0]
    deltas = [r + gamma * v1 - v for r, v1, v in zip(rewards, ahead, values, strict=True)]
    return [
        sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, len(deltas)))
        for t in range(len(deltas))
    ]


@pytest.mark.parametrize(
    ("pi", "k1", "k3", "clamped"),
    [((0.7, 0.3), 0.0822829, 0.0822829, 0.2355306), ((0.95, 0.05), 0.4946319, 0.4946319, None)],
)
def test_kl_estimators_have_their_expectations(pi, k1, k3, clamped):
    policy = torch.tensor(pi, dtype=torch.float64)
    reference = torch.full((2,), 0.5, dtype=torch.float64)
    for name, expected in (("k1", k1), ("k3", k3), ("clamped", clamped)):
        found = (policy * rl.kl(policy.log(), reference.log(), name)).sum()
        assert expected is None or float(found) == pytest.approx(expected, abs=1e-7)


def test_k3_is_never_negative_and_k1_is_signed():
    d = torch.linspace(-3, 3, 13)
    assert bool((rl.kl(d, torch.zeros(13), "k3") >= 0).all())
    torch.testing.assert_close(rl.kl(d, torch.zeros(13), "k1"), d)
    assert bool((rl.kl(d, torch.zeros(13), "clamped")[d < 0] == 0).all())


def ragged(seed: int) -> tuple[list[list[float]], Tensor, Tensor]:
    """Rows of numbers as lists, and the same padded with nonsense, in float64, with its mask."""
    draw = torch.Generator().manual_seed(seed)
    lengths = [5, 1, 3, 8]
    padded = torch.randn(len(lengths), max(lengths), generator=draw, dtype=torch.float64)
    rows = [row[:length].tolist() for row, length in zip(padded, lengths, strict=True)]
    steps = torch.arange(max(lengths))
    return rows, padded, (steps < torch.tensor(lengths)[:, None]).double()


KL_OF = {
    "k1": lambda d: d,
    "k2": lambda d: d * d / 2,
    "k3": lambda d: math.exp(-d) + d - 1,
    "clamped": lambda d: max(d, 0.0),
}


@pytest.mark.parametrize("name", KL_OF)
def test_kl_equals_a_loop_over_tokens_in_float64(name):
    (ours, logprobs, mask), (theirs, ref_logprobs, _) = ragged(1), ragged(2)
    found = rl.kl(logprobs, ref_logprobs, name) * mask
    for row, one, other in zip(found, ours, theirs, strict=True):
        expected = [KL_OF[name](a - b) for a, b in zip(one, other, strict=True)]
        assert row[: len(one)].tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("keep_mean", [True, False])
def test_whitening_equals_a_loop_over_tokens_in_float64(keep_mean):
    rows, padded, mask = ragged(3)
    tokens = [value for row in rows for value in row]
    mean, spread = statistics.fmean(tokens), statistics.pstdev(tokens)
    white = rl.whiten(padded, mask, keep_mean)
    for row, found in zip(rows, white, strict=True):
        expected = [(v - mean) / (spread + 1e-8) + (mean if keep_mean else 0.0) for v in row]
        assert found[: len(row)].tolist() == pytest.approx(expected, rel=1e-12)
        assert not found[len(row) :].any()


def test_masked_moments_leave_padding_out():
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, -99.0, 99.0]])
    mask = torch.tensor([[1.0, 1, 0], [1, 0, 0]])
    assert float(rl.masked_mean(values, mask)) == 2.0
    assert float(rl.masked_variance(values, mask)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("keep_mean", "mean"), [(True, 2.0), (False, 0.0)])
def test_whitening_is_over_real_tokens_and_keeps_the_mean_on_demand(keep_mean, mean):
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, -99.0, 99.0]])
    mask = torch.tensor([[1.0, 1, 0], [1, 0, 0]])
    white = rl.whiten(values, mask, keep_mean)
    spread = math.sqrt(1.5)
    expected = torch.tensor([[mean - spread, mean, 0], [mean + spread, 0, 0]])
    torch.testing.assert_close(white, expected)


def test_the_score_lands_on_the_last_token_less_the_penalty():
    ratios, mask = torch.tensor([[0.2, -0.1, 0.4, 7.0]]), torch.tensor([[1.0, 1, 1, 0]])
    rewards = rl.place_rewards(torch.tensor([0.8]), ratios, mask, 0.005)
    torch.testing.assert_close(rewards, torch.tensor([[-0.001, 0.0005, 0.798, 0]]))
    returns = rl.estimate_advantages(rewards, torch.zeros(1, 4), mask, 1.0, 1.0).returns
    torch.testing.assert_close(returns, torch.tensor([[0.7975, 0.7985, 0.798, 0]]))


def test_unfinished_responses_get_the_penalty_instead_of_their_score():
    scores, finished = torch.tensor([3.0, 2.0]), torch.tensor([True, False])
    assert rl.finished_scores(scores, finished, -1.0).tolist() == [3.0, -1.0]
    assert rl.finished_scores(scores, finished, None).tolist() == [3.0, 2.0]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.8), (1.0, 0.0)])
def test_gae_equals_a_naive_loop_on_padded_rows(gamma, lam):
    noise = torch.Generator().manual_seed(0)
    rewards = torch.randn(3, 4, generator=noise, dtype=torch.float64)
    values = torch.randn(3, 4, generator=noise, dtype=torch.float64)
    found = rl.estimate_advantages(rewards, values, MASK.double(), gamma, lam)
    for row, length in enumerate(MASK.sum(1).long().tolist()):
        expected = naive_gae(
            rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, lam
        )
        assert found.advantages[row, :length].tolist() == pytest.approx(expected, abs=1e-12)
        assert found.advantages[row, length:].abs().sum() == 0
    real = MASK.bool()
    torch.testing.assert_close(found.returns[real], (found.advantages + values)[real])


def test_with_lam_1_returns_do_not_depend_on_the_values():
    rewards = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    one, other = (
        rl.estimate_advantages(rewards, v, MASK, 1.0, 1.0).returns
        for v in (torch.zeros(3, 4), torch.ones(3, 4))
    )
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [(1.0, 2.0, -2.0), (1.5, 2.0, -2.4), (0.5, 2.0, -1.0), (1.5, -2.0, 3.0), (0.5, -2.0, 1.6)],
)
def test_the_policy_loss_is_clipped_on_the_side_that_would_gain(ratio, advantage, loss):
    found = rl.policy_loss(
        torch.tensor(math.log(ratio)), torch.tensor(0.0), torch.tensor(advantage), 0.2
    )
    assert float(found) == pytest.approx(loss, abs=1e-6)


def test_the_policy_loss_pushes_up_what_was_better_than_expected():
    logprobs = torch.zeros(2, requires_grad=True)
    rl.policy_loss(logprobs, torch.zeros(2), torch.tensor([1.0, -1.0]), 0.2).sum().backward()
    assert logprobs.grad is not None and logprobs.grad.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(("value", "loss"), [(0.0, 0.5), (0.1, 0.405), (0.9, 0.32), (1.0, 0.32)])
def test_the_value_loss_takes_the_worse_of_plain_and_clipped(value, loss):
    found = rl.value_loss(torch.tensor(value), torch.tensor(0.0), torch.tensor(1.0), 0.2)
    assert float(found) == pytest.approx(loss)


@pytest.mark.parametrize(
    ("nats", "coef"), [(6.0, 0.1), (60.0, 0.102), (0.0, 0.098), (6.6, 0.101), (5.4, 0.099)]
)
def test_the_kl_coefficient_moves_by_2_percent_at_most(nats, coef):
    assert rl.adapted(0.1, nats, 6.0) == pytest.approx(coef)
    assert rl.adapted(0.1, nats, None) == 0.1


def test_explained_variance_is_1_for_a_perfect_critic_and_0_for_a_constant_one():
    returns = torch.tensor([[1.0, 2.0, 3.0, 77.0]])
    mask = torch.tensor([[1.0, 1, 1, 0]])

    def explained(values: Tensor) -> float:
        return float(rl.explained_variance(values, returns, mask))

    assert explained(returns) == 1.0
    assert explained(torch.zeros(1, 4)) == 0.0
    assert explained(-returns) == pytest.approx(-3.0)
    assert float(rl.explained_variance(returns, torch.ones(1, 4), mask)) == 0.0


def test_the_clip_fraction_counts_real_tokens_only():
    logprobs = torch.tensor([[0.0, 0.3, -0.3, 5.0]])
    mask = torch.tensor([[1.0, 1, 1, 0]])
    assert float(rl.clip_fraction(logprobs, torch.zeros(1, 4), mask, 0.2)) == pytest.approx(2 / 3)


def test_more_padding_changes_nothing():
    noise = torch.Generator().manual_seed(2)
    rewards, values = torch.randn(2, 3, 4, generator=noise)

    def lesson(extra: int) -> list[Tensor]:
        wide = [torch.nn.functional.pad(t, (0, extra)) for t in (rewards, values, MASK)]
        wide[0][:, 4:] = 50.0
        found = rl.estimate_advantages(*wide, 1.0, 0.95)
        return [rl.whiten(part, wide[2], keep_mean=False)[:, :4] for part in found]

    for one, other in zip(lesson(0), lesson(3), strict=True):
        torch.testing.assert_close(one, other)


GROUPS = torch.tensor([1.0, 2, 4, 5, 8, 3, 3, 3, 3, 3])


@pytest.mark.parametrize(
    ("spread", "deviation"), [("sample", math.sqrt(7.5)), ("population", math.sqrt(6)), ("none", 1)]
)
def test_a_group_is_held_against_its_own_mean(spread, deviation):
    found = rl.in_group(GROUPS, 5, spread, 1e-9).tolist()
    assert found[:5] == pytest.approx([away / deviation for away in (-3, -2, 0, 1, 4)], abs=1e-6)


@pytest.mark.parametrize("spread", ["sample", "population", "none"])
@pytest.mark.parametrize("score", [3.0, 0.1, -1 / 3, 1e6])
def test_a_group_of_equal_scores_has_no_advantage_at_all(spread, score):
    equal = torch.full((7,), score)
    assert rl.in_group(equal, 7, spread, 1e-9).tolist() == [0] * 7
    assert rl.left_out(equal, 7).tolist() == [0] * 7


def test_leaving_one_out_is_the_distance_to_the_mean_of_the_others():
    found = rl.left_out(torch.tensor([1.0, 5, 10, 4]), 2)
    assert found.tolist() == [-4, 4, 6, -6]
    triple = rl.left_out(torch.tensor([1.0, 2, 6]), 3)
    assert triple.tolist() == pytest.approx([1 - 4, 2 - 3.5, 6 - 1.5])


def test_what_is_better_than_its_group_is_pushed_up():
    logprobs = torch.zeros(5, 1, requires_grad=True)
    advantages = rl.in_group(GROUPS[:5], 5, "sample", 1e-4)[:, None]
    rl.policy_loss(logprobs, torch.zeros(5, 1), advantages, 0.2).sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad[:, 0].sign().tolist() == [1, 1, 0, -1, -1]


def test_k3_in_a_loss_pulls_towards_the_reference_from_both_sides():
    logprobs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    rl.kl(logprobs, torch.full((3,), -2.0), "k3").sum().backward()
    assert logprobs.grad is not None
    expected = [1 - math.exp(-1), 0, 1 - math.exp(1)]
    assert logprobs.grad.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        ("token", (1 + 2 + 3 + 4) / 4),
        ("response", (1 + (2 + 3 + 4) / 3) / 2),
        ("sum", (1 + (2 + 3 + 4)) / 2),
        ("constant", (1 + (2 + 3 + 4)) / (2 * 5)),
    ],
)
def test_a_minibatch_is_averaged_as_it_says(average, expected):
    losses = torch.tensor([[1.0, 0, 0], [2, 3, 4]])
    weighing = rl.weigh(torch.tensor([1.0, 3.0]), average, longest=5)
    found = float((losses * weighing.each[:, None]).sum()) / weighing.whole
    assert found == pytest.approx(expected)


def test_as_a_whole_every_token_has_the_ratio_of_its_response():
    logprobs, old = torch.tensor([[-1.0, -2.0, 0.0]]), torch.tensor([[-1.5, -1.8, 0.0]])
    found = torch.exp(logprobs - rl.as_whole(logprobs, old))
    assert found[0].tolist() == pytest.approx([math.exp(0.3)] * 3)
