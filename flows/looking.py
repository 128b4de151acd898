"""What the pages for browsing show, read from a store and its ledger; nothing is written."""

from pathlib import Path
from typing import Any

from alpacafarm_core import browse_page, browse_row, places
from alpacafarm_core.artifacts import Artifact, Preferences, Table
from alpacafarm_core.browse_page import ROWS, Facts, Wanted
from alpacafarm_core.difference import compared
from alpacafarm_core.errors import FarmError, Missing
from alpacafarm_core.evidence import Result
from alpacafarm_core.graphs import given
from alpacafarm_core.lineage import ancestry
from alpacafarm_core.panel import Panel
from alpacafarm_core.profile import profiled
from alpacafarm_core.store import KEY, KINDS, Manifest, Store
from alpacafarm_core.tracing import rows_of, traced
from alpacafarm_core.transcript import Judgement, judgement
from flows.reporting import drawn

PICTURE = ".png"
ALIKE, APART = 50, 10
"""Artifacts offered to compare with, and rows shown of each sort that differs."""


def found(store: Store, kind: str, key: str) -> Artifact:
    """The artifact of an address; raises Missing, also for what could be no key."""
    if kind not in KINDS or not KEY.fullmatch(key):
        raise Missing(f"no artifact {kind}/{key}; go back to the list")
    return store.find(f"{kind}/{key}")


def listing(store: Store, wanted: Wanted) -> str:
    """The list of artifacts."""
    return browse_page.listing(store.all(), wanted)


def artifact(store: Store, looked_at: Artifact, page: int) -> str:
    """The page of an artifact; raises Missing or Damaged."""
    made, every = store.manifest(looked_at), store.all()
    known = {each.artifact.folder: each for each in every}
    height = made.rows or 0
    if page > 1 and (page - 1) * ROWS >= height:
        raise Missing(f"{looked_at.folder} has no page {page} of rows; go back to the first")
    table = store.scan(looked_at) if isinstance(looked_at, Table) else None
    rows = [] if table is None else table.slice((page - 1) * ROWS, ROWS).collect().to_dicts()
    return browse_page.artifact(
        Facts(
            made=made,
            inputs=[(name, each, known.get(each)) for name, each in given(made)],
            users=[each for each in every if _uses(each, looked_at.folder)],
            columns=[] if table is None else profiled(table),
            rows=rows,
            page=page,
            lineage=ancestry(store, looked_at),
            plots=[name for name in made.files if name.endswith(PICTURE)],
            alike=[each for each in every if each.kind == made.kind and each != made][-ALIKE:],
            is_result=isinstance(looked_at, Result),
        )
    )


def row(store: Store, looked_at: Artifact, at: int) -> str:
    """The page of a row; raises Missing, BadInput or Damaged."""
    trace = traced(store, looked_at, at)
    assert isinstance(looked_at, Table)  # what has no rows is refused above
    held = store.scan(looked_at).slice(at, 1).collect().row(0, named=True)
    return browse_row.row(
        browse_row.Looked(
            store.manifest(looked_at),
            at,
            held,
            _judgement(store, looked_at, at),
            [(each, rows_of(store, each, browse_row.SHOWN)) for each in trace],
        )
    )


def difference(store: Store, first: str, second: str) -> str:
    """What differs between two artifacts; raises BadInput, Missing or Damaged."""
    before, after = _prefix(store, first), _prefix(store, second)
    return browse_row.difference(compared(store, before, after, APART))


def report(store: Store, looked_at: Artifact) -> str:
    """The report of a result; raises BadInput for anything else, Missing or Damaged."""
    return drawn(store, looked_at)


def plot(store: Store, looked_at: Artifact, name: str) -> bytes:
    """A picture among the files of an artifact; raises Missing for every other name."""
    if not name.endswith(PICTURE) or name not in store.manifest(looked_at).files:
        raise Missing(f"{looked_at.folder} has no plot {name}; its page shows those there are")
    return Path(store.path(looked_at), name).read_bytes()


def _prefix(store: Store, key: str) -> Artifact:
    kind, _, start = key.rpartition("/")
    if (kind and kind not in KINDS) or not start or set(start) - set("0123456789abcdef"):
        raise Missing(f"{key!r} is no key; go back to the list")
    return store.find(key)


def _uses(made: Manifest, folder: str) -> bool:
    return any(folder in folders for folders in made.recipe.inputs.values())


def _judgement(store: Store, looked_at: Artifact, at: int) -> Judgement | None:
    """What a judge was asked about a label; None where no panel labelled or nobody remembers."""
    panel: Any = store.manifest(looked_at).recipe.settings.get("panel")
    if not isinstance(looked_at, Preferences) or panel is None:
        return None
    try:
        labels = store.read(looked_at)
        with places.looked_into(store.place) as (_, ledger):
            try:
                return judgement(labels, at, Panel.model_validate(panel), ledger)
            finally:
                ledger.close()
    except (FarmError, ValueError):
        return None  # a panel of another version of the farm: the row itself is still there
