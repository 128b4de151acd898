"""The store that machines share: whole or absent, whoever finishes first counts."""

import time
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core.artifacts import Instructions
from alpacafarm_core.errors import BadInput, Damaged, Missing, StoreNotWritable
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.remote import RemoteStore, cache_of
from alpacafarm_core.store import Made
from alpacafarm_core.weights import Policy
from tests.shelf import Shelf

ROWS = pl.DataFrame({"instruction": ["Sort 3 1 2"], "input": [""], "dataset": ["toy"]})
OTHERS = ROWS.with_columns(dataset=pl.lit("other"))
ONE = Instructions(key="0" * 15 + "1")
RECIPE = Recipe.of("instructions", 1, {"size": 1})
PLACE = "s3://farm/team"


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def here(shelf: Shelf, tmp_path: Path) -> RemoteStore:
    return machine(shelf, tmp_path / "here")


@pytest.fixture
def there(shelf: Shelf, tmp_path: Path) -> RemoteStore:
    return machine(shelf, tmp_path / "there")


def machine(shelf: Shelf, cache: Path) -> RemoteStore:
    opened = RemoteStore(shelf, cache, PLACE)
    opened.leases.turn = 0.01
    return opened


def laid(store: RemoteStore, rows: pl.DataFrame = ROWS) -> None:
    store.write(ONE, Made(rows), RECIPE, time.time())


def test_what_one_machine_writes_another_reads_and_keeps(here, there, shelf):
    laid(here)
    assert there.has(ONE) and there.manifest(ONE) == here.manifest(ONE)
    assert not (there.root / ONE.folder).exists()
    assert there.read(ONE).equals(ROWS) and there.all() == here.all()
    assert {file.name for file in there.path(ONE).iterdir()} == {"rows.parquet", "manifest.json"}
    shelf.asked.clear()
    assert there.read(ONE).equals(ROWS) and there.has(ONE) and shelf.asked == []


def test_a_process_that_starts_asks_once_what_there_is(here, shelf):
    laid(here)
    shelf.asked.clear()
    again = machine(shelf, here.root)
    assert again.has(ONE) and again.read(ONE).equals(ROWS) and shelf.asked == []


def test_content_lies_under_its_digest_and_the_manifest_last(here, shelf, monkeypatch):
    order: list[str] = []
    lay = shelf.lay
    monkeypatch.setattr(shelf, "lay", lambda name, held: (order.append(name), lay(name, held)))
    laid(here)
    digest = here.manifest(ONE).files["rows.parquet"]
    assert order == [f"objects/{digest}", f"manifests/{ONE.folder}.json"]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("at", ["lay", "lay_new", "read"])
def test_a_kill_at_any_point_leaves_the_whole_artifact_or_none(at, here, there, shelf, monkeypatch):
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(shelf, at, killed)
        laid(here)
    assert not there.has(ONE) and not here.has(ONE) and shelf.names("manifests/") == []
    laid(there)
    assert here.read(ONE).equals(ROWS)


def test_a_kill_after_the_manifest_loses_nothing(here, there, monkeypatch):
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(here, "_move", killed)
        laid(here)
    assert there.read(ONE).equals(ROWS) and here.read(ONE).equals(ROWS)


def test_whoever_finishes_second_takes_what_the_first_made(here, there):
    assert not there.has(ONE)
    laid(here)
    laid(there, OTHERS)
    assert there.read(ONE).equals(ROWS) and there.manifest(ONE) == here.manifest(ONE)


def test_two_that_finish_at_the_same_moment_have_one_artifact(here, there, shelf, monkeypatch):
    lay_new = shelf.lay_new

    def late(name: str, content: bytes) -> bool:
        monkeypatch.setattr(shelf, "lay_new", lay_new)
        laid(here)
        return lay_new(name, content)

    monkeypatch.setattr(shelf, "lay_new", late)
    laid(there, OTHERS)
    assert there.read(ONE).equals(ROWS) and here.read(ONE).equals(ROWS)


def test_a_damaged_object_is_refused_by_name_and_mended_by_making_anew(here, there, shelf):
    laid(here)
    (name,) = shelf.names("objects/")
    shelf.lay(name, b"something else")
    with pytest.raises(
        Damaged, match=r"s3://farm/team: rows.parquet of instructions/0{15}1 .*forg"
    ):
        there.read(ONE)
    assert there.damage(ONE) == here.damage(ONE) == ["rows.parquet"]
    assert not (there.root / ONE.folder).exists()
    there.forget(ONE)
    laid(there)
    assert there.damage(ONE) == [] and here.read(ONE).equals(ROWS)


def test_an_object_that_is_gone_is_damage(here, there, shelf):
    laid(here)
    for name in shelf.names("objects/"):
        shelf.drop(name)
    with pytest.raises(Damaged, match="damaged or gone"):
        there.path(ONE)


