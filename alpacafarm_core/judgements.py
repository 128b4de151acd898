"""Judgements of a file as ours: what a number means, and which status goes with it.

And how a refusal names the row and the value that it is about.
"""

from pathlib import Path

import polars as pl

from alpacafarm_core.errors import BadInput

TIE, OLD_TIE, FAILED = 1.5, 0.0, -1.0
STATUSES = ("ok", "tie", "refused", "unparsable", "failed")


def judged(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Preferences between 1 and 2, or null where the judgement failed; and what that means."""
    given = rows["preference"]
    valid = given.is_between(1, 2) | given.is_in([OLD_TIE, FAILED]) | given.is_null()
    if not valid.all():
        row = first_row(~valid)
        raise BadInput(
            f"{path}: row {row}, column 'preference': {given[row - 1]} is outside 1 (output_1) to "
            "2 (output_2); correct it, write null when there is none, or call labels from 1 to 4 "
            "'raw_preference'"
        )
    told = pl.col("preference").replace({OLD_TIE: TIE, FAILED: None})
    meant = (
        pl.when(told.is_null())
        .then(pl.lit("failed"))
        .when(told == TIE)
        .then(pl.lit("tie"))
        .otherwise(pl.lit("ok"))
    )
    status = pl.when(pl.col("status") == "").then(meant).otherwise("status")
    judged = rows.with_columns(told, status=status)
    _check_statuses(judged, path)
    return judged


def _check_statuses(rows: pl.DataFrame, path: Path) -> None:
    """Refuse a status that is unknown, or at odds with the preference beside it."""
    status, told = rows["status"], rows["preference"]
    unknown = ~status.is_in(STATUSES)
    if unknown.any():
        row = first_row(unknown)
        raise BadInput(
            f"{path}: row {row}, column 'status': {shown(status[row - 1])} is none of "
            f"{', '.join(STATUSES)}; correct it, or leave it empty"
        )
    decided = (status == "ok") | (status == "tie")
    odd = (decided == told.is_null()) | ((status == "tie") & told.ne_missing(TIE))
    if odd.any():
        row = first_row(odd)
        raise BadInput(
            f"{path}: row {row}: status {status[row - 1]!r} with preference {told[row - 1]}; only "
            f"'ok' and 'tie' ({TIE}) carry one: correct either, or leave the status empty"
        )


def first_row(flags: pl.Series) -> int:
    """Row, from 1, of the first true flag."""
    found = flags.arg_max()
    return 1 + (found or 0)


def shown(value: object) -> str:
    """A value of a file in a refusal, cut to forty characters."""
    text = repr(value.to_list() if isinstance(value, pl.Series) else value)
    return text if len(text) <= 40 else text[:37] + "..."
