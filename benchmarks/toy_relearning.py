"""A toy of reward models that learn again from a policy's answers, exact enough to know why.

    python -m benchmarks.toy_relearning [--seeds 10] [--out docs/relearning-toy.md]

An answer is correct (c = 1) or not, and has eight features: two noisy views of c, a style, and five
that mean nothing. In labelled pairs style goes with correctness, so a reward model learns to like
it; in the answers of the policy, which has been trained for style, it goes slightly against. Wrong
answers are spread over five kinds, so most answers of a prompt that agree are right; on some
prompts one wrong answer dominates instead. The reward model is linear, fitted by Bradley-Terry.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor

from alpacafarm_core.agreeing import agreed
from alpacafarm_core.clustering import Agreement

PAIRS, SAMPLES, WRONG, BEST = 1000, 10, 5, 16
FIXED, ARGMAX, RANDOM = "fixed", "SPG, argmax", "SPG, random winner"
VIEWS, NOISE, SPREAD = 2, 5, 0.83


class Toy(NamedTuple):
    """How the policy answers: how often right, as Beta parameters, and how often misled.

    Of `dominated` prompts a wrong answer has the place of the right one, and what else is answered
    is right.
    """

    right: tuple[float, float] = (3.0, 2.0)
    dominated: float = 0.0
    prompts: int = 1000


class Answers(NamedTuple):
    """Answers to prompts: features [P, K, 8], correctness [P, K], and which answer it is [P, K].

    Answer 0 is the right one, 1 to 5 are wrong.
    """

    features: Tensor
    correct: Tensor
    kinds: Tensor


class Pairs(NamedTuple):
    """Pairs by their features, [N, 8] each, the chosen one first."""

    chosen: Tensor
    rejected: Tensor

    def and_also(self, more: Pairs) -> Pairs:
        """These and more, one below the other."""
        both = zip(self, more, strict=True)
        return Pairs(*(torch.cat(sides) for sides in both))


def seen(correct: Tensor, style: Tensor, draw: torch.Generator) -> Tensor:
    """The features of answers of this correctness and style, [..., 8]."""

    def normal(count: int) -> Tensor:
        return torch.randn(*correct.shape, count, generator=draw)

    views = correct[..., None] + SPREAD * normal(VIEWS)
    return torch.cat([views, style[..., None], normal(NOISE)], -1)


def labelled(draw: torch.Generator) -> Pairs:
    """Pairs of the start, in which style goes with correctness, with noisy labels."""
    correct = torch.randint(0, 2, (PAIRS, 2), generator=draw).float()
    style = torch.randn(PAIRS, 2, generator=draw) + 1.5 * correct
    return judged(seen(correct, style, draw), correct, draw)


def judged(features: Tensor, correct: Tensor, draw: torch.Generator) -> Pairs:
    """Pairs with Bradley-Terry labels of the truth, margin 2; features [N, 2, 8]."""
    chance = torch.sigmoid(2 * (correct[:, 0] - correct[:, 1]))
    first = (torch.rand(len(chance), generator=draw) < chance).long()
    return ordered(features, 1 - first)


def ordered(features: Tensor, best: Tensor) -> Pairs:
    """Pairs whose better answer, 0 or 1, is known; features [N, 2, 8]."""
    rows = torch.arange(len(best))
    return Pairs(features[rows, best], features[rows, 1 - best])


def answered(toy: Toy, samples: int, draw: torch.Generator) -> Answers:
    """What the policy answers, so many samples to each prompt."""
    prompts = toy.prompts
    one, other = (
        torch._standard_gamma(torch.full((prompts,), shape), generator=draw) for shape in toy.right
    )
    often = (one / (one + other))[:, None]
    main = (torch.rand(prompts, generator=draw) < toy.dominated).long()[:, None]
    elsewhere = torch.randint(1, WRONG + 1, (prompts, samples), generator=draw)
    # Where a wrong answer dominates, the others are right.
    rest = torch.where(main == 1, 0, elsewhere)
    kinds = torch.where(torch.rand(prompts, samples, generator=draw) < often, main, rest)
    correct = (kinds == 0).float()
    style = 2 + 1.5 * torch.randn(prompts, samples, generator=draw) - 0.5 * correct
    return Answers(seen(correct, style, draw), correct, kinds)


def fitted(pairs: Pairs, decay: float = 1.0) -> Tensor:
    """Weights [8] of the Bradley-Terry model of these pairs, by Newton's method."""
    apart = (pairs.chosen - pairs.rejected).double()
    weights = torch.zeros(apart.shape[1], dtype=torch.float64)
    ridge = decay * torch.eye(apart.shape[1], dtype=torch.float64)
    for _ in range(20):
        doubt = torch.sigmoid(-(apart @ weights))
        slope = apart.T @ doubt - decay * weights
        curve = (apart * (doubt * (1 - doubt))[:, None]).T @ apart + ridge
        weights = weights + torch.linalg.solve(curve, slope)
    return weights.float()


