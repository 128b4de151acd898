"""Answers of a policy."""

import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from alpacafarm_core import parts
from alpacafarm_core.artifacts import Candidates, Demonstrations, Instructions
from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Sampling
from alpacafarm_core.side_by_side import call_beside
from alpacafarm_core.store import Made
from alpacafarm_core.weights import BestOf, Policy, Tagged
from tasks.reward import lying
from tasks.slots import gpu_slot
from tasks.stage import ledger, stage, store


@stage(Candidates, version=1)
def generate(
    policy: Policy, instructions: Instructions | Demonstrations, sampling: Sampling
) -> Made:
    """Sample a policy as it decodes; answers known to the ledger are not drawn again."""
    folder, machine = store().weights(policy), Machine.here()
    rows = store().read(instructions)
    if isinstance(policy.decode, Tagged):
        rows = rows.with_columns(tag=pl.lit(policy.decode.tag))
    shared = [rows.slice(*share) for share in shares(rows.height, machine.at_once())]
    if isinstance(policy.decode, BestOf):
        models, asked = (folder, lying(policy.decode.reward)), (sampling, policy.decode)
        return Made(written("generate:write_best", [(models, s, asked, ledger()) for s in shared]))
    return Made(written("generate:write", [(folder, s, sampling, ledger()) for s in shared]))


def written(function: str, calls: Sequence[tuple[Any, ...]]) -> Iterator[pl.DataFrame]:
    """The rows that jobs side by side write, each into a file of its own, one below the other."""
    folder = store().scratch()
    files = [folder / f"{number}.parquet" for number in range(len(calls))]
    try:
        told = [(*arguments, file) for arguments, file in zip(calls, files, strict=True)]
        with gpu_slot():
            call_beside(function, told, Machine.here())
        yield from parts.read(files)
    finally:
        shutil.rmtree(folder)


def shares(rows: int, number: int) -> list[tuple[int, int]]:
    """First row and height of at most `number` parts of nearly equal height, in order."""
    size = max(1, -(-rows // number))
    return [(start, min(size, rows - start)) for start in range(0, max(1, rows), size)]
