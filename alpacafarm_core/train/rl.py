"""The arithmetic of PPO and its siblings on padded responses: pure, over real tokens only.

AlpacaFarm's formulas (Dubois et al. 2023; PPO of Schulman et al. 2017, GAE of 2015) with its
padding mistakes mended. B is responses, R padded response tokens; `mask` [B, R] is 1 on response
tokens, the end token included, and padding is always on the right.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

KLEstimator = Literal["k1", "k2", "k3", "clamped"]
Average = Literal["token", "response", "sum", "constant"]
Spread = Literal["sample", "population", "none"]


class Advantages(NamedTuple):
    """What tokens were worth, and the returns a critic is fitted to, each [B, R].

    `kl_price` is that of a nat in the loss itself: 0 where rewards have paid for it.
    """

    advantages: Tensor
    returns: Tensor
    kl_price: float = 0.0


class Weighing(NamedTuple):
    """How the losses of a minibatch's tokens add up: times `each` [B], over `whole`."""

    each: Tensor
    whole: float


def kl(logprobs: Tensor, ref_logprobs: Tensor, estimator: KLEstimator) -> Tensor:
    """Estimate of KL(policy || reference) from sampled tokens, shaped as they are (Schulman 2020).

    With d the log-ratio, k1 is d itself, k2 is d²/2, k3 is exp(-d) + d - 1; clamped is max(d, 0),
    AlpacaFarm's, which overestimates.
    """
    d = logprobs - ref_logprobs
    if estimator == "k2":
        return d**2 / 2
    if estimator == "k3":
        return torch.exp(-d) + d - 1
    return d.clamp(min=0) if estimator == "clamped" else d


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens, a scalar."""
    return (values * mask).sum() / mask.sum()


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Population variance over real tokens, a scalar."""
    return masked_mean((values - masked_mean(values, mask)) ** 2, mask)


def whiten(values: Tensor, mask: Tensor, keep_mean: bool, longest: int | None = None) -> Tensor:
    """Values of unit variance, [B, R], zero on padding; the mean is kept or removed.

    With `longest`, mean and variance are those of responses filled up with zeros to so many tokens.
    """
    if longest is None:
        known, real = values, mask
    else:
        known = pad(values * mask, (0, longest - values.shape[1]))
        real = torch.ones_like(known)
    mean = masked_mean(known, real)
    white = (values - mean) / (masked_variance(known, real).sqrt() + 1e-8)
    return (white + mean if keep_mean else white) * mask


def finished_scores(scores: Tensor, finished: Tensor, missing_eos: float | None) -> Tensor:
    """Scores [B], replaced by `missing_eos` where no end token was sampled (`finished` [B])."""
    if missing_eos is None:
        return scores
    return torch.where(finished, scores, torch.full_like(scores, missing_eos))


def place_rewards(scores: Tensor, penalties: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Reward of each token, [B, R]: minus `kl_coef` x penalty, and the score at the last token.

    `scores` is [B], `penalties` (KL in nats) [B, R].
    """
    last = mask.sum(1).long() - 1
    rewards = -kl_coef * penalties * mask
    return rewards.index_put(
        (torch.arange(len(scores), device=mask.device), last), scores.to(rewards), accumulate=True
    )


def estimate_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> Advantages:
    """GAE backward from the last token, nothing being worth anything after it; all [B, R]."""
    rewards, values = rewards * mask, values * mask
    ahead = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = rewards + gamma * ahead - values
    advantages, carried = torch.zeros_like(values), torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        carried = (deltas[:, t] + gamma * lam * carried) * mask[:, t]
        advantages[:, t] = carried
    return Advantages(advantages, advantages + values)


def in_group(scores: Tensor, size: int, spread: Spread, epsilon: float) -> Tensor:
    """Scores less their group's mean, over its standard deviation + epsilon, [B]; GRPO, 4.1.2.

    `scores` [B] lie group by group, `size` to a prompt. The deviation is a sample's (over size - 1)
    or a population's (over size); with "none" differences are not divided (Dr. GRPO).
    """
    # In float64, so that the mean of equal scores is that score.
    groups = scores.double().view(-1, size)
    away = groups - groups.mean(1, keepdim=True)
    if spread != "none":
        away = away / (groups.std(1, correction=int(spread == "sample"), keepdim=True) + epsilon)
    return away.flatten().to(scores)


def left_out(rewards: Tensor, size: int) -> Tensor:
    """Each reward less the mean of the other ones of its group, [B]; RLOO.

    `rewards` [B] lie group by group, `size` to a prompt.
    """
    groups = rewards.double().view(-1, size)
    away = (groups - groups.mean(1, keepdim=True)) * (size / (size - 1))
    return away.flatten().to(rewards)


def as_whole(logprobs: Tensor, old: Tensor) -> Tensor:
    """Old log-probabilities under which each token's ratio is that of its whole response; [B, R].

    So a response counts as one action: its ratio is clipped for all of its tokens or for none.
    """
    return logprobs - (logprobs - old).sum(1, keepdim=True)


def policy_loss(logprobs: Tensor, old: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Clipped surrogate of each token; PPO eq. 7, negated. All [B, R], reduced by nobody here."""
    ratio = torch.exp(logprobs - old)
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(-advantages * ratio, -advantages * clipped)


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the larger of the plain and the clipped squared error of each token; all [B, R]."""
    near = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)


def weigh(lengths: Tensor, average: Average, longest: int) -> Weighing:
    """The weighing of a minibatch whose responses have `lengths` tokens, [B].

    "token" is the mean over all tokens; "response" the mean over responses of the mean over their
    tokens; "sum" the mean over responses of their sums; "constant" is that over `longest` tokens.
    """
    ones, many = torch.ones_like(lengths), len(lengths)
    if average == "response":
        return Weighing(ones / lengths, float(many))
    wholes = {"token": float(lengths.sum()), "sum": many, "constant": many * longest}
    return Weighing(ones, float(wholes[average]))


def importance(logprobs: Tensor, sampled: Tensor, cap: float) -> Tensor:
    """How much likelier each token is to the trainer than to the sampler, at most `cap`.

    Truncated importance sampling (Ionides 2008); `sampled` are the sampler's log-probabilities, and
    a token of which it gave none counts fully. All of one shape.
    """
    return torch.exp(logprobs - sampled).nan_to_num(1.0).clamp(max=cap)


def clip_fraction(logprobs: Tensor, old: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Share of real tokens whose probability ratio left [1 - clip, 1 + clip], a scalar."""
    away = (torch.exp(logprobs - old) - 1).abs() > clip
    return masked_mean(away.float(), mask)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - var(returns - values) / var(returns) over real tokens; 0 when returns are constant."""
    spread = masked_variance(returns, mask)
    left = masked_variance(returns - values, mask)
    return torch.where(spread > 0, 1 - left / spread.clamp(min=1e-12), torch.zeros_like(spread))


def adapted(coef: float, nats: float, target: float | None) -> float:
    """The KL coefficient for the next step, given this step's mean KL of a response.

    Ziegler et al. 2019: at most 2% up or down. Without a target it stays.
    """
    if target is None:
        return coef
    return coef * (1 + 0.1 * min(0.2, max(-0.2, nats / target - 1)))
