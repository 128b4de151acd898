"""Demonstrations that a policy asks and answers itself."""

from importlib import import_module
from pathlib import Path

import polars as pl

from alpacafarm_core import sifting, synthesising
from alpacafarm_core.artifacts import Candidates, Demonstrations, Instructions
from alpacafarm_core.errors import BadInput
from alpacafarm_core.setup import Source
from alpacafarm_core.store import Made
from alpacafarm_core.synthesis import (
    Drafts,
    Evidence,
    Filtering,
    Following,
    Invented,
    Inventing,
    Nearness,
    Neighbours,
    Read,
    Sifted,
    Synthesis,
    Synthetic,
)
from alpacafarm_core.unseen import evaluated
from alpacafarm_core.weights import Plain, Policy, Reward
from tasks.generate import written
from tasks.stage import ledger, stage, store

REMOVED = "removed.csv"


@stage(Drafts, version=1)
def invent(policy: Policy, inventing: Inventing) -> Made:
    """Draws from the text before a user's turn; those known to the ledger are not drawn again."""
    return Made(written("drafting:write", [(_plain(policy), inventing, ledger())]))


@stage(Drafts, version=1)
def follow_up(policy: Policy, said: Synthetic, inventing: Inventing, following: Following) -> Made:
    """A next question for each conversation, drawn with a system text that nothing else sees."""
    asked = (_plain(policy), store().read(said), (inventing, following), ledger())
    return Made(written("drafting:write_on", [asked]))


@stage(Invented, version=1)
def admit(drafts: Drafts, source: Source) -> Made:
    """The usable draws that no evaluation asks; the others are counted."""
    rows = store().read(drafts)
    asked = rows.select("input", instruction="asked")
    return Made(*sifting.admitted(rows, evaluated(asked, source)))


@stage(Neighbours, version=1)
def neighbours(instructions: Instructions | Demonstrations, nearness: Nearness) -> Made:
    """How near the nearest other row is, by exact search."""
    how = nearness.embedding
    folder = store().weights(how.model) if isinstance(how, Read) else None
    call = (folder, store().read(instructions), nearness)
    return Made(written("embedding:write", [call]))


@stage(Sifted, version=1)
def sift(invented: Invented, answers: Candidates, evidence: Evidence, filtering: Filtering) -> Made:
    """All rows with what is known of them and the filter that left each out.

    How many each filter left out is in the notes, and in `removed.csv` beside the rows.
    """
    tables = {name: getattr(evidence, name) for name in Evidence.model_fields}
    known = {name: None if each is None else store().read(each) for name, each in tables.items()}
    rows, left = sifting.sifted(store().read(invented), store().read(answers), known, filtering)
    table = pl.DataFrame({"filter": list(left), "removed": list(left.values())})
    kept = rows.height - sum(left.values())
    return Made(
        rows,
        {"rows": rows.height, "kept": kept, "removed": left},
        {REMOVED: table.write_csv().encode()},
    )


@stage(Synthetic, version=1)
def keep(sifted: Sifted) -> pl.DataFrame:
    """The rows that no filter removed."""
    return sifting.kept(store().read(sifted))


@stage(Synthetic, version=1)
def collect(tables: tuple[Synthetic, ...]) -> pl.DataFrame:
    """The rows of several tables in one."""
    return sifting.collected([store().read(each) for each in tables])


def synthesise(
    policy: Policy,
    synthesis: Synthesis,
    source: Source,
    reward: Reward | None = None,
    base: Policy | None = None,
) -> Synthetic:
    """Have a policy ask and answer itself, in stages that are cached each."""
    return synthesising.synthesise(import_module("tasks"), policy, synthesis, source, reward, base)


def _plain(policy: Policy) -> Path:
    if policy.decode != Plain():
        raise BadInput(
            f"{policy.folder} decodes by {policy.decode.name}, and instructions are drawn plainly; "
            "invent with the policy that decodes plainly"
        )
    return store().weights(policy)
