"""No prompt is both trained on and evaluated: looked up in what a policy came from."""

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
    both = [
        store().scan(table).select(PROMPT).join(prompts.lazy(), on=PROMPT, how="semi").unique()
        for table in _trained_on(policy)
    ]
    found = pl.collect_all(both, engine="streaming")
    apart((row for rows in found for row in rows.iter_rows()), prompts.iter_rows())


def _trained_on(policy: Policy) -> list[Table]:
    """Every table with prompts that the policy and what it decodes with came from."""
    held = [artifact for artifact in artifacts_in(policy) if store().has(artifact)]
    made = {each.artifact: None for artifact in held for each in ancestry(store(), artifact)}
    return [table for table in made if isinstance(table, TRAINED_ON)]
