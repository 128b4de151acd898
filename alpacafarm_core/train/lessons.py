"""What a minibatch of rollouts teaches: the losses of policy and critic, and what a token counts.

N is responses of a micro-batch, R response tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alpacafarm_core.objective import NO_PAST, Past
from alpacafarm_core.proximal import OnlineObjective
from alpacafarm_core.train import rl
from alpacafarm_core.train.batches import Padded, padded
from alpacafarm_core.train.course import OnlineCourse
from alpacafarm_core.train.engine import Learn
from alpacafarm_core.train.forward import response_logprobs, response_values
from alpacafarm_core.train.models import autocast, begin
from alpacafarm_core.train.rollouts import Rollouts


class Today(NamedTuple):
    """What policy and critic, if there is one, say now, with gradient, and the mask; [N, R]."""

    logprobs: Tensor
    values: Tensor | None
    mask: Tensor


class Then(NamedTuple):
    """What was said of the same responses before they were learned from, each [N, R]."""

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


def lesson(
    course: OnlineCourse,
    rollouts: Rollouts,
    taught: rl.Advantages,
    rows: Sequence[int],
    _: Past = NO_PAST,
) -> Learn:
    """What one micro-batch adds to a minibatch of these rollouts: losses of policy and critic.

    How much a token counts depends on the whole minibatch. The figures are parts of the losses and
    of the share of tokens that are clipped.
    """
    objective, lengths = course.objective, rollouts.mask[list(rows)].sum(1)
    weighing = rl.weigh(lengths, objective.averaging, objective.sampling.max_tokens)
    each = torch.zeros(len(rollouts.rows)).index_copy(0, torch.tensor(rows), weighing.each)
    whole, tokens = weighing.whole, float(lengths.sum())

    def learn(micro: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        now = _now(course, rollouts, micro)
        then = _then(rollouts, taught, micro, now.mask)
        weights = now.mask * each[micro, None].to(now.mask)
        terms = _losses(objective, now, then, taught.kl_price)
        sums = {name: (loss * weights).sum() for name, (_, loss) in terms.items()}
        old = objective.compared(now.logprobs.detach(), then.logprobs)
        away = rl.clip_fraction(now.logprobs.detach(), old, now.mask, objective.clip)
        away = away * now.mask.sum() * (whole / tokens)
        told = torch.stack([*(loss.detach() for loss in sums.values()), away]).cpu() / whole
        figures = dict(zip((*sums, "clip_fraction"), told.tolist(), strict=True))
        loss = torch.stack([terms[name][0] * sums[name] for name in sums]).sum()
        return loss / whole, figures

    return learn


def _losses(
    objective: OnlineObjective, now: Today, then: Then, kl_price: float
) -> dict[str, tuple[float, Tensor]]:
    """The losses of each token, [N, R], by name, and what each counts."""
    old = objective.compared(now.logprobs.detach(), then.logprobs)
    policy = rl.policy_loss(now.logprobs, old, then.advantages, objective.clip)
    losses, critic = {"policy_loss": (1.0, policy)}, objective.value_model
    if critic is not None and now.values is not None:
        value = rl.value_loss(now.values, then.values, then.returns, critic.clip)
        losses["value_loss"] = critic.coef, value
    if kl_price:
        away = rl.kl(now.logprobs, then.ref_logprobs, objective.kl.estimator)
        losses["kl_loss"] = kl_price, away
    return losses


def values_of(course: OnlineCourse, batch: Padded) -> Tensor | None:
    """The critic's values, [N, R]; None without a critic."""
    return None if course.critic is None else response_values(course.critic, batch)


def _now(course: OnlineCourse, rollouts: Rollouts, micro: Sequence[int]) -> Today:
    """What policy and critic say of a micro-batch today."""
    batch = padded([rollouts.rows[row] for row in micro]).to(begin(course.machine))
    with autocast(course.machine):
        logprobs = response_logprobs(
            course.policy.model, batch, course.objective.sampling.temperature
        )
        values = values_of(course, batch)
    return Today(logprobs, values, batch.mask.float())


def _then(rollouts: Rollouts, taught: rl.Advantages, micro: Sequence[int], mask: Tensor) -> Then:
    """What was said of a micro-batch before, where the mask is."""
    known = (
        *(rollouts.logprobs, rollouts.ref_logprobs, rollouts.values),
        *(taught.advantages, taught.returns),
    )
    return Then(*(each[micro, : mask.shape[1]].to(mask.device) for each in known))
