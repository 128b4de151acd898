"""The seam to a reward model that scores: Candidates in, a number each out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import polars as pl

from alpacafarm_core import parts
from alpacafarm_core.artifacts import Scores
from alpacafarm_core.committees import Judges, Seats, folders_of
from alpacafarm_core.machine import Machine
from alpacafarm_core.train.batches import encode
from alpacafarm_core.train.bench import Bench, seated
from alpacafarm_core.train.models import Loaded, load_scorer


class Scorer(Protocol):
    """An engine with one reward model in it."""

    def score(self, rows: pl.DataFrame) -> list[float]:
        """The reward of each row's `output` (its sampled ids where they are ours)."""

    def close(self) -> None:
        """Give back the memory."""


class TransformersScorer:
    """Scores with a transformers model."""

    def __init__(self, loaded: Loaded, machine: Machine) -> None:
        self.loaded, self.machine = loaded, machine

    def score(self, rows: pl.DataFrame) -> list[float]:
        """The reward of each row's `output`."""
        from alpacafarm_core.reward import scores

        return scores(self.loaded, encode(rows, "output", self.loaded.tokenizer), self.machine)

    def close(self) -> None:
        """Let go of the model."""
        del self.loaded


class CommitteeScorer:
    """Scores with several transformers models, all of them in memory."""

    def __init__(self, bench: Bench, machine: Machine) -> None:
        self.bench, self.machine = bench, machine

    def score(self, rows: pl.DataFrame) -> list[float]:
        """What the members make of each row's `output`, as one number."""
        words = self.bench.members[0].tokenizer
        return self.bench.scores(encode(rows, "output", words), self.machine)

    def close(self) -> None:
        """Let go of the models."""
        del self.bench


@contextmanager
def scorer(judges: Judges, machine: Machine) -> Iterator[Scorer]:
    """The reward model of a folder, in vLLM where that is asked for, or those of a committee."""
    machine.claim()
    found = _opened(judges, machine)
    try:
        yield found
    finally:
        found.close()


def write(
    folder: Path, candidates: Path, share: tuple[int, int], judge: str, out: Path, machine: Machine
) -> int:
    """Scores of Candidates as Parquet in the file `out`, never held whole; how many there are.

    `share` is the first row to score and the number of rows, `judge` the name of the model.
    """
    with scorer(folder, machine) as opened:
        scored = (_scored(opened, chunk, judge) for chunk in parts.chunks(candidates, share))
        return parts.lay(scored, Scores.columns, out)


def _scored(opened: Scorer, rows: pl.DataFrame, judge: str) -> pl.DataFrame:
    found = pl.Series("score", opened.score(rows), dtype=pl.Float64)
    return rows.with_columns(found, judge=pl.lit(judge))


def _opened(judges: Judges, machine: Machine) -> Scorer:
    if isinstance(judges, Seats):
        return CommitteeScorer(seated(judges, machine), machine)
    (folder,) = folders_of(judges)
    if machine.engine == "vllm":
        from alpacafarm_core.vllm_scorer import VLLMScorer

        return VLLMScorer(folder, machine)
    return TransformersScorer(load_scorer(folder, machine), machine)
