"""A policy's own reward of answers: how much likelier it finds them than the policy it began as."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import torch

from alpacafarm_core import parts
from alpacafarm_core.artifacts import Scores
from alpacafarm_core.machine import Machine
from alpacafarm_core.train.batches import encode
from alpacafarm_core.train.models import Loaded, load_policy
from alpacafarm_core.train.reference import reference_logprobs


def write(
    models: tuple[Path, Path],
    candidates: Path,
    share: tuple[int, int],
    judge: str,
    out: Path,
    machine: Machine,
) -> int:
    """Scores of Candidates as Parquet in the file `out`, never held whole; how many there are.

    `models` are the folders of the policy and of its reference, `share` is the first row to score
    and the number of rows, `judge` what the judge is called.
    """
    with torch.random.fork_rng():
        policy, reference = (load_policy(folder, machine) for folder in models)
        chunks = parts.chunks(candidates, share)
        scored = (
            rows.with_columns(
                pl.Series("score", rewards(policy, reference, rows, machine), dtype=pl.Float64),
                judge=pl.lit(judge),
            )
            for rows in chunks
        )
        return parts.lay(scored, Scores.columns, out)


def rewards(policy: Loaded, reference: Loaded, rows: pl.DataFrame, machine: Machine) -> list[float]:
    """R(y) = log policy(y) - log reference(y) of each row's `output`, in nats.

    Summed over the response tokens, the end token included; sampled ids are read as they are. Each
    token's difference is taken in float32.
    """
    sides = [_by_token(loaded, rows, machine) for loaded in (policy, reference)]
    return [float((ours - theirs).sum()) for ours, theirs in zip(*sides, strict=True)]


def _by_token(loaded: Loaded, rows: pl.DataFrame, machine: Machine) -> Iterator[torch.Tensor]:
    """Log-probability of each token of each answer; an answer without a token has none."""
    examples = encode(rows, "output", loaded.tokenizer)
    known = reference_logprobs(loaded, examples, machine)
    return (known.of(at, 0) for at in range(len(examples)))
