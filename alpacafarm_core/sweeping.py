"""What a store can do without: leftovers of the dead, and what nothing needs any more.

Needed are leaderboards, studies and files that a person took in, whatever was made or used
lately, and all that these came from. Where somebody is at work artifacts are left alone.
"""

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from alpacafarm_core import drafts
from alpacafarm_core.artifacts import Artifact
from alpacafarm_core.errors import BadInput
from alpacafarm_core.landing import STAGE as TAKEN_IN
from alpacafarm_core.lineage import ancestry, receipt
from alpacafarm_core.objects import Held
from alpacafarm_core.remote import MANIFESTS, OBJECTS, RemoteStore
from alpacafarm_core.store import KEY, KINDS, MANIFEST, Manifest, Store

RESULTS = ("leaderboard", "curves", "ranks")
DAY = 86_400.0
UNFINISHED = 7 * DAY
"""Seconds after which nobody goes on with a stage that was stopped."""
UNNAMED = DAY
"""Seconds for which a machine may be between laying an object and the manifest that names it."""
LEASE = 600.0


class Waste(NamedTuple):
    """One thing that can go: a draft, unfinished work, a lease, a copy, an artifact, an object."""

    what: str
    name: str
    bytes: int
    why: str


class Swept(NamedTuple):
    """What went, or would go, and in words what was left alone."""

    gone: list[Waste]
    left: list[str]


def swept(store: Store, older_than: float | None, dry: bool = False) -> Swept:
    """Remove leftovers and, with an age in seconds, artifacts that nothing needs; not if `dry`.

    Raises BadInput where the store holds kinds that this version does not know, or is damaged.
    """
    _refuse_strangers(store)
    age = UNFINISHED if older_than is None else older_than
    gone = [*_drafts(store, dry), *_unfinished(store, age, dry)]
    artifacts: list[Manifest] = []
    left: list[str] = []
    if older_than is not None:
        artifacts, left = _unneeded(store, older_than)
        gone += [_forgotten(store, each, dry) for each in artifacts]
    if isinstance(store, RemoteStore):
        gone += [*_leases(store, dry), *_copies(store, older_than, dry)]
        gone += _objects(store, artifacts, dry)
    return Swept(gone, left)


def _refuse_strangers(store: Store) -> None:
    if isinstance(store, RemoteStore):
        held = store.objects.listing(MANIFESTS).held
        kinds = {each.name.removeprefix(MANIFESTS).partition("/")[0] for each in held}
    else:
        found = store.root.glob(f"[!.]*/*/{MANIFEST}")
        kinds = {file.parent.parent.name for file in found if KEY.fullmatch(file.parent.name)}
    if strange := sorted(kinds - KINDS.keys()):
        raise BadInput(
            f"{store.place} holds kinds that this version does not know ({', '.join(strange)}), so "
            "it cannot tell what they need; run gc with the version that made them"
        )


def _drafts(store: Store, dry: bool) -> Iterator[Waste]:
    place = store.root / ".drafts"
    gone = dict.fromkeys(drafts.dead(place), "its process is gone")
    for folder in drafts.elsewhere(place):
        if (since := time.time() - _touched(folder)) > UNFINISHED:
            gone[folder] = f"another machine left it {_days(since)} ago"
    for folder, why in gone.items():
        yield Waste("draft", folder.name, _size(folder), why)
        if not dry:
            shutil.rmtree(folder, ignore_errors=True)


def _unfinished(store: Store, age: float, dry: bool) -> Iterator[Waste]:
    for artifact in store.begun():
        folder = store.left_unfinished(artifact)
        since = time.time() - _touched(folder)
        if store.busy(artifact) or not (store.has(artifact) or since > age):
            continue
        why = "finished meanwhile" if store.has(artifact) else f"stopped {_days(since)} ago"
        yield Waste("unfinished", artifact.folder, _size(folder), why)
        if not dry:
            store.discard(folder)


