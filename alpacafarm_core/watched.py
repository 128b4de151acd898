"""A place where files come in: a folder, or a prefix of an object store.

Only files that are whole are taken: one that changed a moment ago may still be written to. Hidden
and temporary names, and endings that hold no rows, are left alone.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

from alpacafarm_core.errors import BadInput, Missing
from alpacafarm_core.objects import Objects, S3Objects, parted

ENDINGS = (".json", ".jsonl", ".csv", ".parquet")
SETTLED = 2.0
"""Seconds without a change after which a file of a folder counts as whole."""
S3 = "s3://"


class Stamp(NamedTuple):
    """What moves when a file is written to, and whether it lay still for a while."""

    mark: str
    is_whole: bool


class Place(Protocol):
    """Where files come in."""

    def stamps(self) -> Mapping[str, Stamp]:
        """Every file that may hold rows, oldest first; raises Missing where there is no place."""

    def fetched(self, name: str) -> AbstractContextManager[Path]:
        """A block in which the file lies at the path it gives."""

    def address(self, name: str) -> str:
        """Where the file is, for people."""


def place(where: str) -> Place:
    """The folder or prefix of this name."""
    return Prefix(where) if where.startswith(S3) else Folder(Path(where))


def whole(found: Place, patience: float = SETTLED) -> list[str]:
    """Names of the files that are whole, oldest first; waits once for those just written."""
    stamps = found.stamps()
    if all(stamp.is_whole for stamp in stamps.values()):
        return list(stamps)
    time.sleep(patience)
    later = found.stamps()
    return [name for name, stamp in later.items() if stamp.is_whole or stamps.get(name) == stamp]


def holds_rows(name: str) -> bool:
    """Whether a name is that of a file to take: not hidden, of a known ending, in no folder."""
    return "/" not in name and not name.startswith((".", "~")) and name.lower().endswith(ENDINGS)


class Folder(NamedTuple):
    """Files directly in a folder."""

    path: Path

    def stamps(self) -> dict[str, Stamp]:
        """By name, oldest first."""
        if not self.path.is_dir():
            raise Missing(f"no folder {self.path}; make it, or name the one where files come in")
        found, now = [], time.time()
        for file in self.path.iterdir():
            if not holds_rows(file.name):
                continue
            try:
                seen = file.stat()
            except FileNotFoundError:  # gone since it was listed
                continue
            if not S_ISREG(seen.st_mode):
                continue
            mark = f"{seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns}"
            changed = max(seen.st_mtime, seen.st_ctime)
            found.append((seen.st_mtime_ns, file.name, Stamp(mark, now - changed >= SETTLED)))
        return {name: stamp for _, name, stamp in sorted(found)}

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """The file itself; raises BadInput where it may not be read."""
        if not os.access(self.path / name, os.R_OK):
            raise BadInput(f"{self.address(name)} may not be read here; `chmod a+r` it")
        yield self.path / name

    def address(self, name: str) -> str:
        """Its whole path."""
        return str((self.path / name).absolute())


class Prefix:
    """Objects directly below a prefix; an object is there whole or not at all."""

    def __init__(self, address: str, objects: Objects | None = None) -> None:
        """Raises BadInput for what is no address, or without the package that it takes."""
        self._bucket, below = parted(address)
        self._address = f"{S3}{self._bucket}/{below}".rstrip("/")
        self._objects = objects or S3Objects(address)

    def stamps(self) -> dict[str, Stamp]:
        """By name, oldest first."""
        try:
            held = self._objects.listing("").held
        except Missing as error:
            raise Missing(f"no bucket {self._bucket}; make it, or name another") from error
        found = sorted(held, key=lambda each: (each.laid, each.name))
        return {each.name: Stamp(each.tag, True) for each in found if holds_rows(each.name)}

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """A copy of the object, gone afterwards; raises Missing where the object is gone."""
        with TemporaryDirectory() as folder:
            file = Path(folder, name)
            if not self._objects.fetch(name, file):
                raise Missing(f"no object {self.address(name)} any more; lay it there again")
            yield file

    def address(self, name: str) -> str:
        """Its address."""
        return f"{self._address}/{name}"
