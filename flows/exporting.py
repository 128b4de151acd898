"""The commands that take artifacts out, hold two against each other, and replay a bundle."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpacafarm_core.errors import BadInput
from flows import inspection
from flows.inspection import Json, StorePath

if TYPE_CHECKING:
    from alpacafarm_core.artifacts import Artifact
    from alpacafarm_core.store import Store

FORMS = "alpaca_eval, alpaca_farm, trl, hf, jsonl or bundle"
Lay = Callable[[Path], Any]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (export, diff, replay):
        app.command()(command)


def export(
    key: str,
    form: Annotated[str, typer.Option("--as", help=f"Format: {FORMS}.")],
    out: Annotated[Path, typer.Option(help="File to write; for hf and bundle a new folder.")],
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Write an artifact in a format of other people's, whole or not at all."""
    from alpacafarm_core.exports import FORMATS
    from flows.printing import show_json

    opened = inspection.open_store(store)
    artifact = opened.find(key)
    if form in FORMATS:
        _into_file(out, _written(opened, artifact, form))
    elif form in ("hf", "bundle"):
        lay = _dataset(opened, artifact) if form == "hf" else _bundle(opened, artifact)
        _into_folder(out, lay)
    else:
        raise BadInput(f"unknown format {form!r}; use {FORMS}")
    document = {"key": artifact.key, "kind": artifact.kind, "as": form, "out": str(out)}
    if as_json:
        return show_json(document)
    print(f"{artifact.folder} as {form}: {out}")


def diff(
    first: Annotated[str, typer.Argument(help="Key of the one.")],
    second: Annotated[str, typer.Argument(help="Key of the other.")],
    rows: Annotated[int, typer.Option(help="Rows to show of each sort.", min=0)] = 3,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """What differs between two artifacts: how they were made, and their rows."""
    from alpacafarm_core.difference import compared
    from flows.printing import show_json

    opened = inspection.open_store(store)
    document = compared(opened, opened.find(first), opened.find(second), rows)
    show_json(document) if as_json else _show_difference(document)


def replay(
    bundle: Annotated[Path, typer.Argument(help="Folder that `export --as bundle` wrote.")],
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Compute a bundle's board again, offline and without a key; exit code 2 when it differs."""
    from alpacafarm_core.replay import replayed
    from flows.printing import show_board, show_json

    started = time.time()
    found = replayed(bundle)
    document = {
        "leaderboard": found.board.to_dicts(),
        "key": found.key,
        "equal": not found.differences,
        "rows_judged": found.judged,
        "calls": found.calls,
        "as_recorded": found.as_recorded,
        "differences": found.differences,
        "cost_usd": 0.0,
        "seconds": round(time.time() - started, 3),
    }
    if as_json:
        show_json(document)
    else:
        show_board(document | {"key": None}, as_json=False)
        print(
            f"{found.judged} rows judged again from {found.calls} recorded calls; the board "
            f"{'differs' if found.differences else 'is equal, row for row'}"
        )
        if found.as_recorded:
            print(f"taken as recorded, not computed again: {', '.join(found.as_recorded)}")
    if found.differences:
        raise BadInput(f"{bundle}: {found.differences[0]}; ask its maker for a whole copy")


def _written(store: "Store", artifact: "Artifact", form: str) -> Lay:
    """What writes a table into one file; a file of alpaca_eval's that was taken in, as it was."""
    from alpacafarm_core.artifacts import Table
    from alpacafarm_core.exports import is_theirs, writer_of
    from alpacafarm_core.landing import GIVEN

    write = writer_of(artifact.kind, form)
    assert isinstance(artifact, Table)
    given = [store.path(artifact) / name for name in store.manifest(artifact).files]
    same = [file for file in given if file.stem == GIVEN]
    if form == "alpaca_eval" and same and is_theirs(same[0], artifact.kind):
        content = same[0].read_bytes()
    else:
        content = write(store.read(artifact)).encode()
    return lambda draft: draft.write_bytes(content)


def _dataset(store: "Store", artifact: "Artifact") -> Lay:
    from alpacafarm_core.artifacts import Table
    from alpacafarm_core.exports import dataset_folder

    if not isinstance(artifact, Table):
        raise BadInput(f"{artifact.folder} is not a table; hf takes tables, weights lie in a store")
    rows, manifest = store.read(artifact), store.manifest(artifact)
    return lambda draft: dataset_folder(rows, manifest, draft)


def _bundle(store: "Store", artifact: "Artifact") -> Lay:
    from alpacafarm_core.artifacts import Leaderboard
    from alpacafarm_core.places import looked_into
    from alpacafarm_core.replay import bundle

    if not isinstance(artifact, Leaderboard):
        raise BadInput(f"{artifact.folder} is no leaderboard; a bundle is made of one")

    def lay(draft: Path) -> None:
        with looked_into(store.place) as (_, ledger):
            bundle(store, ledger, artifact, draft)

    return lay


def _into_file(out: Path, lay: Lay) -> None:
    """Write a file beside and rename it into place; raises BadInput."""
    if out.is_dir():
        raise BadInput(f"--out {out} is a folder; name a file in it")
    _placed(out, lay)


def _into_folder(out: Path, lay: Lay) -> None:
    """Fill a folder beside and rename it into place; raises BadInput."""
    if out.exists() or out.is_symlink():
        raise BadInput(f"--out {out} is there already; name a folder that is not")

    def fill(draft: Path) -> None:
        draft.mkdir()
        lay(draft)

    _placed(out, fill)


def _placed(out: Path, lay: Lay) -> None:
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        lay(draft)
        draft.replace(out)
    except OSError as error:
        raise BadInput(
            f"cannot write {out} ({error.strerror or error}); choose another --out"
        ) from error
    finally:
        if draft.is_dir():
            shutil.rmtree(draft)
        draft.unlink(missing_ok=True)


def _show_difference(document: dict[str, Any]) -> None:
    from flows.printing import show_rows

    print(f"{document['first']} -> {document['second']}")
    for line in (*document["recipe"], *document["causes"]):
        print(f"  {line}")
    for name in ("packages", "commit"):
        for what, (one, other) in document[name].items():
            print(f"  {what}: {one} -> {other}")
    rows = document["rows"]
    if rows is None:
        return print(f"files that differ: {', '.join(document['files']) or 'none'}")
    print(
        ", ".join(f"{rows[sort]} rows {sort}" for sort in ("added", "removed", "changed", "same"))
    )
    if rows["columns"]:
        print("changed: " + ", ".join(f"{name} in {n}" for name, n in rows["columns"].items()))
    for sort, some in rows["shown"].items():
        if some:
            show_rows([{"": sort} | _told(row) for row in some])


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """A row in one line: a changed one with each column before and after."""
    columns = row.get("columns", {})
    said = "; ".join(f"{name}: {old} -> {new}" for name, (old, new) in columns.items())
    return {name: held for name, held in row.items() if name != "columns"} | {"changes": said}
