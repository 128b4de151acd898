"""The store: where artifacts live, and the only thing that knows paths.

A finished artifact is a folder `<kind>/<key>/` with its files and a `manifest.json`, written last.
The folder is filled beside and renamed into place, so it is complete or absent. Work on one key is
guarded by `flock`, which the kernel drops with the process. A file `prefect.json` in a folder is
Prefect's own record of the run and no part of the artifact.
"""

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from pydantic import Field

from alpacafarm_core import artifacts, drafts, journal, ratings, synthesis, weights
from alpacafarm_core.artifacts import Artifact, Table
from alpacafarm_core.errors import BadInput, Damaged, Missing, StoreNotWritable
from alpacafarm_core.laying import laid, types
from alpacafarm_core.recipe import Recipe, file_digest
from alpacafarm_core.surroundings import commit, packages
from alpacafarm_core.values import Value

ROWS, MANIFEST = "rows.parquet", "manifest.json"
KINDS: dict[str, type[Artifact]] = {
    kind.kind: kind
    for module in (artifacts, weights, ratings, synthesis)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Artifact) and hasattr(kind, "kind")
}


KEY = re.compile(r"[0-9a-f]{16}")


class Made(NamedTuple):
    """What a stage hands over: rows or a scratch folder, figures for the manifest, other files.

    Rows that are too many to hold come in parts, each a frame.
    """

    content: pl.DataFrame | Iterator[pl.DataFrame] | Path
    notes: dict[str, Any] = {}  # noqa: RUF012 (never changed; a NamedTuple has no factories)
    files: dict[str, bytes] = {}  # noqa: RUF012


class Manifest(Value):
    """How an artifact was made; enough to draw the graph that led to it."""

    kind: str
    key: str
    recipe: Recipe
    rows: int | None = Field(description="Rows of a table")
    columns: dict[str, str] = Field(description="Column types of a table")
    files: dict[str, str] = Field(description="SHA-256 of every file")
    bytes: int = Field(description="Size of all files")
    notes: dict[str, Any] = Field(description="Figures the stage reported")
    commit: str = Field(description="Git commit of the farm")
    packages: dict[str, str] = Field(description="Versions that ran")
    made: str = Field(description="When, UTC")
    seconds: float = Field(ge=0, description="Time the stage took")

    @property
    def artifact(self) -> Artifact:
        """Its receipt."""
        return KINDS[self.kind](key=self.key)

    @property
    def when(self) -> float:
        """When it was made, seconds since the epoch."""
        return datetime.fromisoformat(self.made).timestamp()


