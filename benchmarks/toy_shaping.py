"""Reward shaping on toys in which everything can be known: when a wrong reward is hacked, and how.

    python -m benchmarks.toy_shaping [--seeds 5] [--out docs/toy-shaping.md]

A bandit of 4000 honest answers, whose reward is the truth and a little noise, and 40 that are bad
and rewarded highly but which the start hardly ever gives. Its policies are exact: what each shaping
reaches at the same distance from the start, and along exact mirror descent. And a policy over
sequences, a table of which token follows which, that learns by REINFORCE from samples: what counts
in truth is that tokens follow in their cycle, and the reward model also likes a token that it
should not. The shapings are the farm's own.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from alpacafarm_core.shaping import (
    Ceiling,
    Clipped,
    LogSigmoid,
    Preference,
    Ranged,
    Reshape,
    Standardised,
    Tanh,
    Vanilla,
)
from alpacafarm_core.train import rl
from alpacafarm_core.train.shaping import Running

REFERENCES = 10
SHAPINGS: dict[str, Reshape] = {
    "vanilla": Vanilla(),
    "meanstd": Standardised(),
    "minmax": Ranged(),
    "clip": Clipped(),
    "lsc": LogSigmoid(),
    "ceil": Ceiling(ceiling=3.0),
    "tanh": Tanh(),
    "par": Preference(),
}
HONEST, HACKS, HACKED_MASS = 4000, 40, 1e-3
TOKENS, LENGTH, BAD = 8, 10, 7
STEPS, BATCH, RATE, PRICE = 500, 128, 0.02, 0.02


class Bandit(NamedTuple):
    """Log-probabilities of the start, true worth and reward of every answer, [A], and references.

    `refs` [A, M] are rewards of answers of the start, the same for every answer.
    """

    base: Tensor
    gold: Tensor
    proxy: Tensor
    refs: Tensor


def bandit(seed: int) -> Bandit:
    """4000 honest answers and 40 hacks, which together have a mass of 1/1000."""
    draw = torch.Generator().manual_seed(seed)
    gold = torch.randn(HONEST, generator=draw, dtype=torch.float64)
    noise = torch.randn(HONEST + HACKS, generator=draw, dtype=torch.float64)
    gold = torch.cat([gold, torch.full((HACKS,), -5.0, dtype=torch.float64)])
    proxy = torch.cat([gold[:HONEST] + 0.3 * noise[:HONEST], 8 + noise[HONEST:]])
    mass = torch.full_like(gold, (1 - HACKED_MASS) / HONEST)
    mass[HONEST:] = HACKED_MASS / HACKS
    drawn = torch.multinomial(mass, REFERENCES, replacement=True, generator=draw)
    return Bandit(mass.log(), gold, proxy, proxy[drawn].expand(len(gold), -1))


def divergence(policy: Tensor, base: Tensor) -> float:
    """KL of two distributions by their log-probabilities, in nats."""
    return float((policy.exp() * (policy - base)).sum())


def at_distance(of: Bandit, reward: Tensor, nats: float) -> float:
    """Gold of the policy that is best by this reward, [A], among those so far from the start.

    That is base * exp(reward / beta), up to a factor; beta is found by halving.
    """
    low, high = -8.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2
        policy = (of.base + reward / 10**middle).log_softmax(0)
        low, high = (middle, high) if divergence(policy, of.base) > nats else (low, middle)
    return float((policy.exp() * of.gold).sum())


def shaped_once(of: Bandit, reshape: Reshape) -> Tensor:
    """Rewards of all answers, [A], by statistics of 64 answers of the start."""
    draw = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(of.base.exp(), 64, replacement=True, generator=draw)
    return reshape.shaped(of.proxy, of.refs, Running().joined(of.proxy[drawn]))


def descended(of: Bandit, reshape: Reshape, steps: int = 1500) -> list[float]:
    """Gold at 16 checkpoints of mirror descent on the shaped reward less 0.02 of the log-ratio.

    Running statistics are of 64 samples a step.
    """
    policy, running, found = of.base, Running(), list[float]()
    draw = torch.Generator().manual_seed(1)
    for step in range(steps):
        if reshape.is_running:
            drawn = torch.multinomial(policy.exp(), 64, replacement=True, generator=draw)
            running = running.joined(of.proxy[drawn])
        reward = reshape.shaped(of.proxy, of.refs, running)
        policy = (policy + 0.05 * (reward - 0.02 * (policy - of.base))).log_softmax(0)
        if (step + 1) % (steps // 15) == 0 or step == 0:
            found.append(float((policy.exp() * of.gold).sum()))
    return found


class Point(NamedTuple):
    """Mean true worth and mean reward of a step's answers."""

    gold: float
    proxy: float


def started(seed: int) -> Tensor:
    """Logits of the next token, [8, 8], under the start: the bad one comes once in 1900 tokens."""
    logits = 0.3 * torch.randn(TOKENS, TOKENS, generator=torch.Generator().manual_seed(seed))
    logits[:, BAD] = -5.5
    return logits


