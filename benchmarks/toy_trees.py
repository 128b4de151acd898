"""Tree search on language models small enough to know the best policy of, and on white noise.

    python -m benchmarks.toy_trees [--models 6] [--runs 60] [--out docs/search-toy.md]

The code that ranks and cuts is the farm's; what grows is a table. Prints three tables in Markdown:
a bigram model whose DPO policy is exact, or exact for a reward with noise; rewards that come late,
where ranking by the reward so far is worse than no tree; and white noise, whose limits are known.
"""

import argparse
from collections.abc import Iterator
from math import erf, exp, pi, sqrt
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from alpacafarm_core.trees import (
    WEIGHTINGS,
    Branching,
    PrefixLogps,
    partial_scores,
    segments,
    survivors,
)

MARK = "<!-- made by benchmarks/toy_trees.py -->"


class Toy(Protocol):
    """A language model whose answers all have the same length, and what its answers are worth.

    R runs, N branches, T tokens so far.
    """

    length: int

    def grow(self, before: Tensor, tokens: int, draw: Generator) -> Tensor:
        """So many tokens more for each branch, [R, N, T + tokens]."""

    def logps(self, branches: Tensor) -> PrefixLogps:
        """What the exact DPO policy and the model make of each token, [R * N, T]."""

    def reward(self, branches: Tensor) -> Tensor:
        """What each branch has earned so far, [R, N]."""


class Bigram:
    """Rows of a transition table from Dirichlet(0.5), rewards of transitions N(0, 0.5^2).

    The DPO policy is exact, at `beta`, for those rewards with noise of so many times their spread.
    `values` [L + 1, V] is what the rest of an answer is worth at that temperature: beta log E exp.
    """

    def __init__(self, seed: int, noise: float = 0.0, beta: float = 1.0, size: int = 12) -> None:
        self.length, self.beta = 24, beta
        drawn = torch.Generator().manual_seed(seed)
        gamma = torch._standard_gamma(torch.full((size, size), 0.5).double(), generator=drawn)
        self.chances = gamma / gamma.sum(1, keepdim=True)
        self.rewards = torch.randn(size, size, generator=drawn).double() * 0.5
        other = torch.randn(size, size, generator=drawn).double() * 0.5 * noise
        seen = self.rewards + other
        self.values = torch.zeros(self.length + 1, size).double()
        for step in reversed(range(self.length)):
            ahead = (seen + self.values[step + 1]) / beta
            self.values[step] = beta * (self.chances.log() + ahead).logsumexp(1)
        ratios = (seen + self.values[1:, None, :] - self.values[:-1, :, None]) / beta
        self.ratios = ratios  # [L, V, V]: of a transition at a step

    def grow(self, before: Tensor, tokens: int, draw: Generator) -> Tensor:
        """The first token follows token 0."""
        branches = before
        for _ in range(tokens):
            last = branches[..., -1] if branches.shape[-1] else branches.new_zeros(before.shape[:2])
            token = torch.multinomial(self.chances[last.flatten()], 1, generator=draw)
            branches = torch.cat([branches, token.view(*last.shape, 1)], -1)
        return branches

    def logps(self, branches: Tensor) -> PrefixLogps:
        """By table."""
        before, steps = _before(branches), torch.arange(branches.shape[-1])
        reference = self.chances.log()[before, branches]
        dpo = reference + self.ratios[steps, before, branches]
        return _flat(dpo, reference)

    def reward(self, branches: Tensor) -> Tensor:
        """By table."""
        return self.rewards[_before(branches), branches].sum(-1)


