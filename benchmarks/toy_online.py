"""Toy policies that learn from their own answers: the online objectives on tables of logits.

Rewards, advantages, losses and quantiles are the farm's own functions. A value model is a table
[group, position] that starts at zero. Each training takes as many steps of Adam as one on fixed
data. Left out: the penalty of answers that do not end, since six tokens are all there is room for
here; pools kept from step to step, schedules and clipping.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from alpacafarm_core.conditioning import ConditionedLogps, ConditionedObjective
from alpacafarm_core.proximal import OnlineObjective
from alpacafarm_core.quantiles import quantiles, quantiles_within
from alpacafarm_core.train import rl
from alpacafarm_core.train.rollouts import Rollouts
from benchmarks.toy_training import RATE
from benchmarks.toy_world import GROUPS, LONGEST, Answers, behind, drawn, token_logprobs, worth


class Then(NamedTuple):
    """What was known of all worlds' answers before they were learned from, each [N, R]."""

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


def improved(
    start: Tensor, reward: Tensor, objective: OnlineObjective, steps: int, draw: torch.Generator
) -> Tensor:
    """The table after PPO or a sibling of it, by a reward of weights [S, group, token]."""
    table = start.clone().requires_grad_()
    values = torch.zeros(start.shape[:3], requires_grad=True)
    adam = torch.optim.Adam([table, values], lr=RATE)
    per_round = objective.inner_epochs * -(-objective.rollouts // objective.minibatch)
    for _ in range(max(1, steps // per_round)):
        answers = answered(table, objective.rollouts, objective.sampling.n, draw)
        then, price = _looked_at(table, values, start, answers, reward, objective)
        for at in _minibatches(len(start), objective, draw):
            some, known = answers.take(at), Then(*(each[at] for each in then))
            adam.zero_grad()
            now = token_logprobs(table, some), values[some.worlds, some.groups] * some.mask
            _loss(now, known, some, objective, price).backward()
            adam.step()
    return table.detach()


def imitated(
    start: Tensor,
    reward: Tensor,
    objective: ConditionedObjective,
    steps: int,
    draw: torch.Generator,
) -> Tensor:
    """The table after learning its own answers by quantile of their reward; Quark.

    With reward tokens it answers behind the best one, after a first round behind none.
    """
    tags = objective.sorting.quantiles if objective.is_tagged else 0
    table = torch.cat([start] * (1 + tags), dim=1).requires_grad_()
    adam = torch.optim.Adam([table], lr=RATE)
    for number in range(max(1, steps // objective.gradient_steps)):
        asked = behind(table, 0 if tags and number else None)
        answers = answered(asked, objective.rollouts, objective.sampling.n, draw)
        kept = _graded(answers, worth(reward, answers), objective)
        for _ in range(objective.gradient_steps):
            adam.zero_grad()
            losses = objective.loss(_conditioned(table, start, kept)) * kept.mask
            each = torch.zeros(2, len(start)).index_add(
                1, kept.worlds, torch.stack([losses.sum(1), kept.lengths])
            )
            (each[0] / each[1]).sum().backward()
            adam.step()
    return table.detach()


def answered(table: Tensor, count: int, times: int, draw: torch.Generator) -> Answers:
    """`count` answers in each world, `times` of them in a row to one prompt."""
    worlds = torch.arange(len(table)).repeat_interleave(count)
    groups = torch.randint(GROUPS, (len(worlds) // times,), generator=draw)
    groups = groups.repeat_interleave(times)
    return Answers(worlds, groups, *drawn(table.detach()[worlds, groups], 1.0, draw))


@torch.no_grad()
def _looked_at(
    table: Tensor,
    values: Tensor,
    start: Tensor,
    answers: Answers,
    reward: Tensor,
    objective: OnlineObjective,
) -> tuple[Then, float]:
    """What is known of a round's answers, and the price of a nat in the loss."""
    looks = {
        "mask": answers.mask,
        "logprobs": token_logprobs(table, answers),
        "ref_logprobs": token_logprobs(start, answers),
        "values": values[answers.worlds, answers.groups] * answers.mask,
        "scores": worth(reward, answers),
    }
    absent = {"sampled": looks["logprobs"], "entropies": torch.zeros_like(answers.mask)}
    apart = {name: look.chunk(len(start)) for name, look in (looks | absent).items()}
    ended = torch.ones(objective.rollouts, dtype=torch.bool)
    each = [
        objective.advantages(
            Rollouts(rows=[], finished=ended, **{name: parts[at] for name, parts in apart.items()}),
            objective.kl.coef,
        )
        for at in range(len(start))
    ]
    advantages, returns = (torch.cat([one[field] for one in each]) for field in (0, 1))
    known = (looks[name] for name in ("logprobs", "ref_logprobs", "values"))
    return Then(*known, advantages, returns), each[0].kl_price


def _minibatches(
    worlds: int, objective: OnlineObjective, draw: torch.Generator
) -> Iterator[Tensor]:
    """Places of as many answers of each world, over and over."""
    firsts = torch.arange(worlds)[:, None] * objective.rollouts
    for _ in range(objective.inner_epochs):
        order = torch.randperm(objective.rollouts, generator=draw)
        for rows in order.split(objective.minibatch):
            yield (firsts + rows).flatten()


def _loss(
    now: tuple[Tensor, Tensor],
    then: Then,
    answers: Answers,
    objective: OnlineObjective,
    price: float,
) -> Tensor:
    """The sum over worlds of a minibatch's loss, as the objective averages it."""
    logprobs, values = now
    old = objective.compared(logprobs.detach(), then.logprobs)
    losses = rl.policy_loss(logprobs, old, then.advantages, objective.clip)
    critic = objective.value_model
    if critic is not None:
        losses = losses + critic.coef * rl.value_loss(
            values, then.values, then.returns, critic.clip
        )
    if price:
        away = rl.kl(logprobs, then.ref_logprobs, objective.kl.estimator)
        losses = losses + price * away
    each = (losses * answers.mask).sum(1)
    total = torch.zeros(())
    for world in answers.worlds.unique():
        here = answers.worlds == world
        weighing = rl.weigh(answers.lengths[here], objective.averaging, LONGEST)
        total = total + (each[here] * weighing.each).sum() / weighing.whole
    return total


def _graded(answers: Answers, scores: Tensor, objective: ConditionedObjective) -> Answers:
    """The best quantile of each world, or all answers behind the tokens of their quantiles."""
    found = list[int]()
    for some in scores.split(objective.rollouts):
        if objective.sorting.scope == "pool":
            found += quantiles(some.tolist(), objective.sorting.quantiles)
        else:
            prompts = [place // objective.sampling.n for place in range(len(some))]
            found += quantiles_within(some.tolist(), prompts, objective.sorting.quantiles)
    tags = torch.tensor(found)
    if objective.is_tagged:
        return answers._replace(groups=answers.groups + GROUPS * (1 + tags))
    return answers.take((tags == 0).nonzero()[:, 0])


def _conditioned(table: Tensor, reference: Tensor, answers: Answers) -> ConditionedLogps:
    """What Quark's loss sees of answers; the reference sees no reward token."""
    at = answers.worlds, answers.groups
    ours = table.log_softmax(-1)[at]
    theirs = reference.log_softmax(-1)[answers.worlds, answers.groups % GROUPS]
    return ConditionedLogps(
        logprobs=token_logprobs(table, answers),
        kl=(ours.exp() * (ours - theirs)).sum(-1),
        entropies=-(ours.exp() * ours).sum(-1),
        mask=answers.mask,
    )
