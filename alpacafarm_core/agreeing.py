"""Pairs without a label: what most of a policy's answers say, over what the others say.

SPG of Lang et al. 2024 (arXiv 2403.19279). Frames in, frames out, no models.
"""

from collections.abc import Sequence
from random import Random
from statistics import fmean

import polars as pl

from alpacafarm_core.clustering import Agreement
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import digest
from alpacafarm_core.pairs import as_ranked
from alpacafarm_core.select import PROMPT


def agreed(clusters: pl.DataFrame, agreement: Agreement) -> pl.DataFrame:
    """A pair for each prompt whose answers agree enough, as Ranked; possibly none.

    The chosen answer is of the largest cluster: the one with the highest score (of equal ones the
    earlier sample), or any. The rejected one is drawn from all samples outside it. A prompt is
    skipped where the largest cluster holds less than `gamma` of its answers, or all of them. `gap`
    is the share that agrees. Raises BadInput where the rows are no clusters.
    """
    if "cluster" not in clusters.columns:
        raise BadInput(
            f"pairs by agreement need clusters; these have the columns "
            f"{', '.join(clusters.columns)}: cluster the scored answers first"
        )
    rows = clusters.with_row_index("number").sort("sample_index", maintain_order=True)
    answers = rows.group_by(PROMPT, maintain_order=True).agg("number", "cluster", "score")
    pairs, shares = list[tuple[int, int]](), list[float]()
    for prompt, (numbers, groups, scores) in answers.rows_by_key(PROMPT, unique=True).items():
        inside, outside = sides(groups, scores)
        share = len(inside) / len(groups)
        if share >= agreement.gamma and outside:
            coins = Random(digest(agreement.seed, *prompt))
            best = max(inside, key=lambda at: scores[at])
            winner = best if agreement.winner == "argmax" else coins.choice(inside)
            pairs.append((numbers[winner], numbers[coins.choice(outside)]))
            shares.append(share)
    return _paired(clusters, pairs, shares)


def sides(groups: Sequence[int], scores: Sequence[float]) -> tuple[list[int], list[int]]:
    """Places of the answers in the largest group, and of the others.

    Of groups of equal size the one with the higher mean score counts, then the lower number.
    """
    members: dict[int, list[int]] = {}
    for at, group in enumerate(groups):
        members.setdefault(group, []).append(at)

    def worth(group: int) -> tuple[int, float, int]:
        held = members[group]
        return len(held), fmean(scores[at] for at in held), -group

    largest = max(members, key=worth)
    return members[largest], [at for at, group in enumerate(groups) if group != largest]


def acceptance(clusters: pl.DataFrame, pairs: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Of each dataset the share of prompts that gave a pair, and the mean share that agrees."""
    prompts = clusters.unique(PROMPT, keep="first", maintain_order=True)
    taken = prompts.join(pairs, on=PROMPT, how="semi")
    kept = dict(taken.group_by("dataset").agg(pl.len()).rows())
    whole = prompts.group_by("dataset").agg(pl.len(), pl.col("confidence").mean()).sort("dataset")
    return {
        "accepted": {str(name): kept.get(name, 0) / count for name, count, _ in whole.rows()},
        "agreement": {str(name): mean for name, _, mean in whole.rows()},
    }


def _paired(
    rows: pl.DataFrame, pairs: Sequence[tuple[int, int]], shares: Sequence[float]
) -> pl.DataFrame:
    """Pairs of rows by their numbers, each with the share of the prompt's answers that agrees."""
    chosen, rejected = (rows[[pair[side] for pair in pairs]] for side in (0, 1))
    other = rejected.select(pl.all().name.suffix("_other"))
    share = pl.Series("share", shares, dtype=pl.Float64)
    both = pl.concat([chosen, other], how="horizontal").with_columns(share)
    return as_ranked(both, {"gap": pl.col("share"), "annotator": pl.lit("spg")})