class Late:
    """Token 0 at the beginning costs 2, and each token 1 after it earns 1; nothing else counts."""

    def __init__(self, length: int = 16) -> None:
        self.length = length
        self.chances = torch.tensor([0.10, 0.15, 0.20, 0.20, 0.20, 0.15]).double()
        self.later = (0.85 + 0.15 * torch.tensor(1.0).exp()).log().item()

    def grow(self, before: Tensor, tokens: int, draw: Generator) -> Tensor:
        """Every token has the same chances."""
        runs, branches, _ = before.shape
        drawn = torch.multinomial(self.chances, runs * branches * tokens, True, generator=draw)
        return torch.cat([before, drawn.view(runs, branches, tokens)], -1)

    def logps(self, branches: Tensor) -> PrefixLogps:
        """The exact policy at temperature 1."""
        opened = (branches[..., :1] == 0).double()
        rest = (self.length - 1) * self.later
        whole = (0.9 + 0.1 * torch.tensor(rest - 2).exp()).log()
        first = opened * (rest - 2) - whole
        after = opened * ((branches[..., 1:] == 1).double() - self.later)
        reference = self.chances.log()[branches]
        return _flat(reference + torch.cat([first, after], -1), reference)

    def reward(self, branches: Tensor) -> Tensor:
        """The cost at once, the rest when it comes."""
        ones = (branches[..., 1:] == 1).sum(-1)
        return torch.where(branches[..., 0] == 0, ones - 2.0, 0.0).double()


class Noise:
    """Every segment earns an independent N(0, 1); what it has earned is all there is to know."""

    def __init__(self, layers: int) -> None:
        self.length = layers

    def grow(self, before: Tensor, tokens: int, draw: Generator) -> Tensor:
        """A token is what it earns."""
        drawn = torch.randn(*before.shape[:2], tokens, generator=draw).double()
        return torch.cat([before.double(), drawn], -1)

    def logps(self, branches: Tensor) -> PrefixLogps:
        """The log-ratio of a token is what it earns."""
        return _flat(branches, torch.zeros_like(branches))

    def reward(self, branches: Tensor) -> Tensor:
        """Their sum."""
        return branches.sum(-1)


def searched(toy: Toy, tree: Branching, runs: int, draw: Generator) -> Tensor:
    """The reward of the answer that a tree finds, the last choice by the true reward, [runs]."""
    lengths = segments(toy.length, tree.layers)
    empty = torch.zeros(runs, tree.width, 0, dtype=torch.long)
    level = toy.grow(empty, lengths[0], draw)
    for tokens in lengths[1:]:
        scores = _scores(toy, level, tree.partial, draw)
        kept = torch.tensor([survivors(each, tree.survivors) for each in scores.tolist()])
        parents = kept.repeat_interleave(tree.children, 1)
        stems = level.gather(1, parents[..., None].expand(-1, -1, level.shape[-1]))
        level = toy.grow(stems, tokens, draw)
    return toy.reward(level).amax(1)


def _scores(toy: Toy, level: Tensor, partial: str, draw: Generator) -> Tensor:
    """Of each branch, [R, N]."""
    if partial == "random":
        return torch.rand(level.shape[:2], generator=draw)
    if partial == "rm_prefix":
        return toy.reward(level)
    assert partial in WEIGHTINGS
    return partial_scores(toy.logps(level), partial, 0.95).view(level.shape[:2])


def _before(branches: Tensor) -> Tensor:
    return torch.cat([branches.new_zeros(*branches.shape[:2], 1), branches[..., :-1]], -1)


def _flat(dpo: Tensor, reference: Tensor) -> PrefixLogps:
    known = (dpo.flatten(0, 1), reference.flatten(0, 1))
    return PrefixLogps(*known, torch.ones_like(known[0], dtype=torch.bool))


def best_normal(n: int) -> float:
    """The mean of the highest of n standard normal numbers, by the trapezoid rule."""
    places = [step / 100 for step in range(-1000, 1001)]
    density = [
        x * n * exp(-x * x / 2) / sqrt(2 * pi) * ((1 + erf(x / sqrt(2))) / 2) ** (n - 1)
        for x in places
    ]
    return sum(density) / 100


