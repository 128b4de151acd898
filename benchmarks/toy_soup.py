"""SALSA where everything can be counted: bigram policies, many runs at once.

    python -m benchmarks.toy_soup [--seeds 24] [--out docs/soups-toy.md]

A target policy over V tokens favours the successor of each token. SFT models are fitted to n
sequences of it each, from one start, so with few sequences they are noisy, each in its own way.
REINFORCE then earns half a point for each successor, less eta a nat of the KL to a reference: the
first SFT model (PPO), or the average of several models' logits (SALSA). Every run begins at the
first SFT model. S is runs, V tokens, B sequences, T steps.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from alpacafarm_core.train.soup import averaged

V, T, BATCH = 8, 10, 128
BONUS = 1.0
"""Logit of the successor in the target; all others are 0."""
FITTING, LEARNING = (150, 0.1), (400, 0.05)
"""Steps and learning rates of Adam: of fitting, and of REINFORCE."""
HELD_OUT = 2000
NEXT = (torch.arange(V) + 1) % V
ABOUT = """Made by `python -m benchmarks.toy_soup`. Means over {seeds} seeds; the gain is SALSA's
reward less PPO's with its standard error over seeds. `n` is sequences an SFT model is fitted to,
KLs and losses are in nats a sequence."""


class Seen(NamedTuple):
    """What came of one way of choosing the reference, a number a seed, each [S].

    `reward` a sequence; `own` is the KL to the reference that was paid for, `start` that to the
    first SFT model, both in nats a sequence.
    """

    reward: Tensor
    own: Tensor
    start: Tensor


class Fitted(NamedTuple):
    """SFT models [K, S, V, V] and the losses of models and soups on held-out sequences."""

    models: Tensor
    losses: Tensor
    soups: dict[int, Tensor]


def drawn(logits: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Sequences of bigram policies [S, V, V], each from token 0 on, [S, B, T + 1]."""
    runs = torch.arange(len(logits))[:, None]
    ladder = logits.softmax(-1).cumsum(-1)
    tokens = [torch.zeros(len(logits), batch, dtype=torch.long)]
    for _ in range(T):
        chance = torch.rand(len(logits), batch, 1, generator=generator, dtype=logits.dtype)
        tokens.append((ladder[runs, tokens[-1]] < chance).sum(-1).clamp(max=V - 1))
    return torch.stack(tokens, -1)


def logps(logits: Tensor, sequences: Tensor) -> Tensor:
    """Log-probability of each token, [S, B, T]."""
    runs = torch.arange(len(logits))[:, None, None]
    return logits.log_softmax(-1)[runs, sequences[..., :-1], sequences[..., 1:]]


def earned(sequences: Tensor) -> Tensor:
    """Half a point for each successor, [S, B]."""
    return 0.5 * (NEXT[sequences[..., :-1]] == sequences[..., 1:]).double().sum(-1)


def fitted(seeds: int, n: int, models: int, generator: torch.Generator) -> Fitted:
    """SFT models from one start, each on n sequences of its own of the seed's target."""
    start = torch.zeros(seeds, V, V, dtype=torch.float64)
    target = start.clone()
    target[:, torch.arange(V), NEXT] = BONUS
    found = [_fit(start, drawn(target, n, generator)) for _ in range(models)]
    fresh = drawn(target, HELD_OUT, generator)

    def loss(logits: Tensor) -> Tensor:
        return -logps(logits, fresh).sum(-1).mean(-1)

    soups = {k: loss(soup(found[:k])) for k in range(2, models + 1)}
    return Fitted(torch.stack(found), torch.stack([loss(each) for each in found]), soups)


def _fit(start: Tensor, sequences: Tensor) -> Tensor:
    steps, rate = FITTING
    logits = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([logits], rate)
    for _ in range(steps):
        optimiser.zero_grad()
        (-logps(logits, sequences).sum(-1).mean(-1)).sum().backward()
        optimiser.step()
    return logits.detach()


