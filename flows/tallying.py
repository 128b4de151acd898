"""Annotation files to leaderboard rows."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from alpacafarm_core import files
from alpacafarm_core.errors import BadInput
from alpacafarm_core.tally import tally_file


def tallied(paths: Sequence[Path]) -> pl.DataFrame:
    """One row a model over all files, best first; raises BadInput naming file, row and column."""
    boards, seen = [], dict[str, Path]()
    for path in paths:
        boards.append(tally_file(files.read(path, "preferences")))
        for model in boards[-1]["model"]:
            if model in seen:
                raise BadInput(
                    f"model {model!r} stands in {seen[model]} and in {path}; give it once"
                )
            seen[model] = path
    return pl.concat(boards).sort("win_rate", descending=True, nulls_last=True)
