"""Selection: which rows are worth imitating or comparing. Frames in, frames out, no models."""

import polars as pl

from alpacafarm_core.artifacts import Demonstrations, Preferences
from alpacafarm_core.errors import BadInput
from alpacafarm_core.settings import Rule

PROMPT = ["instruction", "input"]


def select(rows: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """Demonstrations from scored answers ("best") or from labelled pairs ("chosen").

    Of equal scores the earlier sample is kept; ties and missing labels choose nothing.
    """
    if rule.keep == "best":
        kept = rows.sort("score", descending=True, maintain_order=True)
        kept = kept.unique(PROMPT, keep="first", maintain_order=True)
    else:
        kept = chosen(rows)
    if kept.is_empty():
        raise BadInput(f"rule {rule.keep!r} keeps none of {rows.height} rows; check their labels")
    return kept.select(list(Demonstrations.columns))


def chosen(pairs: pl.DataFrame) -> pl.DataFrame:
    """The preferred output of each decided pair, with its token ids."""
    first = pl.col("preference") < 1.5
    decided = pairs.filter(pl.col("preference") != 1.5)
    return decided.with_columns(
        output=pl.when(first).then("output_1").otherwise("output_2"),
        output_ids=pl.when(first).then("output_1_ids").otherwise("output_2_ids"),
    )


def prefer(chosen: pl.DataFrame, rejected: pl.DataFrame) -> pl.DataFrame:
    """Preferences for the chosen over every rejected answer to the same prompt.

    Raises BadInput when no prompt is in both. Tokens are kept where both have the same tokenizer.
    """
    pairs = chosen.join(
        rejected.drop("dataset"), on=PROMPT, suffix="_rejected", maintain_order="left"
    )
    if pairs.is_empty():
        raise BadInput("no prompt is in both tables; generate answers for the chosen prompts")
    same = pl.col("tokenizer") == pl.col("tokenizer_rejected")
    none = pl.lit([], dtype=pl.List(pl.Int32))
    known = {
        "output_1": pl.col("output"),
        "output_2": pl.col("output_rejected"),
        "output_1_ids": pl.when(same).then("output_ids").otherwise(none),
        "output_2_ids": pl.when(same).then("output_ids_rejected").otherwise(none),
        "tokenizer": pl.when(same).then("tokenizer").otherwise(pl.lit("")),
        "generator_1": pl.lit("demonstration"),
        "generator_2": pl.col("generator"),
        "annotator": pl.lit("known"),
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
    return pairs.select("instruction", "input", "dataset", **known).select(
        list(Preferences.columns)
    )
