"""Search trees, a layer a stage, so that settings which share layers share the work."""

from collections.abc import Sequence
from importlib import import_module

import polars as pl

from alpacafarm_core import branches as core
from alpacafarm_core import composing
from alpacafarm_core.artifacts import Branches, Candidates, Demonstrations, Instructions
from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Sampling
from alpacafarm_core.store import Made
from alpacafarm_core.trees import Budget, Pruning
from alpacafarm_core.weights import Committee, Policy, Ranker
from tasks.generate import shares, written
from tasks.reward import lying
from tasks.stage import ledger, stage, store


@stage(Branches, version=2)
def grow(
    policy: Policy,
    instructions: Instructions | Demonstrations,
    sampling: Sampling,
    parents: Branches | None = None,
) -> Made:
    """Grow roots from prompts or children from survivors by a segment; the tokens are noted."""
    rows = store().read(instructions).with_row_index("row")
    before = None if parents is None else store().read(parents).filter("survives")
    folder, machine = store().weights(policy), Machine.here()
    calls = []
    for first, height in shares(rows.height, machine.at_once()):
        ours = pl.col("row").is_between(first, first + height - 1)
        since = rows.filter(ours), None if before is None else before.filter(ours)
        calls.append((folder, since, sampling, ledger()))
    grown = pl.concat(written("growing:write", calls))
    taken = Budget(sampled_tokens=int(grown["sampled"].sum()))
    return Made(grown, _noted(parents, taken))


@stage(Branches, version=1)
def weigh(branches: Branches, ranker: Ranker) -> Made:
    """Give each branch its number, of which a carried one has one; what was read is noted."""
    file = store().rows(branches)
    policies = (ranker.dpo, ranker.dpo_reference)
    folders = [store().weights(policy) if policy else None for policy in policies]
    models = (*folders, lying(ranker.reward) if ranker.reward else None)
    scanned = pl.scan_parquet(file)
    known = scanned.select(
        "row", tokens=pl.col("output_ids").list.len(), is_scored=core.scored_by(ranker.label)
    ).collect()
    calls = [(models, file, share, ranker) for share in _by_prompt(known["row"])]
    rows, fresh = (
        pl.concat(written("train.prefixes:write", calls)),
        known.filter(~pl.col("is_scored")),
    )
    readers = len(ranker.reward.members) if isinstance(ranker.reward, Committee) else 1
    taken = Budget(
        partial_scores=0 if ranker.reward else fresh.height,
        scored_tokens=int(fresh["tokens"].sum()) if ranker.dpo else 0,
        reward_calls=fresh.height * readers if ranker.reward else 0,
    )
    return Made(rows, _noted(branches, taken))


@stage(Branches, version=1)
def prune(branches: Branches, pruning: Pruning) -> Made:
    """Say of each branch of a layer whether it survives, and how many children it grows."""
    return Made(core.pruned(store().read(branches), pruning), _noted(branches))


@stage(Branches, version=1)
def leaves(layers: tuple[Branches, ...]) -> Made:
    """The last layer, and every branch that ended before it."""
    found = core.leaves([store().read(layer) for layer in layers])
    return Made(found, _noted(layers[-1]))


@stage(Candidates, version=1)
def choose(branches: Branches, width: int) -> Made:
    """The branch of each tree with the highest number; what the trees took is noted."""
    return Made(core.chosen(store().read(branches), width), _noted(branches))


def generate(
    policy: Policy, instructions: Instructions | Demonstrations, sampling: Sampling
) -> Candidates:
    """Sample a policy as it decodes; a search tree is grown in stages of its own."""
    return composing.generate(import_module("tasks"), policy, instructions, sampling)


def _noted(before: Branches | None, taken: Budget = Budget()) -> dict[str, int]:  # noqa: B008
    """What a tree has taken up to here, as its layers noted it."""
    notes = {} if before is None else store().manifest(before).notes
    return Budget(*(notes.get(name, 0) for name in Budget._fields)).plus(taken)._asdict()


def _by_prompt(rows: pl.Series) -> Sequence[tuple[int, int]]:
    """First branch and number of branches of each job; no prompt is in two of them."""
    sizes = rows.value_counts(sort=False).sort("row")["count"].to_list()
    cut = shares(len(sizes), Machine.here().at_once())
    return [(sum(sizes[:first]), sum(sizes[first : first + height])) for first, height in cut]
