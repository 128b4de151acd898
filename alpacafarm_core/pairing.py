"""Pairs to judge out of plain rows: pairs given, samples of a prompt, two models head to head.

Frames in, frames out; the draws depend on a prompt's own text and the seed, so that a prompt keeps
its pairs whatever stands beside it.
"""

import random
from collections.abc import Mapping, Sequence

import polars as pl

from alpacafarm_core.artifacts import IDS, TEXT, Candidates, Columns, Preferences
from alpacafarm_core.errors import BadInput

Rows = pl.DataFrame | Sequence[Mapping[str, object]]
"""A table or a list of rows; columns that are not needed are left behind."""

PAIR: Columns = {
    name: Preferences.columns[name]
    for name in (
        "instruction",
        "input",
        "dataset",
        "output_1",
        "output_2",
        "output_1_ids",
        "output_2_ids",
        "tokenizer",
        "generator_1",
        "generator_2",
    )
}
_PROMPT = ["instruction", "input"]
_ABSENT = {TEXT: "", IDS: []}


def filled(rows: Rows, columns: Columns, needed: Sequence[str]) -> pl.DataFrame:
    """Rows with exactly these columns; what is absent is empty text, no tokens, or null.

    Raises BadInput when a column that is needed is absent or has a null.
    """
    given = rows if isinstance(rows, pl.DataFrame) else _frame(rows)
    for name in needed:
        if name not in given.columns or given[name].null_count():
            raise BadInput(
                f"rows need a value of {name!r} each; they have {', '.join(given.columns)}"
            )
    for name, kind in columns.items():
        if kind == TEXT and given.schema.get(name, TEXT) not in (TEXT, pl.Null()):
            raise BadInput(
                f"rows need text in {name!r}, not {given.schema[name]}; write it as text"
            )
    try:
        return given.select(_filled(given, name, kind) for name, kind in columns.items())
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"rows do not fit their columns ({error}); correct or drop them") from error


def pairs_of_rows(rows: Rows) -> pl.DataFrame:
    """Rows with instruction, input?, output_1 and output_2 as pairs to judge."""
    return filled(rows, PAIR, ("instruction", "output_1", "output_2"))


def samples_of(rows: Rows) -> pl.DataFrame:
    """Rows with instruction, input? and output as candidates; a list of outputs is its samples."""
    given = rows if isinstance(rows, pl.DataFrame) else _frame(rows)
    if "output" in given.columns and isinstance(given.schema["output"], pl.List):
        given = given.drop("output_ids", strict=False).explode("output")
    return filled(given, Candidates.columns, ("instruction", "output"))


def pairs_of_samples(rows: Rows, seed: int, unique: bool = True) -> pl.DataFrame:
    """Each sample of a prompt against another, drawn as a derangement (AlpacaFarm's way).

    Outputs that repeat within a prompt count once; a prompt with a single output is paired with
    itself, which is a tie. The first pair of each prompt, or with `unique` off as many pairs as
    outputs.
    """
    samples = samples_of(rows).unique([*_PROMPT, "output"], keep="first", maintain_order=True)
    numbered = samples.with_row_index("row")
    groups = numbered.group_by(_PROMPT, maintain_order=True).agg("row")
    drawn = [
        (row, held[partner])
        for instruction, input, held in groups.iter_rows()
        for row, partner in zip(held, _partners(instruction, input, len(held), seed), strict=True)
    ]
    left, right = (samples[[pair[side] for pair in drawn]] for side in (0, 1))
    pairs = _beside(left, right)
    return pairs.unique(_PROMPT, keep="first", maintain_order=True) if unique else pairs


def head_to_head(first: Rows, second: Rows) -> pl.DataFrame:
    """Answers of two models to the same prompts: `first` is output_1, `second` output_2.

    Prompts that stand in one table only are left out, and of a prompt's repeated answers all but
    the first. Raises BadInput when no prompt is in both.
    """
    left, right = (
        samples_of(side).unique(_PROMPT, keep="first", maintain_order=True)
        for side in (first, second)
    )
    left = left.join(right, on=_PROMPT, how="semi", maintain_order="left")
    if left.is_empty():
        raise BadInput(
            "no prompt (instruction, input) is in both tables; give answers to the same prompts"
        )
    return _beside(left, left.select(_PROMPT).join(right, on=_PROMPT, maintain_order="left"))


def _frame(rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), infer_schema_length=None)


def _filled(given: pl.DataFrame, name: str, kind: pl.DataType) -> pl.Expr:
    absent = pl.lit(_ABSENT.get(kind), kind)
    if name not in given.columns:
        return absent.alias(name)
    return pl.col(name).cast(kind).fill_null(absent)


def _partners(instruction: str, input: str, size: int, seed: int) -> list[int]:
    """A permutation that leaves nothing in its place, all such equally likely."""
    rng = random.Random(f"derangement{instruction}{input}{seed}")
    places = list(range(size))
    while size > 1:
        partners = rng.sample(places, size)
        if all(place != partner for place, partner in zip(places, partners, strict=True)):
            return partners
    return places


def _beside(left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
    """Candidates row by row as pairs; one column names the tokenizer of both, so ids of another
    one are left out."""
    joined = pl.concat([left, right.rename(lambda name: f"{name}_right")], how="horizontal")
    foreign = pl.col("tokenizer") != pl.col("tokenizer_right")
    return joined.select(
        "instruction",
        "input",
        "dataset",
        output_1="output",
        output_2="output_right",
        output_1_ids="output_ids",
        output_2_ids=pl.when(foreign).then([]).otherwise("output_ids_right"),
        tokenizer="tokenizer",
        generator_1="generator",
        generator_2="generator_right",
    )
