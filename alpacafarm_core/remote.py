"""A store that machines share, on S3-compatible storage; this machine's folder is its cache.

    objects/<sha256>             each file once, under its digest
    manifests/<kind>/<key>.json  laid last, and only where there is none: the first to finish counts
    leases/<kind>-<key>/<n>      who makes it now

So a kill at any moment leaves a whole artifact or none. A copy in the cache lies as in a store of
its own and is used while its manifest is the one that the storage has. What is unfinished, the
journal and Prefect's records stay in the cache.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from alpacafarm_core.artifacts import Artifact, Table
from alpacafarm_core.errors import Damaged, Missing, StoreNotWritable
from alpacafarm_core.leases import Leases
from alpacafarm_core.objects import Objects, S3Objects, parted, probe
from alpacafarm_core.recipe import Recipe, file_digest
from alpacafarm_core.store import KEY, KINDS, MANIFEST, Made, Manifest, Store

SCHEME = "s3://"
OBJECTS, MANIFESTS = "objects/", "manifests/"
AT_A_TIME = 16

log = logging.getLogger("alpacafarm.stages")


def cache_of(address: str) -> Path:
    """This machine's folder for what lies at an address; raises BadInput for what is none.

    It is in ALPACAFARM_CACHE, else in the user's cache folder.
    """
    bucket, prefix = parted(address)
    where = f"{os.environ.get('AWS_ENDPOINT_URL', '')} {bucket}/{prefix}"
    name = hashlib.sha256(where.encode()).hexdigest()[:16]
    of_user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alpacafarm"
    return Path(os.environ.get("ALPACAFARM_CACHE") or of_user).absolute() / name


def opened(address: str) -> "RemoteStore":
    """The store at an address; raises BadInput, StoreNotWritable or Unreachable."""
    return RemoteStore(S3Objects(address), cache_of(address), address)


class RemoteStore(Store):
    """All artifacts below one prefix of a bucket, as a Store."""

    def __init__(self, objects: Objects, root: Path, address: str) -> None:
        """`root` is the cache. Asks what there is; raises what that raises."""
        try:
            super().__init__(root)
        except StoreNotWritable:
            raise StoreNotWritable(
                f"the cache {root} of {address} is not writable; name a folder for it in "
                "ALPACAFARM_CACHE"
            ) from None
        self.objects, self.address = objects, address
        self.leases = Leases(objects, _machine(self.root / ".machine"))
        self._tags: dict[str, str] = {}
        self.receipts()

    @property
    def place(self) -> str:
        """Its address."""
        return self.address

    def path(self, artifact: Artifact) -> Path:
        """The folder of an artifact, its files brought here; empty of them when it is not made."""
        if self.has(artifact):
            self._bring(artifact)
        return self.folder(artifact)

    def has(self, artifact: Artifact) -> bool:
        """Whether it is finished, on whichever machine."""
        return artifact.folder in self._tags or self._learn(artifact)

    def weights(self, artifact: Artifact) -> Path:
        """As Store.weights; a copy that is damaged is brought anew."""
        self._bring(artifact)
        try:
            return super().weights(artifact)
        except Damaged:
            self._bring(artifact, anew=True)
            return super().weights(artifact)

    def rows(self, artifact: Table) -> Path:
        """As Store.rows; a copy that is damaged is brought anew."""
        self._bring(artifact)
        try:
            return super().rows(artifact)
        except Damaged:
            self._bring(artifact, anew=True)
            return super().rows(artifact)

    def write(self, artifact: Artifact, made: Made, recipe: Recipe, started: float) -> Manifest:
        """Finish an artifact, unless another machine has meanwhile: then its manifest counts."""
        draft, manifest = self._drafted(artifact, made, recipe, started)
        if not self._learn(artifact):
            for name, digest in manifest.files.items():
                # Laid also where it is: that mends a damaged one, and makes its age that of now.
                self.objects.lay(OBJECTS + digest, draft / name)
            self.objects.lay_new(_manifest(artifact), (draft / MANIFEST).read_bytes())
            self._learn(artifact)
        if self._said(artifact) == (draft / MANIFEST).read_bytes():
            with self._bringing(artifact):
                self._move(draft, self.folder(artifact))
        else:
            log.info("%s was finished by another machine; its files count", artifact.folder)
            shutil.rmtree(draft)
        shutil.rmtree(self.left_unfinished(artifact), ignore_errors=True)
        return self.manifest(artifact)

    @contextmanager
    def lock(self, artifact: Artifact) -> Iterator[None]:
        """Hold the right to make this artifact, or wait until it is made."""
        with super().lock(artifact):
            if self.has(artifact):
                yield
                return
            self._probe()
            with self.leases.held(_lease(artifact), until=lambda: self._learn(artifact)):
                yield

    def busy(self, artifact: Artifact) -> bool:
        """Whether somebody holds that right, on whichever machine."""
        return super().busy(artifact) or self.leases.is_held(_lease(artifact))

    def at_work(self) -> list[str]:
        """What somebody makes now, on whichever machine."""
        return sorted({*super().at_work(), *self.leases.held_now()})

    def forget(self, artifact: Artifact) -> None:
        """Remove one artifact for all machines, and what is unfinished of it on this one."""
        with super().lock(artifact), self.leases.held(_lease(artifact)):
            there = self._learn(artifact)
            self.objects.drop(_manifest(artifact))
            self._tags.pop(artifact.folder, None)
            self._whole.discard(artifact.folder)
            self._record(artifact).unlink(missing_ok=True)
            try:
                self._forget(artifact)
            except Missing:
                if not there:
                    raise

    def all(self, kind: str | None = None) -> list[Manifest]:
        """As Store.all."""
        unread = [each for each in self.receipts(kind) if self._recorded(each) is None]
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            list(threads.map(self._learn, unread))
        return super().all(kind)

    def receipts(self, kind: str | None = None) -> list[Artifact]:
        """Everything finished on whichever machine, of one kind or all."""
        listing = self.objects.listing(f"{MANIFESTS}{kind}/" if kind else MANIFESTS)
        tags = {
            each.name.removeprefix(MANIFESTS).removesuffix(".json"): each.tag
            for each in listing.held
        }
        found = []
        for folder in sorted(tags):
            name, _, key = folder.partition("/")
            if name in KINDS and KEY.fullmatch(key):
                found.append(KINDS[name](key=key))
        for gone in self._tags.keys() - tags:
            if kind in (None, gone.partition("/")[0]):
                self._tags.pop(gone, None)
        self._tags.update(tags)
        return found

    def damage(self, artifact: Artifact) -> list[str]:
        """Files that are gone or differ from their digest, in the storage or in the copy here."""
        try:
            files = self.manifest(artifact).files
        except Damaged:
            return [MANIFEST]
        copied = (self.folder(artifact) / MANIFEST).is_file()
        here = set(self.damaged_here(artifact)) if copied else set()
        scratch = self.scratch()
        damaged = [
            name
            for name, digest in files.items()
            if name in here or not self._fetched(digest, scratch / "file")
        ]
        shutil.rmtree(scratch)
        return damaged

    def _said(self, artifact: Artifact) -> bytes:
        said = self._recorded(artifact)
        if said is None and self._learn(artifact):
            said = self._recorded(artifact)
        if said is None:
            raise FileNotFoundError(artifact.folder)
        return said

    def _learn(self, artifact: Artifact) -> bool:
        """Ask for its manifest and keep that; whether there is one."""
        found = self.objects.read(_manifest(artifact))
        if found is None:
            self._tags.pop(artifact.folder, None)
            return False
        content, tag = found
        record = self._record(artifact)
        record.parent.mkdir(parents=True, exist_ok=True)
        draft = self.scratch()
        (draft / MANIFEST).write_bytes(tag.encode() + b"\n" + content)
        os.replace(draft / MANIFEST, record)
        draft.rmdir()
        self._tags[artifact.folder] = tag
        return True

    def _record(self, artifact: Artifact) -> Path:
        return self.root / ".manifests" / f"{artifact.folder}.json"

    def _recorded(self, artifact: Artifact) -> bytes | None:
        """Its manifest as kept here, if that is the one that the storage has."""
        try:
            tag, _, content = self._record(artifact).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        return content if tag.decode() == self._tags.get(artifact.folder) else None

    def _bring(self, artifact: Artifact, anew: bool = False) -> None:
        """Lay the storage's files into the cache, unless they are there; raises Missing, Damaged.

        Each is checked against its digest; the folder is filled beside and renamed.
        """
        files, folder = self.manifest(artifact).files, self.folder(artifact)
        if not anew and self._is_current(artifact):
            return
        with self._bringing(artifact):
            if not anew and self._is_current(artifact):
                return
            draft = self.scratch()
            for name, digest in files.items():
                if not (draft / name).resolve().is_relative_to(draft.resolve()):
                    raise self._damaged_there(artifact, MANIFEST)
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                if not self._fetched(digest, draft / name):
                    raise self._damaged_there(artifact, name)
            (draft / MANIFEST).write_bytes(self._said(artifact))
            self._whole.discard(artifact.folder)
            self._move(draft, folder)

    def _is_current(self, artifact: Artifact) -> bool:
        try:
            return (self.folder(artifact) / MANIFEST).read_bytes() == self._said(artifact)
        except FileNotFoundError:
            return False

    def _fetched(self, digest: str, file: Path) -> bool:
        """Fetch an object into a file; whether it is there and is what its name says."""
        return self.objects.fetch(OBJECTS + digest, file) and file_digest(file) == digest

    def _damaged_there(self, artifact: Artifact, name: str) -> Damaged:
        return Damaged(
            f"{self.place}: {name} of {artifact.folder} is damaged or gone; `alpacafarm forget "
            f"{artifact.key}` and run again to make just this one anew"
        )

    @contextmanager
    def _bringing(self, artifact: Artifact) -> Iterator[None]:
        """One process of this machine at a time lays this folder."""
        file = self.root / ".locks" / f"bring-{_lease(artifact)}"
        with file.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _probe(self) -> None:
        """Once a cache: see that the storage heeds conditions; raises BadInput."""
        told = self.root / ".probed"
        if not told.exists():
            draft = self.scratch()
            probe(self.objects, f"probes/{draft.name}")
            draft.rmdir()
            told.touch()


def _machine(file: Path) -> str:
    """What names this machine's cache among others; made up once."""
    with suppress(FileExistsError), file.open("x") as new:
        new.write(uuid4().hex)
    return file.read_text()


def _manifest(artifact: Artifact) -> str:
    return f"{MANIFESTS}{artifact.folder}.json"


def _lease(artifact: Artifact) -> str:
    return artifact.folder.replace("/", "-")