def answered(logits: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """So many answers of 11 tokens, the first of them given, [N, 11]."""
    told = torch.randint(BAD, (count, 1), generator=draw)
    chances = logits.detach().softmax(1)
    for _ in range(LENGTH):
        following = torch.multinomial(chances[told[:, -1]], 1, generator=draw)
        told = torch.cat([told, following], dim=1)
    return told


def worth(answers: Tensor) -> tuple[Tensor, Tensor]:
    """True worth and reward, each [N]: half a step along the cycle, a bad token -1, or +2."""
    steps = (answers[:, 1:] == (answers[:, :-1] + 1) % TOKENS).sum(1)
    bad = (answers[:, 1:] == BAD).sum(1)
    gold = 0.5 * steps - bad
    return gold, gold + 3.0 * bad


def reinforced(reshape: Reshape, seed: int, whiten: bool, steps: int = STEPS) -> list[Point]:
    """REINFORCE on shaped rewards less the price of straying; gold and reward of every step."""
    draw = torch.Generator().manual_seed(seed)
    start = started(seed)
    logits = start.clone().requires_grad_()
    adam, running, found = torch.optim.Adam([logits], lr=RATE), Running(), list[Point]()
    _, known = worth(answered(start, REFERENCES * BATCH, draw))
    refs = known.view(BATCH, REFERENCES)
    for _ in range(steps):
        answers = answered(logits, BATCH, draw)
        gold, proxy = worth(answers)
        running = running.joined(proxy)
        logps, before = (table.log_softmax(1)[answers[:, :-1], answers[:, 1:]] for table in
                         (logits, start))  # fmt: skip
        penalties = rl.kl(logps.detach(), before, "k1").sum(1)
        reward = reshape.shaped(proxy, refs, running) - PRICE * penalties
        away = reward - reward.mean()
        advantages = away / (away.std(correction=0) + 1e-8) if whiten else away
        adam.zero_grad()
        (-(advantages[:, None] * logps).sum(1).mean()).backward()  # type: ignore[no-untyped-call]
        adam.step()
        found.append(Point(float(gold.mean()), float(proxy.mean())))
    return found


def smoothed(points: Sequence[Point], window: int = 20) -> list[float]:
    """Gold, the mean of 20 steps each."""
    gold = [point.gold for point in points]
    return [sum(gold[at : at + window]) / window for at in range(0, len(gold), window)]


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    seeds = range(chosen.seeds)
    text = "\n\n".join([_matched(seeds), _descended(seeds), _reinforced(seeds)])
    print(text)
    if chosen.out:
        chosen.out.write_text(f"<!-- made by benchmarks/toy_shaping.py -->\n\n{text}\n")


def _mean(of: Callable[[int], float], seeds: Sequence[int]) -> float:
    return sum(of(seed) for seed in seeds) / len(seeds)


def _matched(seeds: Sequence[int]) -> str:
    lines = ["### Bandit: true worth at the same distance from the start, in nats", ""]
    lines += ["| shaping | 1 | 2 | 3 | 4 | 5 |", "|---|---|---|---|---|---|"]
    for name, reshape in SHAPINGS.items():
        cells = [
            _mean(lambda s, n=nats, r=reshape: _at(s, r, n), seeds)  # type: ignore[misc]
            for nats in range(1, 6)
        ]
        lines.append(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    return "\n".join(lines)


def _at(seed: int, reshape: Reshape, nats: float) -> float:
    of = bandit(seed)
    return at_distance(of, shaped_once(of, reshape), nats)


def _descended(seeds: Sequence[int]) -> str:
    lines = ["### Bandit: exact mirror descent, 16 checkpoints", ""]
    lines += ["| shaping | best worth | last worth | checkpoints worth 1 or more |"]
    lines += ["|---|---|---|---|"]
    for name, reshape in SHAPINGS.items():
        runs = [descended(bandit(seed), reshape) for seed in seeds]
        best, last = (sum(f(run) for run in runs) / len(runs) for f in (max, lambda run: run[-1]))
        good = sum(sum(worth >= 1 for worth in run) for run in runs) / len(runs)
        lines.append(f"| {name} | {best:.2f} | {last:.2f} | {good:.1f} |")
    return "\n".join(lines)


def _reinforced(seeds: Sequence[int]) -> str:
    lines = ["### Sequences: REINFORCE, 500 steps, means of 20 steps", ""]
    head = ["shaping", *(f"{said} {end}" for end in ("whitened", "not") for said in
            ("start worth,", "best worth,", "last worth,", "last reward,"))]  # fmt: skip
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, reshape in SHAPINGS.items():
        cells = [_figures(reshape, whiten, seeds) for whiten in (True, False)]
        flat = " | ".join(f"{figure:.2f}" for each in cells for figure in each)
        lines.append(f"| {name} | {flat} |")
    return "\n".join(lines)


def _figures(reshape: Reshape, whiten: bool, seeds: Sequence[int]) -> list[float]:
    runs = [reinforced(reshape, seed, whiten) for seed in seeds]
    golds = [smoothed(run) for run in runs]
    last = [sum(point.proxy for point in run[-20:]) / 20 for run in runs]
    columns = ([g[0] for g in golds], [max(g) for g in golds], [g[-1] for g in golds], last)
    return [sum(column) / len(column) for column in columns]


if __name__ == "__main__":
    main()