def test_a_damaged_copy_is_brought_anew(here, there):
    policy, folder = Policy(key="c" * 16), here.scratch()
    (folder / "deep").mkdir()
    (folder / "deep" / "model.safetensors").write_bytes(b"weights")
    here.write(policy, Made(folder), RECIPE, time.time())
    model = there.weights(policy) / "deep" / "model.safetensors"
    model.write_bytes(b"other")
    assert there.damage(policy) == ["deep/model.safetensors"]
    again = RemoteStore(there.objects, there.root, PLACE)
    assert (again.weights(policy) / "deep" / "model.safetensors").read_bytes() == b"weights"
    laid(here)
    (there.path(ONE) / "rows.parquet").write_bytes(b"other")
    assert there.read(ONE).equals(ROWS)


def test_what_one_machine_forgets_is_gone_for_all_and_remade_is_read_anew(here, there, shelf):
    laid(here)
    assert there.read(ONE).equals(ROWS)
    here.forget(ONE)
    assert not here.has(ONE) and here.receipts() == there.receipts() == []
    again = machine(shelf, there.root)
    assert not again.has(ONE)
    laid(here, OTHERS)
    assert again.read(ONE).equals(OTHERS)


def test_a_copy_of_what_is_forgotten_elsewhere_can_be_forgotten_too(here, there):
    laid(here)
    there.read(ONE)
    here.forget(ONE)
    there.forget(ONE)
    assert not (there.root / ONE.folder).exists()
    with pytest.raises(Missing, match=r"no instructions/0{15}1 in s3://farm/team"):
        there.forget(ONE)


def test_what_is_unfinished_stays_on_its_machine_and_can_be_forgotten(here, there):
    (here.unfinished(ONE) / "step").write_text("7")
    assert here.begun() == [ONE] and there.begun() == []
    here.forget(ONE)
    assert here.begun() == []


def test_a_key_may_be_shortened_and_what_is_no_artifact_is_passed_over(here, there, shelf):
    laid(here)
    shelf.lay("manifests/policy/mine.json", b"{}")
    shelf.lay("manifests/elephant/" + "1" * 16 + ".json", b"{}")
    assert there.find("0000") == ONE and there.receipts() == [ONE]
    assert there.receipts("policy") == [] and there.receipts("instructions") == [ONE]


def test_a_manifest_of_another_artifact_is_damaged(here, shelf):
    laid(here)
    name = f"manifests/{ONE.folder}.json"
    shelf.lay(name, shelf.kept[name][0].replace(ONE.key.encode(), b"f" * 16))
    here.receipts()
    assert here.damage(ONE) == ["manifest.json"]


def test_a_manifest_cannot_write_outside_of_its_folder(here, there, shelf):
    laid(here)
    name = f"manifests/{ONE.folder}.json"
    shelf.lay(name, shelf.kept[name][0].replace(b"rows.parquet", b"../../../out"))
    with pytest.raises(Damaged, match=r"manifest\.json"):
        there.path(ONE)
    assert not (there.root.parent / "out").exists() and not (there.root / "out").exists()


def test_a_rerun_after_a_kill_on_the_same_machine_does_not_wait(here, shelf):
    killed = here.leases._signature()
    shelf.lay_new(f"leases/{ONE.folder.replace('/', '-')}/00000001", killed)
    again = machine(shelf, here.root)
    with again.lock(ONE):
        laid(again)
    assert shelf.names("leases/") == []


def test_a_finished_artifact_needs_no_lease_and_forgetting_leaves_none(here, shelf):
    with here.lock(ONE):
        assert len(shelf.names("leases/")) == 1
        laid(here)
    with here.lock(ONE):
        assert shelf.names("leases/") == []
    here.forget(ONE)
    assert shelf.names("leases/") == [] and shelf.names("probes/") == []


def test_storage_that_does_not_heed_conditions_is_refused(here, shelf, monkeypatch):
    monkeypatch.setattr(shelf, "lay_new", lambda *_: True)
    with pytest.raises(BadInput, match="conditional writes"), here.lock(ONE):
        pass


def test_a_cache_is_of_one_address_and_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("ALPACAFARM_CACHE", str(tmp_path))
    assert cache_of("s3://farm/team") == cache_of("s3://farm/team/") != cache_of("s3://farm/teams")
    assert cache_of("s3://farm/team").parent == tmp_path
    monkeypatch.delenv("ALPACAFARM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert cache_of("s3://farm").parent == tmp_path / "mine" / "alpacafarm"


def test_a_cache_that_cannot_be_written_is_named_with_the_mend(shelf, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreNotWritable, match=r"file/cache of s3://farm.*ALPACAFARM_CACHE"):
        machine(shelf, tmp_path / "file" / "cache")


@pytest.mark.parametrize("address", ["s3://a", "s3://key:planted@farm/x", "s3://Farm", "s3://"])
def test_what_is_no_address_is_refused_and_not_repeated(address):
    with pytest.raises(BadInput, match=r"s3://BUCKET/PREFIX") as refusal:
        cache_of(address)
    assert "planted" not in str(refusal.value)
