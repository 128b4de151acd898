"""Two samples of a policy as two views of their prompt: keep what they share; RLP-UML.

Li et al. 2024 (arXiv 2403.19279), after the multi-view information bottleneck (Federici et al.
2020, arXiv 2002.07017). Heads make a Gaussian of each view's last state, and a critic tells the
views of one prompt from those of two. All of them are thrown away after the training. P is prompts,
H hidden width, Z dimensions of a view.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from alpacafarm_core.errors import BadInput
from alpacafarm_core.fitting import Views

LEAST = 1e-7  # of a standard deviation, as in the code of the information bottleneck


class Gaussian(NamedTuple):
    """Independent normals: means and standard deviations, each [P, Z]."""

    mean: Tensor
    deviation: Tensor

    def drawn(self, noise: Tensor) -> Tensor:
        """A sample made of standard normal noise, [P, Z]."""
        return self.mean + self.deviation * noise


class Terms(NamedTuple):
    """Mutual information between the views (nats, at most 0 for this bound) and symmetric KL."""

    information: Tensor
    skl: Tensor


class ViewHeads(nn.Module):
    """Mean, deviation and critic, three linear layers each."""

    def __init__(self, hidden: int, views: Views) -> None:
        """Drawn from torch's global generator."""
        super().__init__()
        self.mean = _layers(hidden, views.width, views.size)
        self.deviation = _layers(hidden, views.width, views.size)
        self.critic = _layers(2 * views.size, views.width, 1)

    def seen(self, states: Tensor) -> Gaussian:
        """The Gaussian of each state [P, H]."""
        return Gaussian(self.mean(states), softplus(self.deviation(states)) + LEAST)


def terms(heads: ViewHeads, states: Tensor, noise: tuple[Tensor, Tensor]) -> Terms:
    """Information and KL between the two views of P prompts, whose states are [P, 2, H]; both [].

    `noise` is standard normal, [P, Z] for each view. Negatives are the first view of the next
    prompt beside the second view of this one. Raises BadInput where there is one prompt only.
    """
    if len(states) < 2:
        raise BadInput(
            "one prompt a step has no other to be told from; raise training.batch to 2 or more"
        )
    one, other = (heads.seen(each) for each in states.unbind(1))
    z1, z2 = one.drawn(noise[0]), other.drawn(noise[1])
    same = heads.critic(torch.cat([z1, z2], -1))[:, 0]
    strange = heads.critic(torch.cat([z1.roll(1, 0), z2], -1))[:, 0]
    return Terms(information(same, strange), symmetric_kl(one, other).mean())


def multi_view_loss(found: Terms, views: Views, skl_weight: float) -> Tensor:
    """lambda * (-I(z1; z2) + w * SKL), RLP's equation for L_M times lambda; []."""
    return views.weight * (skl_weight * found.skl - views.information * found.information)


def information(same: Tensor, strange: Tensor) -> Tensor:
    """The Jensen-Shannon bound, in nats: mean -softplus(-T) minus mean softplus(T); [].

    `same` and `strange` are the critic's numbers T for views of one prompt and of two, [P] each. At
    most 0, and -2 ln 2 for T = 0.
    """
    return -softplus(-same).mean() - softplus(strange).mean()


def symmetric_kl(one: Gaussian, other: Gaussian) -> Tensor:
    """Mean of both directed KLs in nats, [P]: closed form, so without the noise of a sample.

    Sum over Z of (s1^2 + D^2) / (4 s2^2) + (s2^2 + D^2) / (4 s1^2) - 1/2, D the gap of the means.
    """
    apart = (one.mean - other.mean).square()
    first, second = one.deviation.square(), other.deviation.square()
    each = (first + apart) / (4 * second) + (second + apart) / (4 * first) - 0.5
    return each.sum(-1)


def skl_weight(views: Views, step: int, steps: int) -> float:
    """Weight of the KL at a step, from 0: the first one, then a geometric rise to the last one."""
    if views.skl_first is None:
        return views.skl
    done = step / max(1, steps - 1)
    risen = (done - views.hold) / views.rise if views.rise else float(done >= views.hold)
    share = min(1.0, max(0.0, risen))
    return float(views.skl_first ** (1 - share) * views.skl**share)


def _layers(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )
