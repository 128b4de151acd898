"""A place where files come in: a folder, or a prefix of an object store.

Only files that are whole are taken: one that changed a moment ago may still be written to. Hidden
and temporary names, and endings that hold no rows, are left alone.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

from alpacafarm_core.errors import BadInput, Missing

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

    def fetched(self, name: str) -> Any:
        """A context in which the file lies at the path it gives."""

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
    """Whether a name is that of a file to take: not hidden, of a known ending."""
    return not name.startswith((".", "~")) and name.lower().endswith(ENDINGS)


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
            mark = f"{seen.st_size} {seen.st_mtime_ns}"
            changed = max(seen.st_mtime, seen.st_ctime)
            found.append((seen.st_mtime_ns, file.name, Stamp(mark, now - changed >= SETTLED)))
        return {name: stamp for _, name, stamp in sorted(found)}

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """The file itself."""
        yield self.path / name

    def address(self, name: str) -> str:
        """Its whole path."""
        return str((self.path / name).absolute())


class Prefix:
    """Objects directly below a prefix; an object is there whole or not at all."""

    def __init__(self, where: str) -> None:
        self.bucket, _, prefix = where.removeprefix(S3).partition("/")
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        if not self.bucket:
            raise BadInput(f"{where!r} names no bucket; write s3://BUCKET/PREFIX")

    def stamps(self) -> dict[str, Stamp]:
        """By name, oldest first."""
        pages = _client().get_paginator("list_objects_v2")
        listed = pages.paginate(Bucket=self.bucket, Prefix=self.prefix, Delimiter="/")
        found = [each for page in listed for each in page.get("Contents", ())]
        found.sort(key=lambda each: (each["LastModified"], each["Key"]))
        names = {each["Key"].removeprefix(self.prefix): each["ETag"] for each in found}
        return {name: Stamp(mark, True) for name, mark in names.items() if holds_rows(name)}

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """A copy of the object, gone afterwards."""
        with TemporaryDirectory() as folder:
            file = Path(folder, name)
            _client().download_file(self.bucket, self.prefix + name, str(file))
            yield file

    def address(self, name: str) -> str:
        """Its address."""
        return f"{S3}{self.bucket}/{self.prefix}{name}"


def _client() -> Any:
    """An S3 client as the environment says (AWS_ENDPOINT_URL, credentials)."""
    try:
        import boto3
    except ImportError as error:
        raise BadInput(
            "an s3:// prefix needs boto3; install it with `pip install 'alpacafarm[s3]'`"
        ) from error
    return boto3.client("s3")
