"""New data: what lands in a dataset, and which of its rows are new.

A dataset is a name, and what landed in it lies in the store in the order in which it was first
seen. Frames in, frames out: a pair that came before, that asks an evaluation prompt, or whose two
outputs are the same teaches nothing and is left out, and counted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl
from pydantic import Field

from alpacafarm_core import files, unseen
from alpacafarm_core.artifacts import Preferences
from alpacafarm_core.errors import BadInput
from alpacafarm_core.methods import AnyMethod
from alpacafarm_core.pairing import PAIR
from alpacafarm_core.setup import Setup, Source
from alpacafarm_core.shapes import as_pairs
from alpacafarm_core.values import Value

NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
UNJUDGED = ""
"""The status of a pair that nobody was asked about yet."""

How = Literal["again", "further"]


class Incoming(Value):
    """A dataset to which rows are added, and where they come in."""

    name: str = Field(default="preferences", pattern=NAME, description="Name of the dataset")
    folder: str = Field(default="", description="Folder or s3:// prefix; none: only imports")


class Way(Value):
    """How policies are made from a dataset: all of what keeps two refreshes comparable."""

    dataset: str
    how: How
    method: AnyMethod
    setup: Setup


class Unusable(Value):
    """A file that cannot be used, and why: file, row, column and the mend in one line."""

    file: str
    why: str


class Fresh(NamedTuple):
    """The new rows of a table, and how many were left out and why.

    `known` came before, `relabelled` of them with another label; `evaluated` ask an evaluation
    prompt; `alike` have the same text on both sides.
    """

    rows: pl.DataFrame
    known: int
    relabelled: int
    evaluated: int
    alike: int


def read(path: Path) -> pl.DataFrame:
    """Pairs of a file with the columns of Preferences, labelled or not; raises BadInput.

    A file without a preference has pairs that are still to be judged: their status is UNJUDGED.
    """
    if "preference" in as_pairs(files.load(path), path).columns:
        return files.read(path, "preferences")
    _, pairs = files.read_pairs(path)
    blank = {name: pl.lit(None, kind) for name, kind in Preferences.columns.items()}
    said = {name: pl.lit(UNJUDGED) for name in ("status", "annotator", "prompt_digest")}
    flags = {name: pl.lit(False) for name in ("is_switched", "is_noisy")}
    added = {name: held for name, held in (blank | said | flags).items() if name not in PAIR}
    return pairs.with_columns(**added).select(list(Preferences.columns))


def fresh(landed: pl.DataFrame, before: Sequence[pl.DataFrame], source: Source) -> Fresh:
    """The pairs that no earlier table has, each once; which output stands first does not matter."""
    rows = _known_by(landed).with_row_index("_row")
    alike = rows["output_1"] == rows["output_2"]
    asked = ~alike & unseen.evaluated(rows, source)
    rest = rows.filter(~alike & ~asked)
    told = pl.concat([_known_by(each).select(_LABEL) for each in (*before, rest)])
    earlier = told.head(told.height - rest.height)
    new = rest.unique(_SAME, keep="first", maintain_order=True).join(
        earlier, on=_SAME, how="anti", maintain_order="left"
    )
    known = rest.join(new, on="_row", how="anti")
    first = told.unique(_SAME, keep="first", maintain_order=True)
    relabelled = known.join(first, on=_SAME, suffix="_told").filter(
        pl.col("_for") != pl.col("_for_told")
    )
    return Fresh(
        rows=new.select(list(Preferences.columns)),
        known=known.height,
        relabelled=relabelled.height,
        evaluated=int(asked.sum()),
        alike=int(alike.sum()),
    )


def unjudged(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs that nobody was asked about, to judge."""
    return pairs.filter(pl.col("status") == UNJUDGED).select(list(PAIR))


def with_labels(pairs: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """The pairs that came with a label, and those that were judged since."""
    return pl.concat([pairs.filter(pl.col("status") != UNJUDGED), labels])


def decided(labels: pl.DataFrame) -> int:
    """How many labels say which output is better: what a method can learn from."""
    return labels.filter(pl.col("preference").is_not_null(), pl.col("preference") != 1.5).height


_SAME = ["instruction", "input", "_one", "_other"]
_LABEL = [*_SAME, "_for"]


def _known_by(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with what makes a pair the same one, its outputs sorted, and `_for`: the label so."""
    turned = pl.col("output_1") > pl.col("output_2")
    one, other = pl.col("output_1"), pl.col("output_2")
    return rows.with_columns(
        _one=pl.when(turned).then(other).otherwise(one),
        _other=pl.when(turned).then(one).otherwise(other),
        _for=pl.when(turned).then(3 - pl.col("preference")).otherwise("preference"),
    )


def refuse_name(name: str) -> str:
    """The name of a dataset; raises BadInput where it is none."""
    try:
        return Incoming(name=name).name
    except ValueError as error:
        raise BadInput(
            f"dataset {name!r}: use small letters, digits and hyphens, as in 'my-pairs'"
        ) from error
