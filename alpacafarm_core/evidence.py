"""What a report rests on: a result, its labels and scores, its lineage, and the one before it.

Only what the store still has is gathered; a result whose inputs were forgotten has less to show.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core.artifacts import Artifact, Curves, Leaderboard, Preferences, Ranks, Table
from alpacafarm_core.difference import causes
from alpacafarm_core.errors import BadInput
from alpacafarm_core.lineage import ancestry, changes, receipt
from alpacafarm_core.store import Manifest, Store

Result = Leaderboard | Ranks | Curves
EVALUATION, TRAINING = "evaluation", "training"


class Labels(NamedTuple):
    """Rows of `Preferences`: who was judged, by which panel, and what for."""

    name: str
    panel: str
    purpose: str
    manifest: Manifest
    rows: pl.DataFrame


class Rated(NamedTuple):
    """A mean of scores with its standard error, and the folder they lie in."""

    mean: float
    standard_error: float | None
    folder: str


class Previous(NamedTuple):
    """The result of the same kind before, its labels by model, and what differs in the recipes."""

    manifest: Manifest
    rows: pl.DataFrame
    labels: dict[str, pl.DataFrame]
    causes: list[str]


class Evidence(NamedTuple):
    """All of it. `scores` is by reward model and then by model; `boards` are those of a ranking."""

    manifest: Manifest
    rows: pl.DataFrame
    lineage: list[Manifest]
    labels: list[Labels]
    scores: dict[str, dict[str, Rated]]
    boards: "dict[str, Evidence]"
    previous: Previous | None

    @property
    def dollars(self) -> float:
        """Of every judgement it rests on, those of its training labels included."""
        return float(sum(made.notes.get("usd", 0.0) for made in self.lineage))

    def judged(self) -> dict[str, pl.DataFrame]:
        """The labels that evaluate each model of a board, best first."""
        found = {each.name: each.rows for each in self.labels if each.purpose == EVALUATION}
        return {name: found[name] for name in self.rows["model"] if name in found}


def gather(store: Store, artifact: Artifact) -> Evidence:
    """Read everything; raises BadInput for what is no result, Missing or Damaged."""
    if not isinstance(artifact, Result):
        raise BadInput(
            f"no report is made of {artifact.folder}; give a leaderboard, ranks or curves "
            "(`alpacafarm ls leaderboard`)"
        )
    manifest, lineage = store.manifest(artifact), ancestry(store, artifact)
    boards = {
        name: gather(store, receipt(folder))
        for name, folders in manifest.recipe.inputs.items()
        for folder in folders
        if folder.startswith(f"{Leaderboard.kind}/") and store.has(receipt(folder))
    }
    names = evaluated(manifest)
    for name, board in boards.items():
        inside = evaluated(board.manifest)
        names += [(folder, f"{model} ({name})") for folder, model in inside]
    tables = [made for made in lineage if made.kind == Preferences.kind]
    return Evidence(
        manifest,
        store.read(artifact),
        lineage,
        list(chain.from_iterable(_labels(store, made, names) for made in tables)),
        {} if boards else _scores(store, lineage, names),
        boards,
        _previous(store, artifact),
    )


Names = list[tuple[str, str]]
"""Folders of labels, each with the name of who was judged; equal answers share a folder."""


def evaluated(manifest: Manifest) -> Names:
    """The labels that a result counts."""
    settings = manifest.recipe.settings
    found = [
        (f"{Preferences.kind}/{held['preferences']['key']}", model)
        for model, held in settings.get("evaluations", {}).items()
    ]
    for run in settings.get("runs", ()):
        found += _judged_and_human(f"{run['series']}, {run['x']:g}", run)
    for pool in settings.get("pools", ()):
        found += _judged_and_human(pool["series"], pool)
    return found


def _judged_and_human(name: str, held: Mapping[str, Any]) -> Names:
    return [
        (f"{Preferences.kind}/{table['key']}", name + added)
        for who, added in (("judged", ""), ("human", " (people)"))
        for table in (held[who] if isinstance(held[who], list) else [held[who]])
    ]


def panel_of(manifest: Manifest) -> str:
    """The name of the panel that labelled, or of the stage where no panel did."""
    panel = manifest.recipe.settings.get("panel", {})
    return str(panel.get("name", manifest.recipe.stage))


def _labels(store: Store, made: Manifest, names: Names) -> list[Labels]:
    rows, panel = _read(store, made.artifact), panel_of(made)
    judged = [name for folder, name in names if folder == made.artifact.folder]
    if not judged:
        return [Labels(f"training labels, {panel}", panel, TRAINING, made, rows)]
    return [Labels(name, panel, EVALUATION, made, rows) for name in judged]


def _scores(store: Store, lineage: list[Manifest], names: Names) -> dict[str, dict[str, Rated]]:
    """What reward models say of the judged answers, wherever in the store they said it."""
    made_by = {made.artifact.folder: made for made in lineage}
    models = [
        (answers, model)
        for folder, model in names
        if folder in made_by
        for answers in made_by[folder].recipe.inputs.get("candidates", ())
    ]
    found: dict[str, dict[str, Rated]] = {}
    for made in store.all("scores") if models else ():
        inputs = made.recipe.inputs
        judged = [model for answers, model in models if [answers] == inputs.get("candidates")]
        if judged and (judges := inputs.get("judge")):
            rated = _rated(store, made.artifact)
            found.setdefault(judges[0], {}).update(dict.fromkeys(judged, rated))
    return found


def _rated(store: Store, scores: Artifact) -> Rated:
    values = _read(store, scores)["score"].to_numpy()
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
    return Rated(float(values.mean()), error, scores.folder)


def _previous(store: Store, artifact: Artifact) -> Previous | None:
    """The last one before of the same kind that shares a model (or a series)."""
    ours = store.manifest(artifact)
    names = _named(store, ours)
    for made in reversed(store.all(artifact.kind)):
        if made.key == ours.key or made.made > ours.made or not names & _named(store, made):
            continue
        return Previous(
            made,
            _read(store, made.artifact),
            {
                model: _read(store, receipt(folder))
                for folder, model in evaluated(made)
                if made.kind == Leaderboard.kind and store.has(receipt(folder))
            },
            _causes(store, made, ours),
        )
    return None


def _named(store: Store, made: Manifest) -> set[str]:
    rows = _read(store, made.artifact)
    return set(rows[rows.columns[0]])


def _causes(store: Store, before: Manifest, after: Manifest) -> list[str]:
    """What differs in the recipes; of boards model by model, where both have one of that name."""
    if before.kind != Leaderboard.kind:
        return causes(store, before.artifact, after.artifact)
    old, new = ({model: folder for folder, model in evaluated(made)} for made in (before, after))
    pairs = [(receipt(old[model]), receipt(new[model])) for model in new if model in old]
    found = (_between(store, *pair) for pair in pairs if pair[0] != pair[1])
    return list(dict.fromkeys(chain.from_iterable(found)))


def _between(store: Store, old: Artifact, new: Artifact) -> list[str]:
    if not (store.has(old) and store.has(new)):
        return []
    before, after = store.manifest(old).recipe, store.manifest(new).recipe
    own = [line for line in changes(before, after) if not line.startswith("inputs")]
    return [*(f"{after.stage}: {line}" for line in own), *causes(store, old, new)]


def _read(store: Store, artifact: Artifact) -> pl.DataFrame:
    assert isinstance(artifact, Table)
    return store.read(artifact)