def agreeing(answers: Answers, weights: Tensor, agreement: Agreement) -> tuple[Pairs, float]:
    """The pairs that agreement makes, and the share in which the chosen one alone is right.

    Of pairs of equal correctness none counts.
    """
    prompts, samples = answers.kinds.shape
    numbers = torch.arange(prompts * samples)
    rows = pl.DataFrame(
        {
            "instruction": (numbers // samples).numpy(),
            "sample_index": (numbers % samples).numpy(),
            "output": numbers.numpy(),
            "cluster": answers.kinds.flatten().numpy(),
            "score": (answers.features @ weights).flatten().numpy(),
        }
    ).with_columns(
        pl.col("instruction", "output").cast(pl.String),
        *(pl.lit("").alias(name) for name in ("input", "dataset", "tokenizer", "generator")),
        output_ids=pl.lit([], dtype=pl.List(pl.Int32)),
    )
    made = agreed(rows, agreement)
    sides = (torch.tensor(made[name].cast(pl.Int64).to_list()) for name in ("output_1", "output_2"))
    chosen, rejected = sides
    features, correct = answers.features.flatten(0, 1), answers.correct.flatten()
    return Pairs(features[chosen], features[rejected]), right(correct[chosen], correct[rejected])


def right(chosen: Tensor, rejected: Tensor) -> float:
    """Share of pairs of different correctness in which the chosen one is correct."""
    apart = chosen != rejected
    return float((chosen > rejected)[apart].float().mean())


def accuracy(weights: Tensor, answers: Answers) -> float:
    """Share of neighbouring answers of different correctness that are put in the right order."""
    scores = (answers.features @ weights).reshape(len(answers.features), -1, 2)
    correct = answers.correct.reshape(scores.shape)
    best = scores.argmax(-1, keepdim=True)
    taken, left = correct.gather(-1, best), correct.gather(-1, 1 - best)
    return right(taken, left)


def best_of(weights: Tensor, answers: Answers) -> float:
    """Share of prompts whose best answer by the model is correct."""
    best = (answers.features @ weights).argmax(1, keepdim=True)
    return float(answers.correct.gather(1, best).mean())


class Found(NamedTuple):
    """One reward model: accuracy on the policy's pairs, of its new labels, and of best-of-16."""

    accuracy: float
    labels: float | None
    best: float


def run(seed: int, toy: Toy = Toy()) -> dict[str, Found]:  # noqa: B008 (a NamedTuple)
    """Every reward model of the table on one drawn world."""
    draw = torch.Generator().manual_seed(seed)
    start = labelled(draw)
    answers, fresh = (answered(toy, samples, draw) for samples in (SAMPLES, BEST))
    fixed = fitted(start)
    two, truth = answers.features[:, :2], answers.correct[:, :2]
    by_itself = (two @ fixed).argmax(1)
    rows = torch.arange(toy.prompts)
    own = right(truth[rows, by_itself], truth[rows, 1 - by_itself])
    made: dict[str, tuple[Pairs | None, float | None]] = {
        FIXED: (None, None),
        "own ranking": (ordered(two, by_itself), own),
        ARGMAX: agreeing(answers, fixed, Agreement(seed=seed)),
        RANDOM: agreeing(answers, fixed, Agreement(winner="random", seed=seed)),
        "all prompts, argmax": agreeing(answers, fixed, Agreement(gamma=0.0, seed=seed)),
        "annotator's labels": (judged(two, truth, draw), None),
    }
    found = {}
    for name, (pairs, labels) in made.items():
        weights = fixed if pairs is None else fitted(start.and_also(pairs))
        found[name] = Found(accuracy(weights, fresh), labels, best_of(weights, fresh))
    return found


def main() -> None:
    """Print the tables, put them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="worlds, numbered from 0")
    parser.add_argument("--out", type=Path, help="file for the tables")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    text = "\n\n".join(tables(asked.seeds))
    print(text)
    if asked.out:
        asked.out.write_text(f"<!-- made by benchmarks/toy_relearning.py -->\n\n{text}\n")


def tables(seeds: int) -> Iterator[str]:
    """Every reward model where right answers agree, and SPG where wrong ones do."""
    runs = [run(seed) for seed in range(seeds)]
    head = ["reward model", "accuracy on the policy's pairs", "its new labels", "best of 16 right"]
    rows = [
        [name, *(shown([getattr(found[name], field) for found in runs]) for field in Found._fields)]
        for name in runs[0]
    ]
    yield f"### Toy: right answers agree, {seeds} worlds\n\n{markdown(head, rows)}"
    shares = (0.0, 0.1, 0.25, 0.5, 0.75)
    by_share = {
        share: [run(seed, Toy(dominated=share)) for seed in range(seeds)] for share in shares
    }
    names = (FIXED, ARGMAX, RANDOM)
    rows = [
        [f"{share:.0%}", *(shown([found[name].accuracy for found in some]) for name in names)]
        for share, some in by_share.items()
    ]
    head = ["prompts on which a wrong answer dominates", *names]
    yield f"### Toy: accuracy where wrong answers agree\n\n{markdown(head, rows)}"


def shown(figures: Sequence[float | None]) -> str:
    """Mean with its standard error."""
    known = [each for each in figures if each is not None]
    if not known:
        return ""
    return f"{fmean(known):.3f} ± {stdev(known) / len(known) ** 0.5:.3f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
