"""What a run's page shows of its artifacts: a preview of each, a table of stages, their lineage.

A stage that is made posts a preview beside its task; what was found in the store has posted its own
when it was made. When the flow ends, one table says of every stage whether it was made or cached,
and the lineage is drawn. All of it is small: it lies in Prefect's database, twice.
"""

import json
import logging
import os
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core.artifacts import Artifact, Table
from alpacafarm_core.errors import Damaged, Missing
from alpacafarm_core.graphs import graph, mermaid
from alpacafarm_core.lineage import ancestry, receipt
from alpacafarm_core.profile import brief, profiled
from alpacafarm_core.store import Manifest, Store

ROWS = 20
LARGEST, ALL = 7_000, 200_000
"""Bytes of the rows of one preview, as far as short texts allow, and of all that one run posts."""

CELLS = (160, 80, 40, 20)
"""Characters of a text in a preview, the first that fits."""

log = logging.getLogger("alpacafarm.pages")


class Post(NamedTuple):
    """What is to stand on a page: a table, a list of rows, or markdown."""

    key: str
    content: list[dict[str, Any]] | str
    description: str


class Run:
    """The stages of a flow run in the order in which they ended, and the bytes it has posted.

    `without` are those that were made and have no preview, for want of room or of a page.
    """

    def __init__(self) -> None:
        self.ran: dict[str, bool] = {}
        self.without: set[str] = set()
        self.posted = 0


_runs: dict[str, Run] = {}


def noted(flow_run: str, artifact: Artifact, ran: bool) -> None:
    """Remember that a run made an artifact or found it; what it made stays made.

    The first stage of a run sees to it that the flow ends with its table of stages.
    """
    held = _run(flow_run).ran
    held[artifact.folder] = ran or held.get(artifact.folder, False)


def takes(flow_run: str, size: int) -> bool:
    """Whether the page of a run has room for so many bytes more, which are taken then."""
    run = _run(flow_run)
    if run.posted + size > ALL:
        return False
    run.posted += size
    return True


def preview(flow_run: str, store: Store, artifact: Artifact) -> None:
    """Post what was made on its task's page, while the run has room; a failure is only logged."""
    run = _run(flow_run)
    run.without.add(artifact.folder)
    with _only_logged(artifact.folder):
        posts = previewed(store, store.manifest(artifact))
        if takes(flow_run, sum(len(json.dumps(each)) for each in posts)):
            post(posts)
            run.without.discard(artifact.folder)


def ended(flow: Any, flow_run: Any, state: Any) -> None:
    """When a flow ends: its stages as one table, and what they come from as a graph."""
    from tasks.stage import store

    run = _runs.pop(str(flow_run.id), None)
    if run is not None:
        with _only_logged("the stages"):
            post([staged(store(), run.ran, run.without), drawn(store(), run.ran)])


def _run(flow_run: str) -> Run:
    if flow_run not in _runs:
        _runs[flow_run] = Run()
        _ends_with_its_stages()
    return _runs[flow_run]


def _ends_with_its_stages() -> None:
    from prefect.context import FlowRunContext

    run = FlowRunContext.get()
    if run is not None and run.flow is not None and ended not in run.flow.on_completion_hooks:
        run.flow.on_completion(ended)
        run.flow.on_failure(ended)


