"""Users of the toy: they dislike answers that are bad on balance, and name the token to avoid.

A policy that is shown the complaint finds that token less likely and the good one more, by a nat
each. Some conversations go on until there is an answer that the user likes.
"""

import polars as pl
import torch
from torch import Tensor

from alpacafarm_core.artifacts import Interactions
from benchmarks.toy_world import BAD, GOOD, GROUPS, TOKENS, groups_of

COMPLAINT, LIKES, HINT, TURNED = "less of", 0.5, 1.0, 24


def talks(scored: pl.DataFrame) -> pl.DataFrame:
    """Conversations about answers with their true reward as `score`, as Interactions.

    The first answer to a prompt is disliked where its reward is below 0; the first later one of at
    least one half is accepted, in the first 24 conversations of each world that have one.
    """
    prompt = ["instruction", "input"]
    later = scored.filter(pl.col("sample_index") > 0, pl.col("score") >= LIKES)
    accepted = later.unique(prompt, keep="first", maintain_order=True).select(
        *prompt, accepted="output"
    )
    disliked = scored.filter(pl.col("sample_index") == 0, pl.col("score") < 0)
    rows = disliked.join(accepted, on=prompt, how="left", maintain_order="left")
    turned = pl.col("accepted").is_not_null()
    is_among_first = turned & (turned.cum_sum().over("dataset") <= TURNED)
    tokens = BAD[groups_of(rows)].tolist()
    made = rows.with_columns(
        history=pl.lit("[]"),
        response="output",
        feedback=pl.Series([f"{COMPLAINT} {token}" for token in tokens]),
        label=pl.lit("DSAT"),
        next_response=pl.when(is_among_first).then("accepted").otherwise(pl.lit("")),
    )
    return made.select(pl.col(name).cast(kind) for name, kind in Interactions.columns.items())


def hints(rows: pl.DataFrame) -> Tensor:
    """What each row's prompt adds to the logits of every token, [N, 1, token]."""
    groups, every = groups_of(rows), torch.arange(GROUPS)
    hint = torch.zeros(GROUPS, TOKENS)
    hint[every, GOOD], hint[every, BAD] = HINT, -HINT
    is_shown = torch.zeros(rows.height)
    if "prompt" in rows.columns:
        is_shown = rows["prompt"].str.contains(COMPLAINT, literal=True).to_torch().float()
    return (hint[groups] * is_shown[:, None])[:, None]
