"""No prompt is both trained on and evaluated: looked up in what a policy came from."""

from collections.abc import Iterator

import polars as pl

from alpacafarm_core.artifacts import Demonstrations, Instructions, Preferences, Table
from alpacafarm_core.lineage import ancestry
from alpacafarm_core.recipe import artifacts_in
from alpacafarm_core.train.contracts import apart
from alpacafarm_core.weights import Policy
from tasks.stage import store

PROMPT = ["instruction", "input"]
TRAINED_ON = (Demonstrations, Instructions, Preferences)


def refuse_overlap(policy: Policy, evaluated: Instructions) -> None:
    """Refuse to evaluate a policy on prompts that it, or the judge it decodes by, was trained on.

    Raises ContractBroken with the rows. What is not made yet, as in a plan, is not looked at.
    """
    if not store().has(evaluated):
        return
    prompts = store().read(evaluated).select(PROMPT)
    both = [table.join(prompts, on=PROMPT, how="semi") for table in _trained_on(policy)]
    if both:
        apart(pl.concat(both).unique().iter_rows(), prompts.iter_rows())


def _trained_on(policy: Policy) -> Iterator[pl.DataFrame]:
    """Prompts of every table that the policy and what it decodes with came from."""
    seen = set[str]()
    for artifact in artifacts_in(policy):
        made = ancestry(store(), artifact) if store().has(artifact) else []
        for table in (manifest.artifact for manifest in made):
            if isinstance(table, TRAINED_ON) and table.folder not in seen:
                seen.add(table.folder)
                yield _prompts(table)


def _prompts(table: Table) -> pl.DataFrame:
    return store().read(table).select(PROMPT)
