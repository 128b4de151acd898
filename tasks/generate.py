"""Answers of a policy."""

from collections.abc import Sequence

import polars as pl

from alpacafarm_core.artifacts import Candidates, Instructions
from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Sampling
from alpacafarm_core.train.job import call_each
from alpacafarm_core.weights import BestOf, Policy
from tasks.stage import ledger, stage, store


@stage(Candidates, version=1)
def generate(policy: Policy, instructions: Instructions, sampling: Sampling) -> pl.DataFrame:
    """Sample a policy as it decodes; answers known to the ledger are not drawn again."""
    folder, machine = store().weights(policy), Machine.here()
    parts = shares(store().read(instructions), machine.at_once())
    if isinstance(policy.decode, BestOf):
        models, asked = (folder, store().weights(policy.decode.reward)), (sampling, policy.decode)
        best = call_each(
            "generate:best_of", [(models, part, asked, ledger()) for part in parts], machine
        )
        return joined(best).drop("score")
    drawn = [(folder, part, sampling, ledger()) for part in parts]
    return joined(call_each("generate:generate", drawn, machine))


def joined(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The parts one below the other."""
    return pl.concat(parts)


def shares(rows: pl.DataFrame, number: int) -> Sequence[pl.DataFrame]:
    """The rows in order, cut into at most `number` parts of nearly equal height."""
    size = max(1, -(-rows.height // number))
    return [rows.slice(start, size) for start in range(0, max(1, rows.height), size)]