def post(entries: Sequence[Post]) -> None:
    """Put all on the page of the run that this code is in, by one connection."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate
    from prefect.utilities.context import get_task_and_flow_run_ids

    task_run, flow_run = get_task_and_flow_run_ids()
    with get_client(sync_client=True) as client:
        for key, content, description in entries:
            is_text = isinstance(content, str)
            client.create_artifact(
                ArtifactCreate(
                    key=key,
                    type="markdown" if is_text else "table",
                    data=content if is_text else json.dumps(_finite(content), default=str),
                    description=description,
                    task_run_id=task_run,
                    flow_run_id=flow_run,
                )
            )


def previewed(store: Store, made: Manifest) -> list[Post]:
    """The first rows and what the columns hold, as tables; of weights their files."""
    key, facts = key_of(made.artifact), _facts(made)
    if not isinstance(made.artifact, Table):
        files = [{"file": name, "sha256": digest} for name, digest in made.files.items()]
        return [Post(key, files, facts)]
    table = store.scan(made.artifact)
    columns = [each._asdict() for each in profiled(table)]
    rows = _fitting(table.head(ROWS).collect())
    return [
        Post(key, rows, f"First rows, without what is the same in all. {facts}"),
        Post(f"{key}-columns", columns, f"What the columns hold. {facts}"),
    ]


def key_of(artifact: Artifact) -> str:
    """What a preview is called in Prefect, which takes small letters, digits and dashes."""
    return artifact.folder.replace("/", "-").replace("_", "-")


def staged(store: Store, ran: dict[str, bool], without: Container[str] = ()) -> Post:
    """A row a stage: made or cached, and what making it took, this time or before.

    `without` are folders that have no preview.
    """
    found = [(_manifest(store, folder), is_made) for folder, is_made in ran.items()]
    rows = [_row(made, is_made) for made, is_made in found if made is not None]
    for row in rows:
        row["preview"] = "" if row["artifact"] in without else row["preview"]
    fresh = [row for row in rows if row["state"] == "made"]
    spent = sum(row["usd"] or 0.0 for row in fresh)
    told = (
        f"{len(fresh)} made in {sum(row['seconds'] for row in fresh):.1f} s, "
        f"{len(rows) - len(fresh)} cached; ${spent:.2f} for judges in this run. Seconds and "
        "dollars of what is cached are those of its making; its preview is there where a server "
        "saw it made. `alpacafarm show KEY` shows any."
    )
    return Post("stages", rows, f"{told} {_browse('', 'All artifacts')}".strip())


def drawn(store: Store, ran: dict[str, bool]) -> Post:
    """All that the stages of a run come from; what the run made is green."""
    shown = graph(ancestry(store, *map(receipt, ran)))
    left = f" {shown.left_out} more are not drawn." if shown.left_out else ""
    told = f"Green was made by this run, grey was in the store; x3 stands for three alike.{left}"
    return Post("lineage", f"{mermaid(shown, ran)}\n\n{told}", "What the results were made from")


def _facts(made: Manifest) -> str:
    """In one line of markdown what made an artifact, from what, and what that took."""
    facts = [f"Made by {made.recipe.stage} in {made.seconds:.1f} s", f"{made.bytes / 1000:,.0f} kB"]
    facts += [f"{made.rows:,} rows"] if made.rows is not None else []
    if "usd_bought" in made.notes:
        facts.append(f"{made.notes['calls_bought']} calls bought for ${_usd(made):.2f}")
    inputs = [f"{name} `{each}`" for name, given in made.recipe.inputs.items() for each in given]
    if inputs:
        facts.append(f"from {', '.join(inputs[:6])}{' and more' if len(inputs) > 6 else ''}")
    facts += [f"`alpacafarm show {made.key}`", _browse(f"/artifact/{made.artifact.folder}", "page")]
    return " · ".join(filter(None, facts))


def _row(made: Manifest, ran: bool) -> dict[str, Any]:
    row = {
        "stage": made.recipe.stage,
        "artifact": made.artifact.folder,
        "state": "made" if ran else "cached",
        "rows": made.rows,
        "seconds": round(made.seconds, 1),
        "usd": round(_usd(made), 4) if "usd_bought" in made.notes else None,
        "preview": key_of(made.artifact),
    }
    url = os.environ.get("ALPACAFARM_BROWSE_URL")
    return row | ({"page": f"{url.rstrip('/')}/artifact/{made.artifact.folder}"} if url else {})


def _usd(made: Manifest) -> float:
    return float(made.notes.get("usd_bought", 0.0))


def _browse(path: str, words: str) -> str:
    """A link to our own pages, where ALPACAFARM_BROWSE_URL says where they are served."""
    url = os.environ.get("ALPACAFARM_BROWSE_URL")
    return f"[{words}]({url.rstrip('/')}{path})" if url else ""


def _fitting(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows with texts cut until all fit; without lists and columns of a single value."""
    plain = [name for name, kind in rows.schema.items() if not isinstance(kind, pl.List)]
    telling = [name for name in plain if rows[name].n_unique() > 1]
    told = rows.select(telling or plain).to_dicts()
    shown: list[dict[str, Any]] = []
    for longest in CELLS:
        shown = [
            {name: brief(held, longest) if isinstance(held, str) else held for name, held in r}
            for r in (row.items() for row in told)
        ]
        if len(json.dumps(shown, default=str)) <= LARGEST:
            break
    return shown


def _finite(held: Any) -> Any:
    """The same without numbers that JSON does not know."""
    if isinstance(held, dict):
        return {name: _finite(each) for name, each in held.items()}
    if isinstance(held, list):
        return [_finite(each) for each in held]
    return None if isinstance(held, float) and not isfinite(held) else held


def _manifest(store: Store, folder: str) -> Manifest | None:
    """How it was made; None where it was forgotten meanwhile."""
    try:
        return store.manifest(receipt(folder))
    except (Missing, Damaged):
        return None


@contextmanager
def _only_logged(what: str) -> Iterator[None]:
    """A page is never worth a run: what goes wrong is a warning."""
    try:
        yield
    except Exception as error:
        log.warning("nothing on the run's page of %s: %s", what, error)