def _unneeded(store: Store, age: float) -> tuple[list[Manifest], list[str]]:
    """Artifacts that can go, what was made of them first; in words why they stay where they do."""
    if names := store.at_work():
        return [], [f"artifacts: somebody is at work ({', '.join(names[:3])}); try again later"]
    manifests = {each.folder: store.manifest(each) for each in store.receipts()}
    used = _used(store)
    since = time.time() - age
    roots = [
        made.artifact
        for folder, made in manifests.items()
        if made.kind in RESULTS
        or made.recipe.stage == TAKEN_IN
        or max(made.when, used.get(folder, 0.0)) > since
    ]
    needed = {made.artifact.folder for made in ancestry(store, *roots)}
    free = [made.artifact for folder, made in manifests.items() if folder not in needed]
    parted = [made for made in ancestry(store, *free) if made.artifact.folder not in needed]
    return parted[::-1], []


def _used(store: Store) -> dict[str, float]:
    """When this machine last made or reused each artifact, seconds since the epoch."""
    last: dict[str, float] = {}
    for event in store.journal():
        folder, at = str(event.get("artifact")), event.get("at")
        if isinstance(at, int | float):
            last[folder] = max(last.get(folder, 0.0), float(at))
    return last


def _forgotten(store: Store, made: Manifest, dry: bool) -> Waste:
    if not dry:
        store.forget(made.artifact)
    why = f"{made.recipe.stage}, made {made.made}; no leaderboard, study or late work needs it"
    return Waste("artifact", made.artifact.folder, made.bytes, why)


def _leases(store: RemoteStore, dry: bool) -> Iterator[Waste]:
    for lease in store.leases.expired(LEASE):
        yield Waste("lease", lease.name, lease.size, "its holder is gone")
        if not dry:
            store.objects.drop(lease.name)


def _copies(store: RemoteStore, age: float | None, dry: bool) -> Iterator[Waste]:
    """Copies in the cache of what is forgotten elsewhere, or was not used here for long."""
    there, used = {each.folder for each in store.receipts()}, _used(store)
    for artifact in _copied(store.root):
        folder = store.folder(artifact)
        since = time.time() - max(_touched(folder), used.get(artifact.folder, 0.0))
        if artifact.folder in there and (age is None or since <= age):
            continue
        why = f"unused for {_days(since)}" if artifact.folder in there else "forgotten elsewhere"
        yield Waste("copy", artifact.folder, _size(folder), f"{why}; in the cache of this machine")
        if not dry:
            store.discard(folder)


def _copied(root: Path) -> list[Artifact]:
    found = sorted(root.glob(f"[!.]*/*/{MANIFEST}"))
    folders = [f"{file.parent.parent.name}/{file.parent.name}" for file in found]
    return [receipt(each) for each in folders if each.partition("/")[0] in KINDS]


def _objects(store: RemoteStore, artifacts: Iterable[Manifest], dry: bool) -> list[Waste]:
    """Objects that no manifest names, those of `artifacts` too; those are not told again."""
    freed = {made.artifact.folder: set(made.files.values()) for made in artifacts}
    listing = store.objects.listing(OBJECTS)
    named = set().union(*_named(store, freed))
    found = []
    for each in listing.held:
        digest = each.name.removeprefix(OBJECTS)
        since = (listing.now - each.laid).total_seconds()
        if digest in named or since <= UNNAMED:
            continue
        if not any(digest in files for files in freed.values()):
            found.append(Waste("object", each.name, each.size, "no manifest names it"))
        if not dry:
            _drop_old(store, each)
    return found


def _named(store: RemoteStore, but: Iterable[str]) -> Iterator[set[str]]:
    """Digests that each manifest names but those of some folders; raises BadInput."""
    for each in store.objects.listing(MANIFESTS).held:
        if each.name.removeprefix(MANIFESTS).removesuffix(".json") in set(but):
            continue
        found = store.objects.read(each.name)
        try:
            yield set(json.loads(found[0])["files"].values()) if found else set()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadInput(
                f"{store.place}: {each.name} is damaged, so what it names is unknown; "
                "`alpacafarm forget` it and run gc again"
            ) from None


def _drop_old(store: RemoteStore, known: Held) -> None:
    """Drop an object unless a machine has laid it anew since it was looked at."""
    now = [each for each in store.objects.listing(known.name).held if each.name == known.name]
    if now and now[0].laid == known.laid:
        store.objects.drop(known.name)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _touched(folder: Path) -> float:
    """When anything in a folder was written last, seconds since the epoch."""
    return max(each.stat().st_mtime for each in [folder, *folder.rglob("*")])


def _days(seconds: float) -> str:
    return f"{seconds / DAY:.1f} days"