class Store:
    """All artifacts below one folder."""

    def __init__(self, root: Path | str) -> None:
        """Open or make the store; raises StoreNotWritable."""
        self.root = Path(root).absolute()
        try:
            (self.root / ".locks").mkdir(parents=True, exist_ok=True)
            (self.root / ".drafts").mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root / ".drafts"):
                pass
        except OSError as error:
            raise StoreNotWritable(
                f"store {self.root} is not writable ({error.strerror}); choose another folder with "
                "--store or ALPACAFARM_STORE"
            ) from error
        self._whole: set[str] = set()

    @property
    def place(self) -> str:
        """Where it is, as one names it to a command."""
        return str(self.root)

    def path(self, artifact: Artifact) -> Path:
        """The folder of an artifact."""
        return self.folder(artifact)

    def folder(self, artifact: Artifact) -> Path:
        """Where its files lie on this machine, there or not."""
        return self.root / artifact.folder

    def has(self, artifact: Artifact) -> bool:
        """Whether it is finished."""
        return (self.folder(artifact) / MANIFEST).is_file()

    def weights(self, artifact: Artifact) -> Path:
        """Its folder, every file checked against its digest once; raises Missing or Damaged."""
        if artifact.folder not in self._whole:
            self.manifest(artifact)
            for name in self.damaged_here(artifact):
                raise self._damaged(artifact, name)
            self._whole.add(artifact.folder)
        return self.path(artifact)

    def manifest(self, artifact: Artifact) -> Manifest:
        """How it was made; raises Missing or Damaged."""
        try:
            manifest = Manifest.model_validate_json(self._said(artifact))
        except FileNotFoundError as error:
            raise self._missing(artifact) from error
        except (ValueError, OSError) as error:
            raise self._damaged(artifact, MANIFEST) from error
        if (manifest.kind, manifest.key) != (artifact.kind, artifact.key):
            raise self._damaged(artifact, MANIFEST)
        return manifest

    def _said(self, artifact: Artifact) -> bytes:
        """Its manifest as it was written; raises OSError."""
        return (self.folder(artifact) / MANIFEST).read_bytes()

    def rows(self, artifact: Table) -> Path:
        """The file with the rows, its digest checked; raises Missing or Damaged."""
        expected = self.manifest(artifact).files.get(ROWS)
        file = self.folder(artifact) / ROWS
        try:
            if file_digest(file) == expected:
                return file
        except OSError as error:
            raise self._damaged(artifact, ROWS) from error
        raise self._damaged(artifact, ROWS)

    def read(self, artifact: Table) -> pl.DataFrame:
        """The rows; raises Missing or Damaged."""
        file = self.rows(artifact)
        try:
            return pl.read_parquet(file)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise self._damaged(artifact, ROWS) from error

    def scan(self, artifact: Table) -> pl.LazyFrame:
        """The rows, to be read in parts or by column; raises Missing or Damaged."""
        return pl.scan_parquet(self.rows(artifact))

    def write(self, artifact: Artifact, made: Made, recipe: Recipe, started: float) -> Manifest:
        """Finish an artifact: files first, manifest last, then one rename."""
        draft, manifest = self._drafted(artifact, made, recipe, started)
        self._move(draft, self.folder(artifact))
        shutil.rmtree(self.left_unfinished(artifact), ignore_errors=True)
        return manifest

    def _drafted(
        self, artifact: Artifact, made: Made, recipe: Recipe, started: float
    ) -> tuple[Path, Manifest]:
        """A folder with all that the artifact is to hold, and its manifest, which lies there too.

        What a stage laid into a folder of its own is finished in that folder.
        """
        draft = made.content if isinstance(made.content, Path) else self.scratch()
        rows = laid(artifact, made.content, draft / ROWS)
        for name, content in made.files.items():
            (draft / name).write_bytes(content)
        files = {str(f.relative_to(draft)): f for f in sorted(draft.rglob("*")) if f.is_file()}
        manifest = Manifest(
            kind=artifact.kind,
            key=artifact.key,
            recipe=recipe,
            rows=rows,
            columns=types(artifact),
            files={name: file_digest(file) for name, file in files.items()},
            bytes=sum(file.stat().st_size for file in files.values()),
            notes=made.notes,
            commit=commit(),
            packages=packages(),
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.time() - started, 3),
        )
        (draft / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
        return draft, manifest

    def scratch(self) -> Path:
        """A new folder for unfinished files; those of dead processes are swept first."""
        return drafts.begun(self.root / ".drafts")

    def unfinished(self, artifact: Artifact) -> Path:
        """A folder for what making this artifact may go on from; gone when it is finished."""
        folder = self.left_unfinished(artifact)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def left_unfinished(self, artifact: Artifact) -> Path:
        """That folder, there or not."""
        return self.root / ".unfinished" / artifact.folder

    @contextmanager
    def lock(self, artifact: Artifact) -> Iterator[None]:
        """Hold the right to make this artifact; others wait."""
        with self._place_of_lock(artifact).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def busy(self, artifact: Artifact) -> bool:
        """Whether somebody holds that right."""
        return _is_locked(self._place_of_lock(artifact))

    def at_work(self) -> list[str]:
        """What somebody makes now."""
        return [lock.name for lock in sorted((self.root / ".locks").glob("*")) if _is_locked(lock)]

    def _place_of_lock(self, artifact: Artifact) -> Path:
        return self.root / ".locks" / artifact.folder.replace("/", "-")

    def forget(self, artifact: Artifact) -> None:
        """Remove one artifact, finished or not; what was made from it stays."""
        with self.lock(artifact):
            self._forget(artifact)

    def _forget(self, artifact: Artifact) -> None:
        folders = (self.folder(artifact), self.left_unfinished(artifact))
        if not any(folder.is_dir() for folder in folders):
            raise self._missing(artifact)
        for folder in folders:
            self.discard(folder)

    def discard(self, folder: Path) -> None:
        """Take a folder away at once, then remove it; nothing where there is none."""
        trash = self.scratch()
        with suppress(FileNotFoundError):
            os.rename(folder, trash / folder.name)
        shutil.rmtree(trash)

    def all(self, kind: str | None = None) -> list[Manifest]:
        """Manifests of everything finished, oldest first; unreadable ones are left out."""
        if kind is not None and kind not in KINDS:
            raise BadInput(f"unknown kind {kind!r}; kinds are {', '.join(sorted(KINDS))}")
        found = []
        for artifact in self.receipts(kind):
            try:
                found.append(self.manifest(artifact))
            except (Damaged, Missing):
                continue
        return sorted(found, key=lambda manifest: manifest.made)

    def begun(self, kind: str | None = None) -> list[Artifact]:
        """What a stage that was stopped could go on with, of one kind or all."""
        return [
            KINDS[folder.parent.name](key=folder.name)
            for folder in sorted((self.root / ".unfinished").glob(f"{kind or '*'}/*"))
            if folder.parent.name in KINDS and KEY.fullmatch(folder.name)
        ]

    def find(self, prefix: str) -> Artifact:
        """The one artifact whose key (or kind/key) starts with `prefix`."""
        kind, _, key = prefix.rpartition("/")
        known = {*self.receipts(kind or None), *self.begun(kind or None)}
        hits = sorted((a for a in known if a.key.startswith(key)), key=lambda hit: hit.folder)
        if not hits or not key:
            raise Missing(f"no artifact with key {prefix!r} in {self.place}; see `alpacafarm ls`")
        if len(hits) > 1:
            named = ", ".join(hit.folder for hit in hits[:4])
            raise BadInput(f"key {prefix!r} is not unique ({named}); give more of it")
        return hits[0]

    def damage(self, artifact: Artifact) -> list[str]:
        """Files that are gone or differ from their digest."""
        return self.damaged_here(artifact)

    def damaged_here(self, artifact: Artifact) -> list[str]:
        """The same of the files on this machine."""
        try:
            files = self.manifest(artifact).files
        except Damaged:
            return [MANIFEST]
        folder = self.folder(artifact)
        return [
            name
            for name, expected in files.items()
            if not (folder / name).is_file() or file_digest(folder / name) != expected
        ]

    def note(self, event: dict[str, Any]) -> None:
        """Append one line to the journal of what ran and what was skipped."""
        journal.note(self.root / "journal.jsonl", event)

    def journal(self) -> list[dict[str, Any]]:
        """Every noted event, oldest first; a line cut off by a kill is left out."""
        return journal.events(self.root / "journal.jsonl")

    def receipts(self, kind: str | None = None) -> list[Artifact]:
        """Everything finished, of one kind or all."""
        kinds = [kind] if kind else sorted(KINDS)
        return [
            KINDS[name](key=folder.name)
            for name in kinds
            if name in KINDS
            for folder in sorted((self.root / name).glob("*"))
            if KEY.fullmatch(folder.name) and (folder / MANIFEST).is_file()
        ]

    def _move(self, draft: Path, folder: Path) -> None:
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():
            self.discard(folder)
        os.rename(draft, folder)

    def _missing(self, artifact: Artifact) -> Missing:
        return Missing(f"no {artifact.folder} in {self.place}; see `alpacafarm ls`")

    def _damaged(self, artifact: Artifact, name: str) -> Damaged:
        return Damaged(
            f"{self.folder(artifact) / name} is damaged: its content is not what was written; "
            f"`alpacafarm forget {artifact.key}` and run again to make just this one anew"
        )


def _is_locked(file: Path) -> bool:
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
