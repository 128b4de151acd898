"""Binarisation: pairs of rated answers, in seven ways, as data sets were made of UltraFeedback.

    h4             the best over another one at random; ties stay in
    argilla        the best over a worse one at random
    argilla-multi  the best over each worse one
    all-pairs      every better one over every worse one
    triple         the second over the worst, with the best as gold
    curriculum     the best over the worst, over the third, over the second: from easy to hard
    best-worst     the best over the worst

Answers that are one text count as one, and answers without a mark are left out. What is drawn at
random depends on the prompt's own rows alone. Frames in, frames out.
"""

from typing import Literal

import polars as pl
from pydantic import Field, model_validator

from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import digest
from alpacafarm_core.pairs import PAIR, as_ranked, at_place, by_place, ranked
from alpacafarm_core.select import PROMPT
from alpacafarm_core.settings import Ranking
from alpacafarm_core.values import Value

Name = Literal["h4", "argilla", "argilla-multi", "all-pairs", "triple", "curriculum", "best-worst"]
STAGES = (-1, 3, 2)
"""Places of the rejected answer in a curriculum, stage by stage."""


class Binarisation(Value):
    """Which rated answers to a prompt make pairs."""

    name: Name = Field(default="argilla", description="Which pairs are made")
    by: Literal["fine", "overall"] | None = Field(
        default=None, description="Mean mark or overall score; h4: overall"
    )
    without: tuple[str, ...] = Field(default=(), description="Sources that are left out")
    stage: int = Field(default=0, ge=0, le=3, description="Stage of a curriculum; 0: all")
    seed: int = Field(default=0, ge=0, description="Seed of the random rejected")

    @model_validator(mode="after")
    def _has_stages(self) -> "Binarisation":
        if self.stage and self.name != "curriculum":
            raise ValueError(f"{self.name!r} has no stage {self.stage}; only a curriculum has some")
        return self

    @property
    def column(self) -> Literal["fine", "overall"]:
        """The number of an answer that counts."""
        return self.by or ("overall" if self.name == "h4" else "fine")


def binarised(ratings: pl.DataFrame, binarisation: Binarisation) -> pl.DataFrame:
    """Pairs of rated answers as Ranked, `gap` being the difference of the numbers that counted.

    Raises BadInput where no answer has that number, or no pair a difference.
    """
    rows = _counted(ratings, binarisation)
    ways = [Ranking(rejected=place) for place in STAGES]
    match binarisation.name:
        case "best-worst":
            return ranked(rows, Ranking())
        case "triple":
            return ranked(rows, Ranking(gold=1, chosen=2, rejected=-1))
        case "curriculum" if binarisation.stage:
            return ranked(rows, ways[binarisation.stage - 1])
        case "curriculum":
            return ranked(rows, Ranking(rejected=STAGES))
        case "h4":
            return _some(_one_each(_best_over(rows), binarisation.seed), ratings)
        case "argilla":
            return _some(_one_each(_apart(_best_over(rows)), binarisation.seed), ratings)
        case "argilla-multi":
            return _some(_apart(_best_over(rows)), ratings)
        case "all-pairs":
            return _some(_apart(_all_over(rows)), ratings)


def unpaired(ratings: pl.DataFrame, pairs: pl.DataFrame) -> int:
    """How many prompts gave no pair."""
    return ratings.select(PROMPT).unique().join(pairs, on=PROMPT, how="anti").height


def _counted(ratings: pl.DataFrame, binarisation: Binarisation) -> pl.DataFrame:
    """Answers with the number that counts as `score`."""
    column = binarisation.column
    if column not in ratings.columns:
        raise BadInput(
            f"pairs by {binarisation.name!r} need ratings with a column {column!r}; these rows "
            f"have {', '.join(ratings.columns)}"
        )
    kept = ratings.filter(~pl.col("dataset").is_in(binarisation.without))
    rows = kept.with_columns(score=pl.col(column).cast(pl.Float64)).drop_nulls("score")
    if rows.is_empty():
        mend = "have them criticised, or take by=fine" if column == "overall" else "rate them"
        raise BadInput(f"none of {kept.height} answers has a number {column!r}; {mend}")
    return rows


def _best_over(rows: pl.DataFrame) -> pl.DataFrame:
    """The best answer of each prompt beside each other one, whose columns end in `_other`."""
    answers = by_place(rows)
    others = answers.filter(pl.col("place") > 1)
    return at_place(answers, 1).join(
        others, on=PROMPT, suffix="_other", maintain_order="left_right"
    )


def _all_over(rows: pl.DataFrame) -> pl.DataFrame:
    """Every answer beside every other one to its prompt."""
    answers = by_place(rows)
    return answers.join(answers, on=PROMPT, suffix="_other", maintain_order="left_right")


def _apart(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.filter(pl.col("score") > pl.col("score_other"))


def _one_each(pairs: pl.DataFrame, seed: int) -> pl.DataFrame:
    """One pair of each prompt, drawn by a hash of prompt and rejected answer."""
    texts = pairs.select(*PROMPT, "output_other").iter_rows()
    drawn = pl.Series("drawn", [digest("rejected", seed, *text) for text in texts], dtype=pl.String)
    rows = pairs.with_columns(drawn, first=pl.int_range(pl.len()).min().over(PROMPT))
    one = rows.sort("drawn", maintain_order=True).unique(PROMPT, keep="first", maintain_order=True)
    return one.sort("first")


def _some(pairs: pl.DataFrame, ratings: pl.DataFrame) -> pl.DataFrame:
    """The pairs as Ranked; raises BadInput where there is none."""
    if pairs.is_empty():
        raise BadInput(
            f"the answers to none of {ratings.select(PROMPT).n_unique()} prompts make a pair: "
            "they are one text, have no mark, or equal ones; have more of them rated"
        )
    return as_ranked(pairs, {}).unique(PAIR, keep="first", maintain_order=True)
