"""Scores without what length explains: r - b * (length - mean), the line fitted to other answers.

The line is that of least squares through a reward model's scores of answers nobody has optimised,
as the SFT model's; length is in characters, so that text without tokens can be scored too.
"""

import polars as pl

from alpacafarm_core.errors import BadInput

NAMED = "{} less length"


def residual(scored: pl.DataFrame, seen: pl.DataFrame) -> pl.DataFrame:
    """Scores less the slope on length times how much longer an answer is than those in `seen`.

    Both are Scores of one judge; so the mean over `seen` stays, and the judge's name says what was
    done. Raises BadInput where the judges differ, or lengths in `seen` do not.
    """
    judges = sorted({*scored["judge"].unique(), *seen["judge"].unique()})
    if len(judges) > 1:
        raise BadInput(
            f"the line is of another judge: {' and '.join(judges)}; score both tables by one"
        )
    slope, usual = line(seen)
    name = NAMED.format(*judges) if judges else ""
    less = slope * (_length() - usual)
    return scored.with_columns(score=pl.col("score") - less, judge=pl.lit(name))


def line(seen: pl.DataFrame) -> tuple[float, float]:
    """Slope of the scores on length, a character, and the mean length.

    Raises BadInput where all answers are equally long.
    """
    rows = seen.select("score", length=_length())
    told = rows.select(
        slope=pl.cov("score", "length") / pl.col("length").var(), usual=pl.col("length").mean()
    )
    slope, usual = told.row(0)
    if slope is None or slope != slope:
        raise BadInput(
            f"the {rows.height} answers that the line is fitted to are equally long; draw more of "
            "them"
        )
    return slope, usual


def _length() -> pl.Expr:
    return pl.col("output").str.len_chars()
