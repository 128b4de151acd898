"""Tables of the toy: frames with the columns of the farm's own, and what is read off them."""

import polars as pl
import torch
from torch import Tensor

from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.settings import Sampling
from benchmarks.toy_training import Data
from benchmarks.toy_world import GROUPS, TOKENS, Answers, gold

RIDGE, NEWTON_STEPS = 1.0, 8


def prompts(worlds: int, count: int) -> pl.DataFrame:
    """`count` prompts of each world, world after world, as Instructions."""
    named = [
        (f"{world} {number}", "", str(world)) for world in range(worlds) for number in range(count)
    ]
    return pl.DataFrame(named, schema=["instruction", "input", "dataset"], orient="row")


def answered(rows: pl.DataFrame, ids: Tensor, mask: Tensor, sampling: Sampling) -> pl.DataFrame:
    """Prompts with a `sample_index` and the answers drawn to them, as Candidates."""
    lengths = mask.sum(1).long().tolist()
    texts = [
        " ".join(map(str, row[:length])) for row, length in zip(ids.tolist(), lengths, strict=True)
    ]
    output = pl.col("output")
    made = rows.with_columns(output=pl.Series(texts)).with_columns(
        output_ids=output.str.split(" "),
        finish_reason=pl.when(output.str.ends_with("0"))
        .then(pl.lit("stop"))
        .otherwise(pl.lit("length")),
        tokenizer=pl.lit("toy"),
        generator=pl.lit("toy"),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed,
    )
    return made.select(pl.col(name).cast(kind) for name, kind in Candidates.columns.items())


def first(rows: pl.DataFrame, count: int) -> pl.DataFrame:
    """The first rows of each world."""
    return rows.filter(pl.int_range(pl.len()).over("dataset") < count)


def with_gold(rows: pl.DataFrame) -> pl.DataFrame:
    """Answers with their true reward as `score`."""
    numbers = gold(Answers.of(rows, "output")).tolist()
    return rows.with_columns(score=pl.Series(numbers, dtype=pl.Float64))


def fitted(data: Data) -> Tensor:
    """Bradley-Terry weights of each token's share of an answer, [S, group, token].

    Newton's method on the pairs of each world, with a ridge that keeps unused weights at zero.
    """
    assert data.rejected is not None
    apart = _features(data.chosen) - _features(data.rejected)
    worlds = [_bradley_terry(part) for part in apart.split(data.counts)]
    return torch.stack(worlds).view(-1, GROUPS, TOKENS)


def _features(answers: Answers) -> Tensor:
    """The shares of an answer's tokens in the columns of its group, [N, group x token]."""
    held = torch.zeros(len(answers.ids), GROUPS, TOKENS)
    held[torch.arange(len(answers.ids)), answers.groups % GROUPS] = answers.shares
    return held.flatten(1)


def _bradley_terry(apart: Tensor) -> Tensor:
    """Weights [F] under which the first answer wins, from differences of features [N, F]."""
    weights = torch.zeros(apart.shape[1])
    for _ in range(NEWTON_STEPS):
        lost = torch.sigmoid(-apart @ weights)
        gradient = apart.T @ lost - RIDGE * weights
        curvature = (apart * (lost * (1 - lost))[:, None]).T @ apart
        weights = weights + torch.linalg.solve(
            curvature + RIDGE * torch.eye(len(weights)), gradient
        )
    return weights
