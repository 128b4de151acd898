"""Length control of judged pairs, with the files of calibration and difficulty it takes."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from alpacafarm_core.errors import BadInput
from alpacafarm_core.formats import load
from alpacafarm_core.length_control import (
    BASELINE,
    Calibration,
    Judged,
    LengthControlled,
    length_controlled,
)
from alpacafarm_core.tally import MODEL, merged_prompt, share

Variant = Literal["v1", "noreg", "minimal"]
LC_COLUMNS = ["length_controlled_winrate", "lc_standard_error", "lc_low", "lc_high"]
DIFFICULTY = "instruction_difficulty"
HARDEST = 1e6  # a difficulty beyond it, either way, is none
ROW = "row of the file"
HUB = "df_gamed.csv of the data set tatsu-lab/alpaca_eval"


class Control(NamedTuple):
    """How to control for length: the variant, its files, and C, cross-validated when None."""

    variant: Variant
    calibration: Path | None = None
    difficulty: Path | None = None
    c: float | None = None


def controlled(pairs: pl.DataFrame, control: Control) -> pl.DataFrame:
    """`LC_COLUMNS` and `lc_c` for every model; raises BadInput for files that do not fit."""
    if control.c is not None and not 0 < control.c < float("inf"):
        raise BadInput(f"--c {control.c} is not above 0; leave it out to have it cross-validated")
    models, calibration = inputs(pairs, control)
    made = {
        model: BASELINE if judged is None else _of(model, judged, calibration, control.c)
        for model, judged in models.items()
    }
    lines = [[model, *(found or [None] * 5)] for model, found in made.items()]
    kinds = {"model": pl.String(), **dict.fromkeys([*LC_COLUMNS, "lc_c"], pl.Float64())}
    return pl.DataFrame(lines, schema=kinds, orient="row")


def inputs(
    pairs: pl.DataFrame, control: Control
) -> tuple[dict[str, Judged | None], Calibration | None]:
    """What the fit sees of every model, None for a baseline against itself; the calibration."""
    _refuse_unused(control)
    difficulty = None if control.variant == "minimal" else _difficulty(pairs, control)
    calibration = _calibration(control) if control.variant == "v1" else None
    return dict(_models(pairs, difficulty)), calibration


def _refuse_unused(control: Control) -> None:
    given = {"--calibration": control.calibration, "--difficulty": control.difficulty}
    for option, path in given.items():
        if control.variant == "minimal" and path is not None:
            raise BadInput(f"--lc minimal does not use {option} {path}; leave it out, or use v1")


def _of(
    model: str, judged: Judged, calibration: Calibration | None, c: float | None
) -> LengthControlled | None:
    try:
        return length_controlled(judged, calibration, c)
    except BadInput as error:
        raise BadInput(f"model {model!r}: {error}") from error


def _models(
    pairs: pl.DataFrame, difficulty: pl.DataFrame | None
) -> Iterator[tuple[str, Judged | None]]:
    """The rows of every model.

    They go in the order of the difficulties, or of the prompts' texts, whatever the file's.
    """
    rows = pairs.select(
        MODEL,
        itself=(pl.col("generator_1") == pl.col(MODEL)).all().over(MODEL),
        prompt=merged_prompt(),
        length=pl.col("output_1").str.len_chars().cast(pl.Float64)
        - pl.col("output_2").str.len_chars().cast(pl.Float64),
        share=share().fill_null(float("nan")),
    )
    rows = _placed(rows, difficulty).sort("place", "length", "share")
    rows = rows.with_columns(number=pl.col("place").rank("dense").over(MODEL).cast(pl.Int64) - 1)
    for group in rows.partition_by(MODEL, maintain_order=True):
        model = str(group[MODEL][0])
        itself = group["itself"][0] and model != ""
        yield model, None if itself else _judged(group)


def _placed(rows: pl.DataFrame, difficulty: pl.DataFrame | None) -> pl.DataFrame:
    """Rows with the place of their prompt, and with its difficulty when there is one."""
    if difficulty is None:
        return rows.with_columns(place=pl.col("prompt").rank("dense"))
    known = rows.join(difficulty, on="prompt", how="left")
    unknown = known.filter(pl.col(DIFFICULTY).is_null())["prompt"]
    if len(unknown):
        raise BadInput(
            f"{unknown.n_unique()} instructions have no difficulty, first {unknown[0][:60]!r}; "
            "give a --difficulty file that has them, or use --lc minimal, which needs none"
        )
    return known


def _judged(group: pl.DataFrame) -> Judged:
    hard = group[DIFFICULTY].to_numpy() if DIFFICULTY in group.columns else None
    return Judged(
        group["length"].to_numpy(), hard, group["share"].to_numpy(), group["number"].to_numpy()
    )


def _difficulty(pairs: pl.DataFrame, control: Control) -> pl.DataFrame:
    """Prompt, difficulty and place, from 0, of every instruction of a file.

    A file of instructions without difficulties takes those of the calibration: `index` i, or for
    want of an index row i, is the instruction that has the index i there.
    """
    if control.difficulty is None:
        raise BadInput(
            f"--lc {control.variant} needs --difficulty FILE, with the columns instruction and "
            f"{DIFFICULTY}; --lc minimal does without"
        )
    raw = load(control.difficulty)
    _need(raw, ["instruction"], control.difficulty)
    if "input" not in raw.columns:
        raw = raw.with_columns(input=pl.lit(""))
    _need_text(raw, control.difficulty)
    prompt = raw.select(prompt=merged_prompt().fill_null(pl.col("instruction")))["prompt"]
    if DIFFICULTY not in raw.columns:
        raw = _by_index(raw, prompt, pairs, control)
    elif control.variant == "noreg" and control.calibration is not None:
        raise BadInput(
            f"--lc noreg does not use --calibration {control.calibration}, as {control.difficulty} "
            "has the difficulties; leave it out, or use --lc v1"
        )
    rows = pl.DataFrame([prompt, _difficulties(raw, control.difficulty)])
    rows = rows.unique(maintain_order=True)
    twice = rows.filter(pl.col("prompt").is_duplicated())["prompt"]
    if len(twice):
        raise BadInput(f"{control.difficulty}: two difficulties for {twice[0][:60]!r}; keep one")
    return rows.with_row_index("place")


def _by_index(
    raw: pl.DataFrame, prompt: pl.Series, pairs: pl.DataFrame, control: Control
) -> pl.DataFrame:
    """Instructions with the difficulties that the calibration has for their indices."""
    if control.calibration is None or control.difficulty is None:
        raise BadInput(
            f"{control.difficulty}: no column {DIFFICULTY!r}; add it, or give --calibration, the "
            f"{HUB}, to take difficulties from by index"
        )
    held = load(control.calibration)
    _need(held, ["index", DIFFICULTY], control.calibration)
    index, hard = _indices(held, control.calibration), _difficulties(held, control.calibration)
    known = pl.DataFrame([index, hard]).unique(maintain_order=True)
    twice = known.filter(pl.col("index").is_duplicated())["index"]
    if len(twice):
        raise BadInput(
            f"{control.calibration}: two values of {DIFFICULTY!r} for index {twice[0]}; keep one"
        )
    if "index" in raw.columns:
        raw = raw.with_columns(_indices(raw, control.difficulty))
    else:
        _need_order(prompt, pairs, control.difficulty)
        raw = raw.with_columns(index=pl.int_range(pl.len(), dtype=pl.Int64))
    found = raw.join(known, on="index", how="left", maintain_order="left")
    said = f"has no difficulty in {control.calibration}; give the {HUB} as it stands"
    _refuse(found, "index", control.difficulty, (found[DIFFICULTY].is_null(), said))
    return found


def _need_order(prompt: pl.Series, pairs: pl.DataFrame, path: Path) -> None:
    """Refuse to go by position where judged rows come in another order than the file's.

    The same order is a sign, no proof, that the file was not shuffled; hence the warning.
    """
    place = pl.DataFrame([prompt]).with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64))
    rows = pairs.select(MODEL, prompt=merged_prompt())
    rows = rows.join(place.unique("prompt", keep="first"), on="prompt", maintain_order="left")
    back = rows.filter((pl.col("place").diff() < 0).over(MODEL))
    if back.height:
        raise BadInput(
            f"{path}: no column 'index', and the judged rows are not in its order: row "
            f"{back['place'][0] + 1}, {back['prompt'][0][:60]!r}, follows a later one for model "
            f"{back[MODEL][0]!r}; add 'index', its number in the calibration, or {DIFFICULTY!r}"
        )
    logging.getLogger("alpacafarm").warning(
        f"{path} has no column 'index': row i takes the difficulty of index i, counted from 0, in "
        "the calibration. In another order than AlpacaEval's the rates are wrong; add 'index'"
    )


def _calibration(control: Control) -> Calibration:
    """Rows of the baseline against itself that were judged."""
    path = control.calibration
    if path is None:
        raise BadInput(
            f"--lc v1 needs --calibration CSV, the {HUB}; --lc noreg and minimal do without"
        )
    raw = load(path)
    _need(raw, ["preference", "std_delta_len", DIFFICULTY], path)
    raw = raw.with_row_index(ROW, offset=1)
    if raw["preference"].dtype == pl.String:
        raw = raw.with_columns(pl.col("preference").replace("", None))
    raw = raw.filter(pl.col("preference").is_not_null())
    if not raw.height:
        raise BadInput(f"{path}: no row has a 'preference'; give the {HUB}, or use --lc noreg")
    share = _numbers(raw, "preference", path)
    mend = f"is not from 0 to 1; give the {HUB} as it stands"
    _refuse(raw, "preference", path, (~share.is_between(0, 1), mend))
    length, hard = _numbers(raw, "std_delta_len", path), _difficulties(raw, path)
    return Calibration(length.to_numpy(), hard.to_numpy(), share.to_numpy())


def _need(raw: pl.DataFrame, names: list[str], path: Path) -> None:
    lacking = [name for name in names if name not in raw.columns]
    if lacking:
        there = ", ".join(raw.columns[:12])
        raise BadInput(f"{path}: no column {lacking[0]!r}, only {there}; add it")


def _need_text(raw: pl.DataFrame, path: Path) -> None:
    for name in ("instruction", "input"):
        if raw[name].dtype not in (pl.String, pl.Null):
            raise BadInput(
                f"{path}: row 1, column {name!r}: {raw[name].dtype}, not text; write text"
            )
    _refuse(raw, "instruction", path, (raw["instruction"].is_null(), "is missing; add the text"))


def _numbers(raw: pl.DataFrame, name: str, path: Path) -> pl.Series:
    """A column of finite numbers, one in every row."""
    numbers = raw[name].cast(pl.Float64, strict=False)
    wrong = ~numbers.is_finite().fill_null(value=False)
    _refuse(raw, name, path, (wrong, "is not a number; write one"))
    return numbers


def _difficulties(raw: pl.DataFrame, path: Path) -> pl.Series:
    numbers = _numbers(raw, DIFFICULTY, path)
    mend = f"is beyond {HARDEST:.0e}, where a difficulty is about -5 to 5; mend it"
    _refuse(raw, DIFFICULTY, path, (numbers.abs() > HARDEST, mend))
    return numbers


def _indices(raw: pl.DataFrame, path: Path) -> pl.Series:
    numbers = _numbers(raw, "index", path)
    wrong = (numbers != numbers.floor()) | ~numbers.is_between(0, 2**31)
    _refuse(raw, "index", path, (wrong, "is not a whole number from 0; count instructions from 0"))
    return numbers.cast(pl.Int64)


def _refuse(raw: pl.DataFrame, name: str, path: Path, fault: tuple[pl.Series, str]) -> None:
    """Raise BadInput, with row and mend, where a column is wrong."""
    wrong, said = fault
    if wrong.any():
        at = wrong.arg_max() or 0
        row = raw[ROW][at] if ROW in raw.columns else at + 1
        raise BadInput(f"{path}: row {row}, column {name!r}: {raw[name][at]!r} {said}")
