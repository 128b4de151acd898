"""Where a store is, and stages over one that machines share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core import places
from alpacafarm_core.artifacts import Instructions
from alpacafarm_core.errors import BadInput
from alpacafarm_core.remote import RemoteStore
from alpacafarm_core.store import Store
from tasks.stage import root, stage, unfinished
from tests.shelf import Shelf

RUNS: list[int] = []


@stage(Instructions, version=1)
def made_somewhere(size: int) -> pl.DataFrame:
    """Rows, and a note that it ran."""
    RUNS.append(size)
    (unfinished() / "so far").write_text("x")
    return pl.DataFrame({"instruction": ["x"] * size, "input": "", "dataset": "toy"})


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Stages use a store in memory; calling it with a name moves them to that machine."""
    shelf, there = Shelf(), {}

    def machine(name: str) -> RemoteStore:
        there["store"] = RemoteStore(shelf, tmp_path / name, "s3://farm/team")
        return there["store"]

    monkeypatch.setattr("tasks.stage._store", lambda _: there["store"])
    RUNS.clear()
    return machine


def test_a_stage_made_on_one_machine_is_there_on_another_under_the_same_key(shared):
    shared("here")
    made = made_somewhere(2)
    elsewhere = shared("there")
    assert made_somewhere(2) == made and RUNS == [2]
    assert elsewhere.read(made).height == 2
    assert [event["ran"] for event in elsewhere.journal()] == [False]


def test_what_another_machine_made_meanwhile_is_noted_as_cached(shared, monkeypatch):
    shared("here")
    made = made_somewhere.receipt(5)
    elsewhere = shared("there")
    lock = elsewhere.lock

    @contextmanager
    def waited(artifact: Instructions) -> Iterator[None]:
        shared("here")
        made_somewhere(5)
        monkeypatch.setattr("tasks.stage._store", lambda _: elsewhere)
        with lock(artifact):
            yield

    monkeypatch.setattr(elsewhere, "lock", waited)
    assert made_somewhere(5) == made and RUNS == [5]
    assert [event["ran"] for event in elsewhere.journal()] == [False]


def test_made_on_another_machine_it_shows_as_cached_here(shared, prefect):
    from prefect import flow
    from prefect.states import State

    @flow
    def once() -> State:
        return made_somewhere._task(3, return_state=True)

    shared("here")
    made = made_somewhere(3)
    elsewhere = shared("there")
    assert once().name == "Cached" and RUNS == [3]
    assert not (elsewhere.folder(made) / "rows.parquet").exists()
    assert elsewhere.read(made).height == 3
    assert once().name == "Cached"
    elsewhere.forget(made)
    assert once().name == "Completed" and once().name == "Cached" and RUNS == [3, 3]


def test_a_place_is_what_is_given_else_the_environments_else_the_usual_folder(monkeypatch):
    monkeypatch.setenv("ALPACAFARM_STORE", "s3://farm/team/")
    assert places.place() == "s3://farm/team"
    assert places.place("s3://farm") == "s3://farm"
    assert places.place("some") == str(Path("some").absolute())
    monkeypatch.delenv("ALPACAFARM_STORE")
    assert places.place() == str(Path("data/artifacts").absolute())


def test_a_folder_is_its_own_and_an_address_has_a_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ALPACAFARM_CACHE", str(tmp_path))
    monkeypatch.setenv("ALPACAFARM_STORE", "s3://farm/team")
    assert root().parent == tmp_path
    monkeypatch.setenv("ALPACAFARM_STORE", str(tmp_path / "mine"))
    assert root() == tmp_path / "mine"


def test_a_shared_ledger_that_cannot_be_used_stops_a_flow_before_it_begins(monkeypatch):
    from alpacafarm_core.setup import Setup
    from flows.prepare import admitted

    monkeypatch.setenv("ALPACAFARM_LEDGER", "ledger.sqlite")
    with pytest.raises(BadInput, match="ALPACAFARM_LEDGER is no postgresql://"):
        admitted(Setup(scale="smoke"))


def test_looking_makes_neither_store_nor_ledger(tmp_path):
    with places.looked_into(str(tmp_path / "none")) as (store, ledger):
        assert store is None and ledger.counts().rows == 0
    assert not (tmp_path / "none").exists()
    Store(tmp_path / "some")
    with places.looked_into(str(tmp_path / "some")) as (store, _):
        assert store is not None and store.place == str(tmp_path / "some")
    assert not (tmp_path / "some" / "ledger.sqlite").exists()


def test_the_command_line_takes_an_address_as_it_is(monkeypatch):
    from typer.testing import CliRunner

    from flows.cli import app

    opened: list[str] = []
    monkeypatch.setattr(places, "store_at", opened.append)
    CliRunner().invoke(app, ["ls", "--store", "s3://farm/team"])
    assert opened == ["s3://farm/team"]
