"""`alpacafarm gc`: what a store can do without."""

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpacafarm_core.errors import BadInput
from flows.inspection import Json, StorePath, open_store

if TYPE_CHECKING:
    from alpacafarm_core.sweeping import Swept

AGE = re.compile(r"(\d+(?:\.\d+)?)([hdw]?)")
SECONDS = {"h": 3600.0, "": 86_400.0, "d": 86_400.0, "w": 604_800.0}
OLDER = "Also artifacts that nothing needs and nobody used for so long: 30, 30d, 12h or 4w."


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("gc")(sweep)


def sweep(
    older_than: Annotated[str | None, typer.Option(help=OLDER, show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say it; remove nothing.")] = False,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Remove leftovers; with an age also artifacts no board, study or late work came from."""
    from alpacafarm_core.sweeping import swept
    from flows.printing import show_json

    age = None if older_than is None else seconds(older_than)
    found = swept(open_store(store), age, dry_run)
    document = {
        "removed": [each._asdict() for each in found.gone],
        "bytes": sum(each.bytes for each in found.gone),
        "left": found.left,
        "dry_run": dry_run,
    }
    show_json(document) if as_json else _show(found, document)


def seconds(age: str) -> float:
    """An age in days, or with a unit; raises BadInput."""
    found = AGE.fullmatch(age.strip())
    if found is None:
        raise BadInput(f"--older-than={age!r} is no age; give days, or hours and weeks as 12h, 4w")
    return float(found[1]) * SECONDS[found[2]]


def _show(found: "Swept", document: dict[str, Any]) -> None:
    from flows.printing import show_rows

    if found.gone:
        show_rows([each._asdict() for each in found.gone])
    for line in found.left:
        print(f"left alone: {line}")
    verb = "would go" if document["dry_run"] else "removed"
    print(f"{len(found.gone)} {verb}, {document['bytes'] / 1e6:.1f} MB")
