"""Selection: which rows are worth imitating or comparing. Frames in, frames out, no models."""

from collections.abc import Iterable, Iterator, Sequence

import polars as pl

from alpacafarm_core.artifacts import Demonstrations, Graded, Preferences
from alpacafarm_core.committees import Verdict
from alpacafarm_core.errors import BadInput, TrainingFailed
from alpacafarm_core.settings import Rule

PROMPT = ["instruction", "input"]
LABEL = [*PROMPT, "output_1", "output_2", "annotator", "preference"]
PART = 50_000  # pairs in memory at a time


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


def finite(scored: Iterable[pl.DataFrame], judge: str) -> Iterator[pl.DataFrame]:
    """The same rows, part by part; raises TrainingFailed where a score is no finite number."""
    before = 0
    for rows in scored:
        wrong = rows["score"].is_finite().not_().fill_null(True).arg_true()
        if not wrong.is_empty():
            raise TrainingFailed(
                f"row {before + wrong[0]}: {judge} gives the score {rows['score'][wrong[0]]}, no "
                "finite number; fit it again at a lower learning rate, or take another judge"
            )
        yield rows
        before += rows.height


def agreed(tables: Sequence[pl.DataFrame], verdict: Verdict) -> pl.DataFrame:
    """Scores of the same answers by several judges as one, with their spread, as Uncertain.

    Raises BadInput where the tables are of other answers.
    """
    first, answer = tables[0], pl.exclude("score", "judge")
    for other in tables[1:]:
        if not other.select(answer).equals(first.select(answer)):
            raise BadInput(
                f"{first['judge'][0]} and {other['judge'][0]} scored other answers; score the same "
                "table with each"
            )
    given = zip(*(table["score"].to_list() for table in tables), strict=True)
    scores, spreads = zip(*(verdict.of(each) for each in given), strict=True)
    names = " ".join(str(table["judge"][0]) for table in tables)
    judge = f"{verdict.combine} of {names}"
    return first.with_columns(
        score=pl.Series(scores, dtype=pl.Float64),
        judge=pl.lit(judge),
        spread=pl.Series(spreads, dtype=pl.Float64),
    )


def graded(pairs: pl.DataFrame) -> pl.DataFrame:
    """Both answers of each decided pair, the preferred ones with tag 0, the others with tag 1.

    Rows of a pair stand together. Raises BadInput where no pair is decided.
    """
    turned = pairs.with_columns(preference=3 - pl.col("preference"))
    sides = [chosen(each).with_row_index("pair") for each in (pairs, turned)]
    both = [side.with_columns(tag=pl.lit(tag)) for tag, side in enumerate(sides)]
    rows = pl.concat(both).sort("pair", maintain_order=True)
    if rows.is_empty():
        raise BadInput(f"none of {pairs.height} pairs is decided; check their labels")
    return rows.select(pl.col(name).cast(kind) for name, kind in Graded.columns.items())


def shared(prompts: pl.DataFrame, number: int, of: int) -> pl.DataFrame:
    """Every `of`-th prompt from the `number`-th on; 1 to `of` have all prompts and none in common.

    A prompt that stands in the table twice stays whole. Raises BadInput where some would be empty.
    """
    if not 1 <= number <= of:
        raise BadInput(f"there is no share {number} of {of}; count from 1 to {of}")
    different = prompts.n_unique(PROMPT)
    if of > different:
        raise BadInput(
            f"{of} shares of {different} different prompts leave some without any; ask for at most "
            f"{different} rounds or parts, or give more prompts"
        )
    rows = prompts.with_row_index("at")
    prompt = pl.col("at").first().over(PROMPT).rank("dense") - 1
    return rows.filter(prompt % of == number - 1).drop("at")


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


def prefer_in_parts(
    chosen: pl.LazyFrame, rejected: pl.LazyFrame, part: int = PART
) -> Iterator[pl.DataFrame]:
    """The pairs of `prefer`, in its order, about `part` at a time; for tables too large to hold.

    Quickest where both tables have their prompts in the same order.
    """
    places = _places(chosen, rejected)
    if places.is_empty():
        prefer(chosen.head(0).collect(), rejected.head(0).collect())  # refuses
    number = (pl.col("pairs").cast(pl.Int64).cum_sum() // part).alias("number")
    spans = places.group_by(number, maintain_order=True).agg(
        pl.col("place").first(),
        height=pl.col("place").last() - pl.col("place").first() + 1,
        start=pl.col("first").min(),
        length=pl.col("last").max() - pl.col("first").min() + 1,
    )
    for place, height, start, length in spans.drop("number").iter_rows():
        some = chosen.slice(place, height).collect()
        known = some.select(_prompt()).to_series()
        theirs = rejected.slice(start, length).filter(_prompt().is_in(known.implode())).collect()
        yield prefer(some, theirs)


def united(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Preferences one below the other; a label that an earlier table holds is left out.

    A label is the same where prompt, outputs, annotator and preference are. Rows of one table all
    stay, so that a table united with itself, or with an empty one, is that table. Raises BadInput
    where ids are of more than one tokenizer.
    """
    whole = tables[0].select(list(Preferences.columns))
    for table in tables[1:]:
        more = table.select(list(Preferences.columns))
        fresh = more.join(whole, on=LABEL, how="anti", nulls_equal=True, maintain_order="left")
        whole = pl.concat([whole, fresh])
    known = whole["tokenizer"].unique().drop_nulls().sort().to_list()
    if len(named := [each for each in known if each]) > 1:
        raise BadInput(
            f"tables whose ids are of different tokenizers, {' and '.join(named)}, cannot be "
            "united; take answers of policies with one tokenizer, or drop the ids"
        )
    return whole


def _places(chosen: pl.LazyFrame, rejected: pl.LazyFrame) -> pl.DataFrame:
    """The chosen rows that have rejected ones: their `place`, the number of their `pairs`, and the
    places of the `first` and the `last` rejected row.
    """
    sides = (frame.select(_prompt()).with_row_index("place") for frame in (chosen, rejected))
    left, right = (side.collect(engine="streaming") for side in sides)
    place = pl.col("place")
    spans = right.group_by("prompt").agg(pairs=pl.len(), first=place.min(), last=place.max())
    return left.join(spans, on="prompt", maintain_order="left")


def _prompt() -> pl.Expr:
    """A number for each prompt, the same for equal ones."""
    return pl.struct(PROMPT).hash().alias("prompt")
