"""Branches of search trees as rows: a layer cut, its leaves, the answer chosen. Pure.

A prompt has a tree for each answer asked of it; the first `width` roots are of the first tree. Rows
come in the order of prompt, tree and place in the layer.
"""

from collections.abc import Sequence

import polars as pl

from alpacafarm_core.artifacts import Branches, Candidates
from alpacafarm_core.search import best
from alpacafarm_core.trees import Pruning, offspring, survivors

STOP = "stop"
TREE = ["row", "tree"]


def pruned(rows: pl.DataFrame, pruning: Pruning) -> pl.DataFrame:
    """The layer with `survives` and `children` of each branch, by its `score` in its own tree."""
    survives: list[bool] = []
    children: list[int] = []
    for scores, reasons in _trees(rows, pruning.width, "score", "finish_reason"):
        kept = survivors(scores, pruning.survivors)
        grown = offspring([reasons[at] == STOP for at in kept], pruning)
        of = dict(zip(kept, grown, strict=True))
        survives += [at in of for at in range(len(scores))]
        children += [of.get(at, 0) for at in range(len(scores))]
    return rows.with_columns(
        survives=pl.Series(survives, dtype=pl.Boolean), children=pl.Series(children, dtype=pl.Int64)
    )


def leaves(layers: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The last layer, and every branch that ended in an earlier one, each of them once."""
    last, earlier = layers[-1], layers[:-1]
    ended = [layer.filter(pl.col("finish_reason") == STOP) for layer in earlier]
    pool = pl.concat([last, *ended]).unique(["row", "own_seed"], keep="first", maintain_order=True)
    return (
        pool.sort("row", "root", maintain_order=True)
        .with_columns(
            sample_index=pl.int_range(pl.len()).over("row"),
            max_tokens=pl.lit(last["max_tokens"].max()),
        )
        .select(list(Branches.columns))
    )


def chosen(rows: pl.DataFrame, width: int) -> pl.DataFrame:
    """Candidates: of each tree the branch with the highest `score`, the first of equals."""
    kept, start = [], 0
    for (scores,) in _trees(rows, width, "score"):
        kept.append(start + best(scores))
        start += len(scores)
    answers = rows[kept].with_columns(sample_index=pl.col("root") // width)
    return answers.select(list(Candidates.columns))


def scored_by(label: str) -> pl.Expr:
    """Whether the ranker of this name has scored a branch, then or in a layer before."""
    return (pl.col("judge") == label).fill_null(False)


def _trees(rows: pl.DataFrame, width: int, *columns: str) -> Sequence[tuple[list, ...]]:  # type: ignore[type-arg]
    """The columns of each tree as lists, tree by tree."""
    known = rows.with_columns(tree=pl.col("root") // width)
    grouped = known.group_by(TREE, maintain_order=True).agg(*columns)
    return grouped.select(columns).rows()
