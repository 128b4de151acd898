"""`alpacafarm report`: a leaderboard or study as one page that stands alone."""

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alpacafarm_core.errors import BadInput, FarmError
from flows.inspection import Json, StorePath, open_store

if TYPE_CHECKING:
    from alpacafarm_core.artifacts import Artifact
    from alpacafarm_core.store import Store

REPORTS = "reports"
log = logging.getLogger("alpacafarm")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(report)


def report(
    key: Annotated[str, typer.Argument(help="Key of a leaderboard, ranks or curves.")],
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file to write; default reports/KEY.html in the store."),
    ] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Write a result as one HTML file: tables, plots, samples, lineage; it asks no network."""
    from flows.printing import show_json

    started, opened = time.time(), open_store(store)
    artifact = opened.find(key)
    there = out or place(opened, artifact)
    text = drawn(opened, artifact)
    write(text, there)
    document = {
        "key": artifact.key,
        "kind": artifact.kind,
        "out": str(there),
        "bytes": len(text.encode()),
        "seconds": round(time.time() - started, 3),
    }
    show_json(document) if as_json else print(there)


def kept(store: "Store", artifact: "Artifact") -> Path | None:
    """The report in the store, drawn unless it is there; None, and a warning, where it fails.

    A run that has made its board does not fail for want of a page about it.
    """
    try:
        there = place(store, artifact)
        if not there.is_file():
            write(drawn(store, artifact), there)
    except (FarmError, OSError) as error:
        log.warning("no report: %s", error)
        return None
    return there


def place(store: "Store", artifact: "Artifact") -> Path:
    """Where the store keeps the report of a result; the folder is made."""
    folder = store.root / REPORTS
    folder.mkdir(exist_ok=True)
    return folder / f"{artifact.key}.html"


def drawn(store: "Store", artifact: "Artifact") -> str:
    """The page of a result; raises BadInput, Missing or Damaged."""
    from alpacafarm_core.evidence import gather
    from alpacafarm_core.report import report as page

    return page(gather(store, artifact))


def write(text: str, out: Path) -> None:
    """Write the page beside and rename it into place; raises BadInput."""
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        draft.write_text(text)
        draft.replace(out)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BadInput(
            f"cannot write {out} ({error.strerror or error}); choose another --out"
        ) from error
