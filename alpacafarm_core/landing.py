"""Files taken into the store under their content, and what has landed in a dataset so far.

The store is the only record of it: a file that landed is an artifact of its own, a file seen again
is the same artifact, and what a dataset holds is what the store holds of it, in the order in which
it was first seen. A file taken in without the name of a dataset lands in that of its kind.
"""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from alpacafarm_core import arrivals, files
from alpacafarm_core.artifacts import Artifact
from alpacafarm_core.recipe import Recipe, key_of
from alpacafarm_core.setup import File
from alpacafarm_core.store import KINDS, Made, Manifest, Store

STAGE, VERSION = "import", 1
GIVEN = "given"
"""A file taken in, as it was: beside the rows, so that it can go out unchanged."""
AS_GIVEN = (".json", ".csv")


def take_in(store: Store, path: Path, kind: str, dataset: str = "") -> tuple[Manifest, bool]:
    """The manifest of a file's rows, and whether the file is new to the dataset.

    Raises Missing, or BadInput naming file, row and column. Pairs for a dataset need no labels.
    """
    name, started = files.kind_named(kind), time.time()
    file = File.model_validate(path)
    artifact, arguments = receipt(file, name, dataset)
    if dataset and store.has(artifact):
        return store.manifest(artifact), False
    rows = rows_of(path, name, dataset)
    ending = path.suffix.lower()
    given = {f"{GIVEN}{ending}": path.read_bytes()} if ending in AS_GIVEN else {}
    file.checked()  # still the file whose digest is the key
    with store.lock(artifact):
        if store.has(artifact):
            return store.manifest(artifact), False
        made = Made(rows, {"file": path.name, "seen": started}, given)
        recipe = Recipe.of(STAGE, VERSION, arguments)
        return store.write(artifact, made, recipe, started), True


def rows_of(path: Path, kind: str, dataset: str) -> pl.DataFrame:
    """The rows of a file; raises BadInput."""
    if kind == "preferences" and dataset:
        return arrivals.read(path)
    return files.read(path, kind)


def receipt(file: File, kind: str, dataset: str) -> tuple[Artifact, dict[str, Any]]:
    """The receipt of a file in a dataset, and the arguments behind its key."""
    arguments: dict[str, Any] = {"file": file, "kind": kind}
    if dataset not in ("", kind):
        arguments |= {"dataset": dataset}
    return KINDS[kind](key=key_of(STAGE, VERSION, arguments)), arguments


def landed(store: Store, kind: str, dataset: str) -> list[Manifest]:
    """What has landed in a dataset, first seen first."""
    found = [
        made
        for made in store.all(kind)
        if made.recipe.stage == STAGE and made.recipe.settings.get("dataset", kind) == dataset
    ]
    return sorted(found, key=lambda made: (_seen(made), made.key))


def _seen(made: Manifest) -> float:
    """When; files taken in before this was noted by the second."""
    return float(made.notes.get("seen", datetime.fromisoformat(made.made).timestamp()))
