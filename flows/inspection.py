"""The commands that look at artifacts, or take one in or out."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpacafarm_core.errors import BadInput, Missing
from flows.tracing import show_trace

if TYPE_CHECKING:
    import polars as pl

    from alpacafarm_core.artifacts import Preferences
    from alpacafarm_core.store import Manifest, Store

KEY = re.compile(r"[0-9a-f]{4,16}")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
StorePath = Annotated[
    str | None, typer.Option("--store", help="Folder or s3:// address.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("ls")(list_artifacts)
    app.command("import")(take_in)
    for command in (show, lineage, why, verify, forget):
        app.command()(command)


def list_artifacts(
    kind: Annotated[str | None, typer.Argument(help="Only this kind.")] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """List what the store holds, oldest first."""
    _print([_line(manifest) for manifest in open_store(store).all(kind)], as_json)


def show(
    key: str,
    rows: Annotated[int, typer.Option(help="Rows to show.", min=0)] = 5,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """How an artifact was made, its first rows, and what its columns hold."""
    from alpacafarm_core.artifacts import Table
    from alpacafarm_core.profile import profiled
    from flows.printing import show_json, show_rows

    opened = open_store(store)
    artifact = opened.find(key)
    manifest = opened.manifest(artifact)
    table = opened.scan(artifact) if isinstance(artifact, Table) else None
    head = [] if table is None else table.head(rows).collect().to_dicts()
    columns = [] if table is None else [each._asdict() for each in profiled(table)]
    if as_json:
        held = {"manifest": manifest.model_dump(mode="json"), "rows": head, "statistics": columns}
        return show_json(held)
    print(manifest.model_dump_json(indent=1))
    show_rows([{n: h for n, h in row.items() if not isinstance(h, list)} for row in head])
    show_rows(columns)
    print(opened.path(artifact))


def lineage(
    key: str,
    row: Annotated[
        int | None, typer.Option(help="Only what made this row, from 0.", min=0, show_default=False)
    ] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """All an artifact, or one row of it, came from; inputs before what was made of them."""
    from alpacafarm_core.lineage import ancestry

    opened = open_store(store)
    artifact = opened.find(key)
    if row is not None:
        return show_trace(opened, artifact, row, as_json)
    _print([_line(manifest) for manifest in ancestry(opened, artifact)], as_json)


def why(key: str, store: StorePath = None, as_json: Json = False) -> None:
    """Why the stage of an artifact ran or was skipped the last time."""
    from alpacafarm_core.lineage import because
    from flows.printing import show_json

    opened = open_store(store)
    artifact = opened.find(key)
    ran, reasons = because(opened, artifact)
    if as_json:
        return show_json({"key": artifact.key, "ran": ran, "because": reasons})
    print(f"{artifact.folder} {'ran' if ran else 'was skipped'}:")
    for reason in reasons:
        print(f"  {reason}")


def verify(
    key: Annotated[str | None, typer.Argument(help="Only this artifact.")] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Check every file against its digest; exit code 2 when something is damaged."""
    from flows.printing import show_json

    opened = open_store(store)
    artifacts = [opened.find(key)] if key else opened.receipts()
    damaged = [
        {"artifact": artifact.folder, "files": files}
        for artifact in artifacts
        if (files := opened.damage(artifact))
    ]
    if as_json:
        show_json({"ok": not damaged, "checked": len(artifacts), "damaged": damaged})
    else:
        print(f"{len(artifacts)} artifacts checked, {len(damaged)} damaged")
    if damaged:
        named = ", ".join(f"{d['artifact']} ({', '.join(d['files'])})" for d in damaged)
        raise BadInput(f"damaged: {named}; `alpacafarm forget KEY` and run again")


def forget(key: str, store: StorePath = None, as_json: Json = False) -> None:
    """Remove one artifact; the next run makes just that one anew."""
    opened = open_store(store)
    artifact = opened.find(key)
    opened.forget(artifact)
    _print([{"forgotten": artifact.folder}], as_json)


def take_in(
    file: Path,
    kind: Annotated[str, typer.Option("--as", help="What the rows are.")],
    dataset: Annotated[
        str, typer.Option(help="Dataset to add them to; default that of their kind.")
    ] = "",
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Take a file of rows into the store; its content is its key."""
    from alpacafarm_core.arrivals import refuse_name
    from alpacafarm_core.landing import take_in
    from alpacafarm_core.places import place, store_at
    from flows.printing import show_json
    from flows.watching import told

    made, _ = take_in(store_at(place(store)), file, kind, dataset and refuse_name(dataset))
    told(made, str(file.absolute()))
    document = {"key": made.key, "kind": made.kind, "rows": made.rows, "quarantined": 0}
    show_json(document) if as_json else _print([document], as_json)


def write_csv(rows: "pl.DataFrame", out: Path) -> None:
    """Write a leaderboard at full precision; raises BadInput when the place cannot be written."""
    try:
        rows.write_csv(out)
    except OSError as error:
        raise BadInput(
            f"cannot write {out} ({error.strerror or error}); choose another --out"
        ) from error


def _line(manifest: "Manifest") -> dict[str, Any]:
    return {
        "kind": manifest.kind,
        "key": manifest.key,
        "stage": manifest.recipe.stage,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "seconds": manifest.seconds,
        "made": manifest.made,
    }


def is_key(named: str) -> bool:
    """Whether a word means an artifact of the store; a file of that name comes first."""
    return bool(KEY.fullmatch(named)) and not Path(named).exists()


def labels_kept(key: str, store: str | None) -> "tuple[Store, Preferences]":
    """The store and the labels that a key means; raises Missing or BadInput with the mend."""
    from alpacafarm_core.artifacts import Preferences
    from alpacafarm_core.places import is_there, place, store_at

    where = place(store)
    if not is_there(where):
        raise Missing(f"no file {key}, and no store {where}; give a file of labels")
    opened = store_at(where)
    found = opened.find(key)
    if not isinstance(found, Preferences):
        raise BadInput(f"{found.folder} has no labels; give preferences, or a file of them")
    return opened, found


def root_of(store: str | None) -> Path:
    """The folder on this machine that belongs to the store that a command means."""
    from alpacafarm_core.places import folder_of, place

    return folder_of(place(store))


def open_store(store: str | None) -> "Store":
    """A store to look into; it is not made by looking."""
    from alpacafarm_core.places import is_there, place, store_at

    where = place(store)
    if not is_there(where):
        raise Missing(f"no store {where}; give --store, or make one with `alpacafarm demo`")
    return store_at(where)


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    from flows.printing import show_json, show_rows

    show_json(rows) if as_json else show_rows(rows)
