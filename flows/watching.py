"""Watching a place where files come in: `alpacafarm watch`, and the event that a file landed.

A file is read, told of and then taken into the store, in this order: what is in the store has been
told of, so who watches keeps no list, and one who was stopped in between tells again. Telling twice
does no harm, since an event starts a run that looks at everything.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import NAMESPACE_URL, uuid5

import typer

from alpacafarm_core.errors import BadInput, FarmError, Missing
from flows.inspection import StorePath

if TYPE_CHECKING:
    from alpacafarm_core.store import Manifest

LANDED, RESOURCE = "alpacafarm.dataset.landed", "alpacafarm.dataset"
log = logging.getLogger("alpacafarm.watching")
Landing = dict[str, Any]
"""What is told of a file: name of the dataset, kind, digest, rows and path."""
Tell = Callable[[Landing], bool]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("watch")(watch)


def watch(
    folder: Annotated[str, typer.Argument(help="Folder or s3:// prefix where files come in.")],
    kind: Annotated[
        str, typer.Option("--as", help="What the rows are; default by the folder's name.")
    ] = "",
    dataset: Annotated[
        str, typer.Option(help="Dataset to add them to; default that of their kind.")
    ] = "",
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 5.0,
    store: StorePath = None,
) -> None:
    """Tell the Prefect server of each new file, so that deployments start; until interrupted."""
    from flows.purchasing import use

    use(store)
    # What is said here is said outside of a flow run.
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    if not os.environ.get("PREFECT_API_URL"):
        raise BadInput("no Prefect server to tell: set PREFECT_API_URL")
    with watched(folder, kind, dataset, every) as thread:
        print(f"watching {folder}   (Ctrl-C stops it)", flush=True)
        thread.join()


@contextmanager
def all_watched(folders: Sequence[str]) -> Iterator[None]:
    """Watch several places while the block runs."""
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(watched(folder))
        yield


@contextmanager
def watched(
    folder: str, kind: str = "", dataset: str = "", every: float = 5.0
) -> Iterator[threading.Thread]:
    """Watch a place in a thread while the block runs.

    A folder that is not there is made. The kind is preferences, unless the folder is called by
    another one. Raises BadInput for a kind, name or place that is none.
    """
    from alpacafarm_core import watched as places

    if not folder.startswith(places.S3):
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(
                f"cannot make {folder} ({error.strerror}); name a folder where files come in"
            ) from error
    eye, stop = Eye(folder, kind or _kind_of(folder), dataset), threading.Event()
    eye.place.stamps()

    def look() -> None:
        while not stop.is_set():
            eye.look_again()
            stop.wait(every)

    thread = threading.Thread(target=look, name="watching", daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join()


def _kind_of(folder: str) -> str:
    from alpacafarm_core.files import KINDS

    name = folder.rstrip("/").rpartition("/")[2]
    return name if name in KINDS else "preferences"


class Eye:
    """Who looks at a place, again and again, and tells of files that are new to a dataset."""

    def __init__(self, folder: str, kind: str, dataset: str = "", tell: Tell | None = None) -> None:
        from alpacafarm_core import arrivals, files
        from alpacafarm_core import watched as places

        self.place, self.kind = places.place(folder), files.kind_named(kind)
        self.dataset = arrivals.refuse_name(dataset or self.kind)
        self._tell = tell or emitted
        self._seen: dict[str, str] = {}

    def look_again(self) -> None:
        """`look`, going on at the next one when the place cannot be looked at."""
        try:
            self.look()
        except (FarmError, OSError) as error:
            log.warning("%s", error)

    def look(self) -> list[str]:
        """Take in what is whole and new; the names of the files that were told of."""
        stamps = self.place.stamps()
        told = []
        for name, stamp in stamps.items():
            if not stamp.is_whole or self._seen.get(name) == stamp.mark:
                continue
            try:
                done, new = self._taken(name)
            except BadInput as error:
                log.warning("not taken in: %s", error)
                done, new = not isinstance(error, Missing), False
            told += [name] if new else []
            if done:
                self._seen[name] = stamp.mark
        return told

    def _taken(self, name: str) -> tuple[bool, bool]:
        """Whether a file is dealt with, and whether it was new; raises BadInput."""
        from alpacafarm_core import landing
        from alpacafarm_core.setup import File
        from tasks.stage import store

        with self.place.fetched(name) as path:
            file = File.model_validate(path)
            artifact, _ = landing.receipt(file, self.kind, self.dataset)
            if store().has(artifact):
                return True, False
            rows = landing.rows_of(path, self.kind, self.dataset).height
            found = {"rows": rows, "digest": file.digest, "path": self.place.address(name)}
            if not self._tell(found | {"kind": self.kind, "name": self.dataset}):
                return False, False
            landing.take_in(store(), path, self.kind, self.dataset)
        log.info("%s: %s rows landed in %s", name, rows, self.dataset)
        return True, True


def told(made: "Manifest", path: str) -> None:
    """Tell the server, where there is one, of a file that was taken in."""
    if os.environ.get("PREFECT_API_URL"):
        said = made.recipe.settings
        emitted(
            {
                "name": said.get("dataset", made.kind),
                "kind": made.kind,
                "digest": said["file"]["digest"],
                "rows": made.rows,
                "path": path,
            }
        )


def silence(error: Exception) -> str:
    """Why a server did not do as asked; the error's own text would repeat its address."""
    answer = getattr(error, "response", None)
    return type(error).__name__ if answer is None else f"HTTP {answer.status_code}"


def emitted(landed: Landing) -> bool:
    """Whether the server took the event that a file landed; when it did not, a warning says why.

    The event's id is that of dataset and digest, so that a server told twice can see it.
    """
    from httpx import HTTPError
    from prefect import get_client
    from prefect.events import Event, Resource
    from prefect.exceptions import PrefectHTTPStatusError

    name, digest = landed["name"], landed["digest"]
    event = Event(
        event=LANDED,
        resource=Resource(
            {"prefect.resource.id": f"{RESOURCE}.{name}", "prefect.resource.name": name}
        ),
        payload=landed,
        id=uuid5(NAMESPACE_URL, f"{RESOURCE}.{name}/{digest}"),
    )
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[event.model_dump(mode="json")])
    except (HTTPError, PrefectHTTPStatusError, RuntimeError) as error:
        log.warning("the Prefect server was not told of %s (%s)", landed["path"], silence(error))
        return False
    return True
