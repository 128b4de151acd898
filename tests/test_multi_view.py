"""Two samples as two views of a prompt: worked numbers, negatives, and when the views collapse."""

import pytest
import torch
from torch import nn, tensor

from alpacafarm_core.errors import BadInput
from alpacafarm_core.fitting import Views
from alpacafarm_core.train import multi_view
from alpacafarm_core.train.multi_view import Gaussian, ViewHeads

FEW = Views(size=4, width=8)


def normal(mean, deviation):
    return Gaussian(tensor([mean]), tensor([deviation]))


def test_the_symmetric_kl_is_the_mean_of_both_directed_ones():
    unit = normal([0.0], [1.0])
    assert float(multi_view.symmetric_kl(unit, normal([1.0], [1.0]))) == 0.5
    one, other = normal([0.0, 1.0], [1.0, 1.0]), normal([1.0, 1.0], [1.0, 2.0])
    pairs = [torch.distributions.Normal(*each) for each in (one, other)]
    there, back = (
        float(torch.distributions.kl_divergence(*each).sum()) for each in (pairs, pairs[::-1])
    )
    assert (there, back) == (pytest.approx(0.8181472), pytest.approx(1.3068528))
    for each in ((one, other), (other, one)):
        assert float(multi_view.symmetric_kl(*each)) == pytest.approx((there + back) / 2) == 1.0625


def test_the_symmetric_kl_of_equals_is_0_and_of_others_more():
    draw = torch.Generator().manual_seed(0)
    means, spreads = torch.randn(2, 50, 3, generator=draw), torch.rand(2, 50, 3, generator=draw)
    one, other = (Gaussian(means[i], spreads[i] + 0.1) for i in (0, 1))
    assert (multi_view.symmetric_kl(one, other) > 0).all()
    assert multi_view.symmetric_kl(one, one).abs().max() < 1e-6


def test_a_critic_that_says_nothing_finds_minus_2_ln_2():
    nothing = torch.zeros(2)
    found = multi_view.information(nothing, nothing)
    assert float(found) == pytest.approx(-1.3862944, abs=1e-6)
    found = multi_view.information(tensor([2.0, 1.0]), tensor([-1.0, 0.5]))
    assert float(found) == pytest.approx(-0.8637642, abs=1e-6)


def test_one_prompt_has_no_negatives_and_is_refused():
    heads, noise = ViewHeads(3, FEW), torch.zeros(1, 4)
    with pytest.raises(BadInput, match=r"raise training\.batch to 2 or more"):
        multi_view.terms(heads, torch.zeros(1, 2, 3), (noise, noise))


def test_negatives_are_the_next_prompts_first_view():
    shown = []

    class Seen:
        """Heads that show what they are asked."""

        def seen(self, states):
            return Gaussian(states, torch.ones_like(states))

        def critic(self, both):
            shown.append(both.tolist())
            return both[:, :1]

    noise = torch.zeros(3, 1)
    multi_view.terms(Seen(), tensor([[[1.0], [10]], [[2], [20]], [[3], [30]]]), (noise, noise))
    assert shown == [[[1, 10], [2, 20], [3, 30]], [[3, 10], [1, 20], [2, 30]]]


def test_the_weight_of_the_kl_stays_then_rises_by_equal_factors():
    views = Views(skl_first=0.01, skl=1.0, hold=0.2, rise=0.4)
    found = [multi_view.skl_weight(views, step, 11) for step in (0, 2, 4, 6, 10)]
    assert found == pytest.approx([0.01, 0.01, 0.1, 1.0, 1.0])
    assert multi_view.skl_weight(Views(), 0, 11) == 1.0


def test_shares_of_steps_that_are_more_than_all_are_refused():
    with pytest.raises(ValueError, match="make them 1 or less"):
        Views(hold=0.7, rise=0.4)
    with pytest.raises(ValueError, match="skl 0 cannot be risen to"):
        Views(skl=0.0, skl_first=0.1)


def learned(views, steps=300, prompts=64):
    """Information and KL at each step of a toy: a backbone sees four numbers of the prompt, which
    both views share, beside four of an answer, which they do not.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 16))
        heads = ViewHeads(16, views)
    draw = torch.Generator().manual_seed(100)
    weights = [*backbone.parameters(), *heads.parameters()]
    optimiser = torch.optim.Adam(weights, lr=1e-2)
    history = []
    for step in range(steps):
        prompt = torch.randn(prompts, 1, 4, generator=draw).expand(prompts, 2, 4)
        answers = torch.randn(prompts, 2, 4, generator=draw)
        one, other = torch.randn(2, prompts, views.size, generator=draw).unbind()
        found = multi_view.terms(heads, backbone(torch.cat([prompt, answers], -1)), (one, other))
        history.append([float(each.detach()) for each in found])
        weight = multi_view.skl_weight(views, step, steps)
        optimiser.zero_grad()
        multi_view.multi_view_loss(found, views, weight).backward()
        optimiser.step()
    return history


def test_a_kl_that_counts_fully_from_the_start_leaves_nothing_in_the_views():
    information, kl = learned(Views(size=4, width=32), steps=80)[-1]
    assert information == pytest.approx(-1.386, abs=0.01) and kl < 1e-3


def test_a_kl_that_counts_later_leaves_what_the_views_share():
    history = learned(Views(size=4, width=32, skl_first=1e-3, hold=0.5, rise=0.4))
    first, last = history[150], history[-1]
    assert first[0] > -1.0 and first[1] > 3.0
    assert last[0] > -1.0 and last[1] < 0.3
