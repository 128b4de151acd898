"""`alpacafarm doctor`: what works here, and the mend for what does not."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alpacafarm_core.errors import BadInput
from flows.inspection import Json, StorePath

if TYPE_CHECKING:
    from alpacafarm_core.doctor import Finding


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(doctor)


def doctor(
    panel: Annotated[
        list[str] | None, typer.Option(help="A panel whose endpoints to look at; several may be.")
    ] = None,
    ask: Annotated[
        bool, typer.Option(help="Put one question, of one token, to each model of the panels.")
    ] = False,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Say what works here and how to mend the rest; exit code 2 when something failed."""
    from flows.printing import show_json

    found = list(examined(store, panel or [], ask))
    if as_json:
        show_json([each.model_dump() for each in found])
    else:
        show(found)
    failed = [each.check for each in found if each.state == "failed"]
    if failed:
        raise BadInput(f"{len(failed)} of {len(found)} failed: {', '.join(failed)}; mends above")


def examined(store: str | None, panels: list[str], ask: bool = False) -> "Iterator[Finding]":
    """Every finding, in the order in which things must work."""
    from alpacafarm_core import checkup
    from alpacafarm_core import doctor as checks
    from flows import automating, examining, server_seen

    here, required, installed = (
        examining.computer(),
        examining.required(),
        examining.installed(),
    )
    yield checks.python(here)
    yield checks.packages(required, installed)
    yield checks.extras(required, installed)
    yield from checks.machine(here)
    yield checks.engine(here, installed)
    yield from _kept(store)
    for name in panels:
        yield from _asked(name, ask)
    if api := os.environ.get("PREFECT_API_URL"):
        wanted = (automating.SILENT, automating.AGAIN)
        yield from checkup.server(server_seen.server(api), len(here.gpus), wanted)
    else:
        yield checks.ok("server", "none named; flows run without one, `make ui` starts one")


def show(found: "list[Finding]") -> None:
    """A line for each finding, and below it the mend where there is one."""
    width = max(len(each.check) for each in found)
    for each in found:
        print(f"{each.state:8} {each.check:{width}}  {each.found}")
        if each.mend:
            print(f"{'':8} {'':{width}}  -> {each.mend}")


def _kept(store: str | None) -> "Iterator[Finding]":
    """Of the store and its ledger, on this machine or shared."""
    from alpacafarm_core import checkup, places
    from flows import examining

    named = places.place(store)
    remote = places.is_remote(named)
    if remote:
        yield from checkup.bucket(examining.bucket(named))
    else:
        yield from checkup.folder(examining.folder(Path(named)))
    url = os.environ.get("ALPACAFARM_LEDGER")
    own = places.folder_of(named) / "ledger.sqlite"
    yield checkup.ledger(examining.shared_ledger(url) if url else examining.own_ledger(own), remote)


def _asked(panel: str, ask: bool) -> "Iterator[Finding]":
    from alpacafarm_core import doctor as checks
    from alpacafarm_core import endpoints
    from alpacafarm_core.errors import FarmError
    from alpacafarm_core.panel import load
    from flows import examining

    try:
        found = load(panel)
        endpoints.check(found)
    except FarmError as error:
        yield checks.failed(f"panel {panel}", str(error), "mend the file, or name another panel")
        return
    for each in examining.endpoints(found, ask):
        yield checks.endpoint(found.name, each)
