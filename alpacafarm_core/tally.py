"""Preferences to numbers: win rates, paired differences, the board.

Prompts are joined by their text, never by position. A preference runs from 1 (the baseline,
`output_1`) to 2 (the model, `output_2`); preference minus 1 is the chance that the model is better.
Rates, differences and errors are in percent (points).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import sqrt
from typing import NamedTuple

import polars as pl

from alpacafarm_core.artifacts import Leaderboard
from alpacafarm_core.errors import BadInput

PROMPT = ["instruction", "input"]
MODEL = "generator_2"
OLD_TIE = 0.0  # how AlpacaFarm and early AlpacaEval files write a tie
CSV_COLUMNS = [
    "model",
    "win_rate",
    "standard_error",
    "n_wins",
    "n_wins_base",
    "n_draws",
    "n_total",
    "avg_length",
    "discrete_win_rate",
]


class WinRate(NamedTuple):
    """Win rate of the model; rates are None without a valid row, the error with fewer than two."""

    win_rate: float | None
    standard_error: float | None
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    discrete_win_rate: float | None


class Paired(NamedTuple):
    """Mean difference over the `n` prompts that both sides have, and its standard error."""

    difference: float | None
    standard_error: float | None
    n: int


Rows = pl.DataFrame | pl.LazyFrame
Entry = tuple[Rows, Rows | None]
"""What is known of one model: rows of `Preferences`, and perhaps a true `score` per prompt."""

Brief = tuple[pl.DataFrame, pl.DataFrame | None]
"""All that a board asks of an entry: numbers, with two for each prompt in place of its texts."""

NO_PAIRS = Paired(None, None, 0)


def win_rate(preferences: pl.Series | Sequence[float | None]) -> WinRate:
    """Count and average preferences; those missing or outside 1 to 2 do not count."""
    frame = pl.DataFrame({"preference": pl.Series(preferences, dtype=pl.Float64)})
    return WinRate(*frame.select(_rates()).row(0))


def avg_length(outputs: pl.Series) -> int | None:
    """Mean length of the outputs in characters (code points), truncated to a whole number."""
    return _whole(outputs.fill_null("").str.len_chars().mean())


def paired(a: pl.DataFrame, b: pl.DataFrame, value: str) -> Paired:
    """Mean of `a[value] - b[value]` over the prompts in both.

    Frames of instruction, input and `value`. Several rows of one prompt are averaged first, so that
    a prompt counts once.
    """
    joined = _per_prompt(a, value).join(_per_prompt(b, value), on=PROMPT, suffix="_b")
    difference, error = _mean_and_error(joined[value] - joined[f"{value}_b"])
    return Paired(difference, error, joined.height)


def points(preferences: pl.DataFrame) -> pl.DataFrame:
    """The valid rows as instruction, input and `points`: 0 for the baseline, 100 for the model."""
    shared = preferences.with_columns(points=100 * (_tie_as_half(pl.col("preference")) - 1))
    return shared.filter(pl.col("points").is_between(0, 100)).select(*PROMPT, "points")


def board(entries: Mapping[str, Entry]) -> pl.DataFrame:
    """One row a model with the columns of `Leaderboard`, best first.

    Coverage is the share of rows with a valid preference. What is measured against the model called
    "sft" is null for that model and where there is none.
    """
    brief = {name: _brief(*entry) for name, entry in entries.items()}
    sft = brief.get("sft")
    rows = [_row(name, entry, None if name == "sft" else sft) for name, entry in brief.items()]
    frame = pl.DataFrame(rows, schema=Leaderboard.columns)
    return frame.sort("win_rate", "model", descending=[True, False], nulls_last=True)


def tally_file(pairs: pl.DataFrame) -> pl.DataFrame:
    """Rows of the published leaderboards, best first, for every model in a file of judged pairs.

    The model is the one that `generator_2` names.
    """
    return tally_models(pairs).select(CSV_COLUMNS)


def tally_models(pairs: pl.DataFrame) -> pl.DataFrame:
    """The same with coverage, the percentage of rows that have a judgement."""
    length = pl.col("output_2").fill_null("").str.len_chars().mean()
    asked = [*_rates(), length.cast(pl.Int64).alias("avg_length"), _coverage()]
    rows = pairs.group_by(model=MODEL, maintain_order=True).agg(asked)
    return rows.sort("win_rate", "model", descending=[True, False], nulls_last=True)


def by_source(pairs: pl.DataFrame) -> pl.DataFrame:
    """Rates and coverage for every model and `dataset`; rows that name none are left out."""
    named = pairs.filter(pl.col("dataset") != "")
    rows = named.group_by("dataset", model=MODEL).agg(*_rates(), _coverage())
    return rows.select("model", "dataset", *WinRate._fields, "coverage").sort("model", "dataset")


def merged_prompt() -> pl.Expr:
    """Instruction and input as one text, as AlpacaEval writes it: an empty line between them."""
    both = pl.concat_str("instruction", pl.lit("\n\n"), "input")
    return pl.when(pl.col("input") == "").then("instruction").otherwise(both)


def reference_digests(pairs: pl.DataFrame) -> dict[str, str]:
    """Digest of the answers each model was judged against, of prompts and texts, in any order.

    Raises BadInput where rates would not be comparable or errors too small: when models, or one
    model, were judged against different references, or one annotator judged a pair twice.
    """
    _refuse_repeats(pairs)
    _refuse_other_generators(pairs)
    texts = pairs.select(MODEL, prompt=merged_prompt(), reference="output_1")
    both = texts.with_columns(pair=pl.concat_str("prompt", "reference", separator="\0").hash())
    once = both.unique("pair")  # by number, as texts are long and most models share them
    marks = [_digest("\0".join(row)) for row in once.select("prompt", "reference").iter_rows()]
    held = both.select(MODEL, "pair").unique()
    held = held.join(once.select("pair", "prompt", mark=pl.Series(marks, dtype=pl.String)), "pair")
    _refuse_other_references(held)
    marked = held.group_by(MODEL).agg(pl.col("mark").sort().str.join("\n"))
    return {model: _digest(text) for model, text in marked.rows()}


def share() -> pl.Expr:
    """Chance, 0 to 1, that the model is better; null where there is no valid preference."""
    chance = _tie_as_half(pl.col("preference")) - 1
    return pl.when(chance.is_between(0, 1)).then(chance)


def _tie_as_half(preference: pl.Expr) -> pl.Expr:
    return pl.when(preference == OLD_TIE).then(1.5).otherwise(preference)


def _rates() -> list[pl.Expr]:
    """The fields of `WinRate`, from a column `preference`."""
    valid = share().drop_nulls()
    n, wins, draws = (
        count.cast(pl.Int64) for count in (valid.len(), (valid > 0.5).sum(), (valid == 0.5).sum())
    )
    percent = valid * 100
    return [
        percent.mean().alias("win_rate"),
        (percent.std() / n.sqrt()).alias("standard_error"),
        wins.alias("n_wins"),
        (n - wins - draws).alias("n_wins_base"),
        draws.alias("n_draws"),
        n.alias("n_total"),
        pl.when(n > 0).then(100 * (wins + draws / 2) / n).alias("discrete_win_rate"),
    ]


def _coverage() -> pl.Expr:
    return (100 * share().is_not_null().mean()).alias("coverage")


def _refuse_repeats(pairs: pl.DataFrame) -> None:
    """Refuse a pair that the same annotator judged twice: a copy adds no knowledge."""
    names = [MODEL, *PROMPT, "output_1", "output_2", "annotator"]
    same = pairs.select(pl.struct(set(names) & set(pairs.columns)).hash().alias("pair"))
    twice = same.with_row_index("row", offset=1).filter(pl.col("pair").is_duplicated())
    if not twice.height:
        return
    one, other = twice.filter(pl.col("pair") == twice["pair"][0])["row"][:2]
    model = pairs[MODEL][one - 1]
    raise BadInput(
        f"rows {one} and {other} of model {model!r} are the same pair, judged by the same "
        "annotator; keep one of them"
    )


def _refuse_other_generators(pairs: pl.DataFrame) -> None:
    """Refuse a board on which references were written by several models."""
    if "generator_1" not in pairs.columns:
        return
    named = pairs.filter(pl.col("generator_1") != "")
    each = named.group_by("generator_1", maintain_order=True).agg(pl.col(MODEL).first())
    if each.height > 1:
        (one, first), (other, second), *_ = each.rows()
        raise BadInput(
            f"{first!r} was judged against {one!r} and {second!r} against {other!r}; "
            "tally them apart, or judge both against the same reference"
        )


def _refuse_other_references(held: pl.DataFrame) -> None:
    """Refuse rows of model, prompt and mark in which models have other marks for one prompt."""
    each = held.group_by("prompt", MODEL).agg(pl.col("mark").sort().str.join("\n"))
    _refuse_two_of_one(each)
    split = each.group_by("prompt").agg(pl.col("mark").n_unique()).filter(pl.col("mark") > 1)
    if not split.height:
        return
    told = each.join(split.select("prompt"), on="prompt").sort("prompt")
    marked = told.group_by(MODEL).agg(pl.col("mark").str.join("\n")).sort(MODEL)
    digests = {model: _digest(text) for model, text in marked.rows()}
    (usual, _), *_ = Counter(digests.values()).most_common(1)
    odd = next(model for model, digest in digests.items() if digest != usual)
    other = next(model for model, digest in digests.items() if digest == usual)
    raise BadInput(
        f"model {odd!r} was judged against other references ({digests[odd]}) than {other!r} "
        f"({usual}): the output_1 of {split.height} prompts differ; tally them apart, or judge "
        "both against the same"
    )


def _refuse_two_of_one(each: pl.DataFrame) -> None:
    """Refuse a model with several references for a prompt; marks are one a line."""
    several = each.filter(pl.col("mark").str.contains("\n"))
    if several.height:
        model, prompts = several[MODEL][0], several.height
        raise BadInput(
            f"model {model!r} was judged against more than one output_1 on {prompts} of its "
            "prompts; keep the rows of one reference"
        )


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _mean_and_error(values: pl.Series) -> tuple[float | None, float | None]:
    mean, spread = values.mean(), values.std()
    if not isinstance(mean, float):
        return None, None
    return mean, spread / sqrt(len(values)) if isinstance(spread, float) else None


def _per_prompt(frame: pl.DataFrame, value: str) -> pl.DataFrame:
    valid = frame.drop_nulls(value)
    return valid.group_by(PROMPT, maintain_order=True).agg(pl.col(value).mean())


def _brief(rows: Rows, scores: Rows | None) -> Brief:
    prompt = {name: pl.struct(PROMPT).hash(seed) for seed, name in enumerate(PROMPT)}
    length = pl.col("output_2").fill_null("").str.len_chars()
    judged = rows.lazy().select("preference", "price", **prompt, length=length)
    known = None if scores is None else _held(scores.lazy().select("score", **prompt))
    return _held(judged), known


def _held(rows: pl.LazyFrame) -> pl.DataFrame:
    # The other engine cuts columns elsewhere, and the last digit of a sum depends on the cuts.
    return rows.collect(engine="in-memory")


def _counts(name: str, rows: pl.DataFrame) -> dict[str, object]:
    counted = win_rate(rows["preference"])._asdict()
    return {"model": name, **counted, "avg_length": _whole(rows["length"].mean())}


def _whole(mean: object) -> int | None:
    return int(mean) if isinstance(mean, float) else None


def _row(name: str, entry: Brief, sft: Brief | None) -> dict[str, object]:
    rows, scores = entry
    sft_rows, sft_scores = sft or (None, None)
    own = points(rows)
    ahead = NO_PAIRS if sft_rows is None else paired(own, points(sft_rows), "points")
    return {
        **_counts(name, rows),
        "coverage": 100 * own.height / rows.height if rows.height else None,
        "win_rate_minus_sft": ahead.difference,
        "paired_error": ahead.standard_error,
        **_utility(scores, sft_scores),
        "price": rows["price"].sum(),
    }


def _utility(own: pl.DataFrame | None, sft: pl.DataFrame | None) -> dict[str, object]:
    ahead = NO_PAIRS if own is None or sft is None else paired(own, sft, "score")
    return {
        "utility": None if own is None else own["score"].mean(),
        "utility_minus_sft": ahead.difference,
        "utility_paired_error": ahead.standard_error,
    }
