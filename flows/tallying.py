"""Annotation files to leaderboard rows."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from alpacafarm_core import files
from alpacafarm_core.tally import tally_file


def tallied(paths: Sequence[Path]) -> pl.DataFrame:
    """One row a model over all files, best first; raises BadInput naming file, row and column."""
    return pl.concat([tally_file(files.read(path, "preferences")) for path in paths]).sort(
        "win_rate", descending=True, nulls_last=True
    )