class Found(NamedTuple):
    """Rewards of some runs: their mean and its standard error."""

    mean: float
    error: float

    @classmethod
    def of(cls, rewards: Tensor) -> "Found":
        """Mean over runs."""
        return cls(float(rewards.mean()), float(rewards.std() / len(rewards) ** 0.5))


def of_bigrams(tree: Branching, noise: float, models: int, runs: int) -> Tensor:
    """Rewards on several models, [models * runs], in the same order for every tree."""
    draw = torch.Generator().manual_seed(1)
    return torch.cat([searched(Bigram(seed, noise), tree, runs, draw) for seed in range(models)])


def bigrams(models: int, runs: int) -> Iterator[dict[str, str]]:
    """A row each noise of the DPO policy's rewards: best-of-n, and trees as wide at equal tokens.

    Errors are of paired differences to best-of-32, over runs on the same models.
    """
    for noise in (0, 1, 3):
        row, base = {"noise": str(noise)}, None
        for name, tree in _TREES.items():
            found = of_bigrams(tree, noise, models, runs)
            base = found if base is None else base
            gap = Found.of(found - base)
            row[name] = f"{found.mean():.2f}" + (f" ({gap.error:.2f})" if gap.error else "")
        yield row


_TREES = {
    "best of 32": Branching(width=32, layers=1),
    "best of 256": Branching(width=256, layers=1),
    **{
        f"m={layers} {partial}": Branching(width=32, layers=layers, partial=partial)
        for layers in (4, 8)
        for partial in ("dpo_sum", "weighted", "exp_decay", "random")
    },
}


def late(runs: int) -> Iterator[dict[str, str]]:
    """A row each partial score where the reward comes late."""
    for partial in ("none", "rm_prefix", "weighted", "dpo_sum", "random"):
        row = {"partial score": partial}
        for layers in (2, 4):
            tree = Branching(width=16, layers=1 if partial == "none" else layers)
            tree = tree if partial == "none" else tree.replace(partial=partial)
            found = Found.of(searched(Late(), tree, runs, torch.Generator().manual_seed(0)))
            row[f"m={layers}"] = f"{found.mean:.2f} ± {found.error:.2f}"
        yield row


def white_noise(runs: int) -> Iterator[dict[str, str]]:
    """A row each depth: best-of-16 and trees with c children on white noise, and their limits."""
    for layers in (2, 4):
        trees = {"best of 16": Branching(width=16, layers=1)} | {
            f"c={c}": Branching(width=16, children=c, layers=layers, partial="dpo_sum")
            for c in (1, 2, 4, 8, 16)
        }
        row = {"m": str(layers)}
        for name, tree in trees.items():
            draw = torch.Generator().manual_seed(0)
            found = Found.of(searched(Noise(layers), tree, runs, draw))
            row[name] = f"{found.mean:.3f} ± {found.error:.3f}"
        row["limit c=1"] = f"{layers**0.5 * best_normal(16):.3f}"
        row["limit c=16"] = f"{layers * best_normal(16):.3f}"
        yield row


def markdown(rows: Iterator[dict[str, str]]) -> str:
    """Rows as a Markdown table."""
    held = list(rows)
    lines = [" | ".join(held[0]), " | ".join("---" for _ in held[0])]
    lines += [" | ".join(row.values()) for row in held]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Print the tables, put them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=6, help="bigram models")
    parser.add_argument("--runs", type=int, default=60, help="runs on each; others take ten times")
    parser.add_argument("--out", type=Path, help="page whose tables are replaced")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tables = {
        "Bigram models, exact DPO policy": bigrams(asked.models, asked.runs),
        "A reward that comes late": late(10 * asked.runs),
        "White noise": white_noise(40 * asked.runs),
    }
    text = "\n\n".join(f"### {title}\n\n{markdown(rows)}" for title, rows in tables.items())
    print(text)
    if asked.out:
        by_hand = asked.out.read_text().split(MARK)[0] if asked.out.exists() else ""
        asked.out.write_text(f"{by_hand}{MARK}\n\n{text}\n")


if __name__ == "__main__":
    main()
