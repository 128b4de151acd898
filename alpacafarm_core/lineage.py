"""Lineage: what an artifact was made from, and why a stage ran or was skipped."""

from collections.abc import Iterator
from typing import Any

from alpacafarm_core.artifacts import Artifact
from alpacafarm_core.errors import Missing
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.store import KINDS, Manifest, Store


def receipt(folder: str) -> Artifact:
    """The receipt for a folder such as `policy/21f944d6dc07f7d2`."""
    kind, key = folder.split("/")
    return KINDS[kind](key=key)


def ancestry(store: Store, *artifacts: Artifact) -> list[Manifest]:
    """Manifests of artifacts and all they came from, inputs before what they made.

    An input that has been forgotten since is left out.
    """
    found: dict[str, Manifest] = {}

    def visit(folder: str) -> None:
        if folder in found:
            return
        try:
            manifest = store.manifest(receipt(folder))
        except Missing:
            return
        for inputs in manifest.recipe.inputs.values():
            for each in inputs:
                visit(each)
        found[folder] = manifest

    for artifact in artifacts:
        visit(artifact.folder)
    return list(found.values())


def because(store: Store, artifact: Artifact) -> tuple[bool, list[str]]:
    """Whether the last run of this artifact's stage made it, and the reasons in words."""
    manifest = store.manifest(artifact)
    events = [event for event in store.journal() if event.get("artifact") == artifact.folder]
    last = [event["ran"] for event in events if event.get("run") == events[-1].get("run")]
    if last and not any(last):
        return False, [f"the store has had it since {manifest.made} (commit {manifest.commit})"]
    earlier = [
        other
        for other in store.all(manifest.kind)
        if other.recipe.stage == manifest.recipe.stage
        and other.key != manifest.key
        and other.made <= manifest.made
    ]
    if not earlier:
        return True, [f"nothing was made by stage {manifest.recipe.stage!r} before"]
    nearest = min(reversed(earlier), key=lambda other: len(changes(other.recipe, manifest.recipe)))
    differs = changes(nearest.recipe, manifest.recipe)
    return True, [f"no artifact had this recipe; nearest is {nearest.artifact.folder}", *differs]


def changes(before: Recipe, after: Recipe) -> list[str]:
    """What differs between two recipes, one line a field."""
    old, new = (dict(_flat(recipe.model_dump())) for recipe in (before, after))
    return [
        f"{name}: {_short(old.get(name))} -> {_short(new.get(name))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _flat(thing: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(thing, dict) and thing:
        for part, held in thing.items():
            yield from _flat(held, f"{name}.{part}" if name else str(part))
    elif isinstance(thing, list) and thing:
        for part, held in enumerate(thing):
            yield from _flat(held, f"{name}[{part}]")
    else:
        yield name, thing


def _short(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) <= 60 else text[:57] + "..."
