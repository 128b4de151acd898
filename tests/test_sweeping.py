"""What gc removes, and all that it must not."""

import json
import os
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core.artifacts import Demonstrations, Instructions, Leaderboard
from alpacafarm_core.errors import BadInput
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.remote import RemoteStore
from alpacafarm_core.store import Made, Store
from alpacafarm_core.sweeping import swept
from flows.cli import main
from flows.sweeping import seconds
from tests.shelf import Shelf

DAY = 86_400.0
ROWS = pl.DataFrame({"instruction": ["Sort 3 1 2"], "input": [""], "dataset": ["toy"]})


def key(number: int) -> str:
    return f"{number:016x}"


def made(store: Store, number: int, *inputs, kind=Instructions, stage="draw", age=0.0):
    """An artifact of 7 bytes made from others, `age` days ago."""
    artifact, folder = kind(key=key(number)), store.scratch()
    (folder / "content").write_bytes(f"bytes {number}".encode())
    recipe = Recipe.of(stage, 1, {"inputs": inputs})
    store.write(artifact, Made(folder), recipe, time.time())
    backdate(store, artifact, age)
    return artifact


def backdate(store: Store, artifact, days: float) -> None:
    """Let its manifest say that it was made some days ago."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - days * DAY))
    manifest = store.manifest(artifact)
    text = manifest.replace(made=when).model_dump_json()
    if isinstance(store, RemoteStore):
        store.objects.lay(f"manifests/{artifact.folder}.json", text.encode())
        store.receipts()
    (store.folder(artifact) / "manifest.json").write_text(text)


def names(store: Store, age: float | None = None, dry: bool = False) -> list[tuple[str, str]]:
    return [(each.what, each.name) for each in swept(store, age, dry).gone]


def test_without_an_age_no_artifact_goes(store):
    made(store, 1, age=1000)
    assert names(store) == [] and len(store.receipts()) == 1


def test_what_nothing_needs_goes_and_what_a_board_came_from_stays(store):
    needed = made(store, 1, age=50)
    between = made(store, 2, needed, age=50)
    board = made(store, 3, between, kind=Leaderboard, stage="tally", age=50)
    root = made(store, 4, age=50)
    leaf = made(store, 5, root, kind=Demonstrations, age=50)
    expected = [("artifact", leaf.folder), ("artifact", root.folder)]
    assert names(store, 30 * DAY, dry=True) == expected
    assert len(store.receipts()) == 5
    found = swept(store, 30 * DAY)
    assert [(each.what, each.name) for each in found.gone] == expected
    assert sum(each.bytes for each in found.gone) == 14
    assert set(store.receipts()) == {needed, between, board}
    store.forget(board)
    assert len(names(store, 30 * DAY)) == 2 and store.receipts() == []


def test_what_late_work_came_from_stays_however_old(store):
    old = made(store, 1, age=50)
    made(store, 2, old, age=1)
    assert names(store, 30 * DAY) == []


def test_what_was_used_lately_stays(store):
    old, older = made(store, 1, age=50), made(store, 2, age=50)
    store.note({"artifact": old.folder, "ran": False, "at": time.time() - DAY})
    store.note({"artifact": older.folder, "ran": False, "at": time.time() - 40 * DAY})
    assert names(store, 30 * DAY) == [("artifact", older.folder)]


def test_a_file_that_was_taken_in_stays(store):
    made(store, 1, stage="import", age=50)
    assert names(store, 30 * DAY) == []


def test_while_somebody_is_at_work_artifacts_are_left_alone_and_that_is_said(store):
    made(store, 1, age=50)
    with store.lock(Instructions(key=key(9))):
        found = swept(store, 30 * DAY)
    assert found.gone == [] and f"at work (instructions-{key(9)})" in found.left[0]
    assert len(names(store, 30 * DAY)) == 1


def test_kinds_of_a_later_version_stop_it(store):
    made(store, 1, age=50)
    strange = store.root / "elephant" / key(2)
    strange.mkdir(parents=True)
    (strange / "manifest.json").write_text("{}")
    with pytest.raises(BadInput, match=r"kinds that this version does not know \(elephant\)"):
        swept(store, 30 * DAY)


def test_unfinished_work_goes_when_it_is_finished_or_nobody_went_on_for_a_week(store):
    finished, stopped, fresh, held = (Instructions(key=key(n)) for n in range(1, 5))
    made(store, 1)
    for artifact in (finished, stopped, fresh, held):
        (store.unfinished(artifact) / "step").write_text("123")
    for artifact in (stopped, held):
        for path in (store.unfinished(artifact), store.unfinished(artifact) / "step"):
            os.utime(path, (time.time() - 8 * DAY,) * 2)
    with store.lock(held):
        found = swept(store, None)
    assert [(each.what, each.name, each.bytes) for each in found.gone] == [
        ("unfinished", finished.folder, 3),
        ("unfinished", stopped.folder, 3),
    ]
    assert store.begun() == [fresh, held]
    assert names(store, 30 * DAY) == [] and names(store) == [("unfinished", held.folder)]


def test_drafts_of_other_machines_go_once_they_lay_still_for_a_week(store):
    left, young = (store.root / ".drafts" / f"container-{number}-1" for number in (7, 8))
    for folder in (left, young):
        folder.mkdir()
        os.utime(folder, (1e9, 1e9))
    (young / "rows.parquet").touch()
    assert names(store) == [("draft", left.name)]
    assert young.is_dir() and not left.exists()


def test_a_draft_of_a_machine_whose_name_begins_like_ours_is_not_ours(store):
    host = store.scratch().name.rsplit("-", 2)[0]
    other = store.root / ".drafts" / f"{host}-2-99999999-1"
    other.mkdir()
    store.scratch()
    assert other.is_dir() and names(store) == []


def test_drafts_of_dead_processes_go_and_those_of_the_living_stay(store):
    mine = store.scratch()
    gone = subprocess.Popen(["true"])
    gone.wait()
    host = mine.name.rsplit("-", 2)[0]
    dead = store.root / ".drafts" / f"{host}-{gone.pid}-1"
    dead.mkdir()
    assert names(store, dry=True) == [("draft", dead.name)] and dead.is_dir()
    assert names(store) == [("draft", dead.name)]
    assert mine.is_dir() and not dead.exists()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def shared(shelf: Shelf, tmp_path: Path) -> RemoteStore:
    return RemoteStore(shelf, tmp_path / "cache", "s3://farm/team")


def test_objects_go_a_day_after_the_last_manifest_that_named_them(shared, shelf):
    kept, forgotten = made(shared, 1), made(shared, 2)
    shared.forget(forgotten)
    assert names(shared) == []
    shelf.later(DAY + 1)
    (left,) = swept(shared, None, dry=True).gone
    assert (left.what, left.bytes) == ("object", 7) and len(shelf.names("objects/")) == 2
    assert swept(shared, None).gone == [left]
    assert len(shelf.names("objects/")) == 1 and shared.damage(kept) == []


def test_an_artifact_of_a_shared_store_goes_with_its_objects_and_its_copy(shared, shelf):
    old = made(shared, 1, age=50)
    shelf.later(DAY + 1)
    assert names(shared, 30 * DAY) == [("artifact", old.folder)]
    assert shelf.names("objects/") == shelf.names("manifests/") == []
    assert not shared.folder(old).exists()


def test_an_object_that_is_laid_anew_meanwhile_stays(shared, shelf, monkeypatch):
    shared.forget(made(shared, 1))
    shelf.later(DAY + 1)
    (name,) = shelf.names("objects/")
    listing = shelf.listing

    def and_then_laid(prefix: str):
        found = listing(prefix)
        if prefix == "objects/":
            shelf.lay(name, b"bytes 1")
        return found

    monkeypatch.setattr(shelf, "listing", and_then_laid)
    swept(shared, None)
    assert name in shelf.kept


def test_a_manifest_that_cannot_be_read_keeps_every_object(shared, shelf):
    made(shared, 1)
    shelf.later(DAY + 1)
    shelf.lay(f"manifests/instructions/{key(2)}.json", b"[")
    with pytest.raises(BadInput, match="what it names is unknown"):
        swept(shared, None)
    assert len(shelf.names("objects/")) == 1


def test_leases_of_the_dead_go_and_copies_of_what_is_forgotten_elsewhere(shared, shelf, tmp_path):
    elsewhere = RemoteStore(shelf, tmp_path / "elsewhere", "s3://farm/team")
    gone, stays = made(shared, 1), made(shared, 2)
    shelf.lay("leases/x/00000001", b"dead")
    shelf.later(601)
    shelf.lay("leases/y/00000001", b"alive")
    elsewhere.forget(gone)
    assert names(shared) == [("lease", "leases/x/00000001"), ("copy", gone.folder)]
    assert shared.folder(stays).is_dir() and not shared.folder(gone).exists()
    assert shelf.names("leases/") == ["leases/y/00000001"]


def test_a_copy_that_was_not_used_for_long_is_dropped_here_alone(shared, shelf):
    board = made(shared, 1, kind=Leaderboard, stage="tally")
    for path in (shared.folder(board), *shared.folder(board).iterdir()):
        os.utime(path, (time.time() - 8 * DAY,) * 2)
    assert names(shared, 7 * DAY) == [("copy", board.folder)]
    assert not shared.folder(board).exists() and shared.damage(board) == []
    assert shared.path(board).is_dir() and names(shared, 7 * DAY) == []


@pytest.mark.parametrize(
    ("age", "expected"), [("30", 30 * DAY), ("1.5d", 1.5 * DAY), ("12h", DAY / 2), ("2w", 14 * DAY)]
)
def test_an_age_is_in_days_unless_it_says_otherwise(age, expected):
    assert seconds(age) == expected


@pytest.mark.parametrize("age", ["", "-1", "soon", "3 months"])
def test_what_is_no_age_is_refused(age):
    with pytest.raises(BadInput, match="is no age"):
        seconds(age)


def test_the_command_says_what_would_go_and_how_much(store, capsys):
    old = made(store, 1, age=50)
    main(["gc", "--older-than", "30", "--dry-run", "--json", "--store", str(store.root)])
    said = json.loads(capsys.readouterr().out)
    assert said["bytes"] == 7 and said["dry_run"] and said["left"] == []
    assert [each["name"] for each in said["removed"]] == [old.folder] and store.has(old)
    main(["gc", "--older-than", "30d", "--store", str(store.root)])
    assert "1 removed, 0.0 MB" in capsys.readouterr().out and not store.has(old)
