"""Pairs of answers to one prompt, made from a number for each. Frames in, frames out, no models.

Answers of equal number are put in the order of a hash of their text, so that the order of the rows
changes nothing. A pair without a gap says nothing and is left out.
"""

import polars as pl

from alpacafarm_core.artifacts import Ranked
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import digest
from alpacafarm_core.select import PROMPT
from alpacafarm_core.settings import Ranking

KNOWN = {
    "annotator": pl.lit("ranked"),
    "preference": pl.lit(1.0),
    "status": pl.lit("ok"),
    "is_switched": pl.lit(False),
    "is_noisy": pl.lit(False),
    "raw_completion": pl.lit(""),
    "prompt_digest": pl.lit(""),
    "tokens": pl.lit(0),
    "price": pl.lit(0.0),
    "seconds": pl.lit(0.0),
}


def ranked(scored: pl.DataFrame, ranking: Ranking) -> pl.DataFrame:
    """One pair a prompt: the answers in the places that the ranking names, as Ranked.

    Places count distinct answers, best first. Prompts that have not that many, and pairs with equal
    numbers, are left out; raises BadInput when none is left.
    """
    placed = _placed(scored)
    sides = {
        "chosen": at_place(placed, ranking.chosen),
        "rejected": at_place(placed, ranking.rejected),
    }
    rows = sides["chosen"].join(
        sides["rejected"], on=PROMPT, suffix="_other", maintain_order="left"
    )
    rows = rows.filter(pl.col("score") > pl.col("score_other"))
    gold = {"gold": pl.lit(""), "gold_ids": pl.lit([], dtype=pl.List(pl.Int32))}
    if ranking.gold is not None:
        best = at_place(placed, ranking.gold).select(
            *PROMPT, gold="output", gold_ids="output_ids", gold_place="place"
        )
        place = pl.col("gold_place")
        rows = rows.join(best, on=PROMPT, maintain_order="left").filter(
            place != pl.col("place"), place != pl.col("place_other")
        )
        gold = {"gold": pl.col("gold"), "gold_ids": pl.col("gold_ids")}
    if rows.is_empty():
        raise BadInput(
            f"no prompt of {scored.select(PROMPT).n_unique()} has answers in the places "
            f"{ranking.model_dump(exclude_none=True)} with different numbers; draw more answers"
        )
    return as_ranked(rows, gold)


def at_place(placed: pl.DataFrame, place: int) -> pl.DataFrame:
    """The answer of each prompt in a place: 1 is the best, -1 the worst."""
    wanted = pl.lit(place) if place > 0 else pl.col("count") + 1 + place
    return placed.filter(pl.col("place") == wanted)


def as_ranked(rows: pl.DataFrame, more: dict[str, pl.Expr]) -> pl.DataFrame:
    """Rows of a chosen answer and an `_other` one, as Ranked; `more` are further columns."""
    columns = {
        "output_1": pl.col("output"),
        "output_2": pl.col("output_other"),
        "output_1_ids": pl.col("output_ids"),
        "output_2_ids": pl.col("output_ids_other"),
        "generator_1": pl.col("generator"),
        "generator_2": pl.col("generator_other"),
        "gap": pl.col("score") - pl.col("score_other"),
        "win_1": pl.lit(None),
        "win_2": pl.lit(None),
        **KNOWN,
        **more,
    }
    made = rows.select(*PROMPT, "dataset", "tokenizer", **columns)
    return made.select(pl.col(name).cast(kind) for name, kind in Ranked.columns.items())


def _placed(scored: pl.DataFrame) -> pl.DataFrame:
    """Distinct answers with `place` from 1 within their prompt and the prompt's `count`."""
    hashed = pl.col("output").map_elements(digest, return_dtype=pl.String)
    rows = (
        scored.with_columns(hashed=hashed, at=pl.int_range(pl.len()))
        .sort("score", "hashed", "sample_index", descending=[True, False, False])
        .unique([*PROMPT, "output"], keep="first", maintain_order=True)
    )
    return rows.with_columns(
        place=pl.int_range(1, pl.len() + 1).over(PROMPT),
        count=pl.len().over(PROMPT).cast(pl.Int64),
        first=pl.col("at").min().over(PROMPT),
    ).sort("first", "place", maintain_order=True)