def soup(models: Sequence[Tensor]) -> Tensor:
    """The average of the models' logits, as the farm averages weights."""
    total = averaged([each.float() for each in models], [1 / len(models)] * len(models))
    return total.to(models[0].dtype)


def reinforced(start: Tensor, reference: Tensor, eta: float, generator: torch.Generator) -> Seen:
    """REINFORCE from `start` with k1 in the reward and whitened advantages."""
    steps, rate = LEARNING
    logits = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([logits], rate)
    for _ in range(steps):
        sequences = drawn(logits.detach(), BATCH, generator)
        ours = logps(logits, sequences).sum(-1)
        with torch.no_grad():
            paid = earned(sequences) - eta * (ours - logps(reference, sequences).sum(-1))
            white = (paid - paid.mean(1, keepdim=True)) / paid.std(1, keepdim=True)
        optimiser.zero_grad()
        (-(white * ours).mean(1)).sum().backward()
        optimiser.step()
    return measured(logits.detach(), reference, start)


def measured(policy: Tensor, reference: Tensor, start: Tensor) -> Seen:
    """Exact reward and KLs of bigram policies: expectations over where each step begins."""
    probabilities = policy.softmax(-1)
    reward, own, moved = (policy.new_zeros(len(policy)) for _ in range(3))
    at = policy.new_zeros(len(policy), V)
    at[:, 0] = 1
    ours = policy.log_softmax(-1)
    own_step, start_step = (
        (probabilities * (ours - other.log_softmax(-1))).sum(-1) for other in (reference, start)
    )
    hit = 0.5 * probabilities[:, torch.arange(V), NEXT]
    for _ in range(T):
        reward += (at * hit).sum(-1)
        own += (at * own_step).sum(-1)
        moved += (at * start_step).sum(-1)
        at = (at[:, :, None] * probabilities).sum(1)
    return Seen(reward, own, moved)


def compared(seeds: int, n: int, eta: float, models: int = 2) -> tuple[Fitted, dict[int, Seen]]:
    """What each reference leads to: 1 is the start itself (PPO), k the soup of k models."""
    generator = torch.Generator().manual_seed(0)
    sfts = fitted(seeds, n, models, generator)
    start = sfts.models[0]
    references = {1: start} | {k: soup(list(sfts.models[:k])) for k in range(2, models + 1)}
    return sfts, {k: reinforced(start, each, eta, generator) for k, each in references.items()}


def paired(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """Mean difference and its standard error, over seeds."""
    gap = ours - theirs
    return float(gap.mean()), float(gap.std() / len(gap) ** 0.5)


def main() -> None:
    """The table, over n and eta."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    lines = [
        "| n | eta | PPO: reward / own KL | SALSA: reward / own KL / KL to start | gain | 3-soup: "
        "reward | loss: SFTs / soup / 3-soup |",
        "|---|---|---|---|---|---|---|",
    ]
    for n, eta in ((20, 0.3), (20, 1.0), (60, 0.3), (200, 0.3), (20, 0.1)):
        sfts, seen = compared(chosen.seeds, n, eta, 3)
        ppo, two, three = (seen[k] for k in (1, 2, 3))
        gain, error = paired(two.reward, ppo.reward)
        losses = [sfts.losses.mean(), sfts.soups[2].mean(), sfts.soups[3].mean()]
        lines.append(
            f"| {n} | {eta:g} | {ppo.reward.mean():.2f} / {ppo.own.mean():.2f} | "
            f"{two.reward.mean():.2f} / {two.own.mean():.2f} / {two.start.mean():.2f} | "
            f"{gain:+.3f} ± {error:.3f} | {three.reward.mean():.2f} | "
            f"{' / '.join(f'{each:.2f}' for each in losses)} |"
        )
    print("\n".join(lines))
    if chosen.out:
        head = f"# SALSA on bigram policies\n\n{ABOUT.format(seeds=chosen.seeds)}\n\n"
        chosen.out.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
