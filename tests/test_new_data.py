"""New data end to end: a server, a worker, a watcher, and files that come in."""

import os
import signal
import sqlite3
import sys
from contextlib import contextmanager
from uuid import uuid4

import polars as pl
import pytest

from alpacafarm_core.setup import World
from alpacafarm_core.sources import instructions
from alpacafarm_core.store import Store
from flows.watching import LANDED
from tests.workplace import ENDED, awaited, started, surroundings, workplace

FLOW, NAME = "refresh", "on-new-pairs"
LONG = 600.0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What `make ui` starts, with the deployment's form filled in for a few rows and a folder."""
    folder = tmp_path_factory.mktemp("workplace")
    with workplace(folder, "sqlite", OMP_NUM_THREADS="1") as place:
        held = place.deployment(FLOW, NAME)
        (folder / "incoming").mkdir()
        data = {"name": "preferences", "folder": str(folder / "incoming")}
        changed = held["parameters"] | {"data": data, "setup": {"scale": "smoke"}}
        place(f"deployments/{held['id']}", {"parameters": changed}, "PATCH")
        yield place


@contextmanager
def watching(place, folder="incoming", *more):
    """`alpacafarm watch` as a process."""
    words = [sys.executable, "-m", "flows", "watch", str(place.folder / folder), "--every", "1"]
    words += more
    told = surroundings(place.folder, PREFECT_API_URL=place.url)
    with started(words, told, place.folder / "watch.log") as process:
        yield process


def dropped(place, name, start, end):
    """A file of unlabelled pairs, whole under its name at once."""
    prompts = instructions(World(), "preference", end)[start:]
    rows = prompts.select("instruction", "input", output_1=pl.lit("Yes."), output_2=pl.lit("No."))
    draft = place.folder / "incoming" / f".{name}"
    rows.write_ndjson(draft)
    draft.rename(draft.with_name(name))


def runs(place, flow=FLOW):
    """The runs that an event has started, oldest first."""
    wanted = {"name": {"any_": [flow]}}
    found = place("flow_runs/filter", {"flows": wanted, "sort": "EXPECTED_START_TIME_ASC"})
    return [run for run in found if (run["created_by"] or {}).get("type") == "AUTOMATION"]


def all_ended(place, number, flow=FLOW):
    """The runs, once there are so many and all have ended."""

    def ended():
        found = runs(place, flow)
        return len(found) >= number and all(run["state_type"] in ENDED for run in found) and found

    return awaited(ended, LONG, f"run {number}")


def bought(place):
    """How many calls the ledger holds; each was bought once, by a stage that says so."""
    with sqlite3.connect(place.store / "ledger.sqlite") as ledger:
        (calls,) = ledger.execute("SELECT count(*) FROM calls").fetchone()
    assert calls == sum(made.notes.get("calls_bought", 0) for made in Store(place.store).all())
    return calls


def last_report(place, run):
    """The Markdown on a run's page, and the rows of what landed where there are some."""
    pages = {held["key"]: held["data"] for held in place.artifacts(run["id"])}
    return pages["what-changed"], Store(place.store).all("changes")[-1]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_what_comes_in_is_bought_and_learned_from_once(place):
    with watching(place) as watcher:
        dropped(place, "one.jsonl", 96, 108)
        (first,) = all_ended(place, 1)
        assert first["state_type"] == "COMPLETED"
        page, made = last_report(place, first)
        (row,) = Store(place.store).read(made.artifact).to_dicts()
        assert (row["file"], row["rows"], row["new"]) == ("one.jsonl", 12, 12)
        assert f"Labels of {row['bought']} rows were bought" in page

        before = bought(place)
        dropped(place, "copy.jsonl", 96, 108)
        dropped(place, "two.jsonl", 108, 116)
        dropped(place, "three.jsonl", 112, 120)
        all_ended(place, 3)
        rows = Store(place.store).read(Store(place.store).all("changes")[-1].artifact)
        assert sorted(rows["new"]) == [4, 8, 12] and rows["known"].sum() == 4
        assert len(runs(place)) == 3, "the copy started none"
        made = [event["artifact"] for event in Store(place.store).journal() if event["ran"]]
        assert len(set(made)) == len(made)
        changed = Store(place.store).all("changes")
        os.killpg(watcher.pid, signal.SIGKILL)

    events = place("events/filter", {"filter": {"event": {"name": [LANDED]}}})["events"]
    assert len(events) == 3
    again = {name: events[0][name] for name in ("event", "resource", "payload", "occurred")}
    place("events", [again | {"id": str(uuid4())}])
    counts = bought(place)
    fourth = all_ended(place, 4)[-1]
    assert "Nothing new" in last_report(place, fourth)[0]
    assert bought(place) == counts > before and Store(place.store).all("changes") == changed

    dropped(place, "four.jsonl", 120, 124)
    by_hand = place.ended(place.start(FLOW, NAME), LONG)
    assert "1 files landed with 4 new rows" in last_report(place, by_hand)[0]
    with watching(place):
        dropped(place, "five.jsonl", 124, 128)
        fifth = all_ended(place, 5)[-1]
        assert "1 files landed with 4 new rows" in last_report(place, fifth)[0]
    assert len(place("events/filter", {"filter": {"event": {"name": [LANDED]}}})["events"]) == 5


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_outputs_that_come_in_are_judged_as_the_automation_says(place):
    (place.folder / "outputs").mkdir()
    prompts = instructions(World(), "eval", 805).select("instruction", "input")
    rows = prompts.with_columns(output=pl.lit("Yes."), generator=pl.lit("mine"))
    with watching(place, "outputs", "--as", "candidates"):
        rows.write_ndjson(place.folder / "outputs" / "mine.jsonl")
        (run,) = all_ended(place, 1, "evaluate-outputs")
    assert run["state_type"] == "COMPLETED"
    (board,) = [a["data"] for a in place.artifacts(run["id"]) if a["key"] == "leaderboard"]
    assert '"mine"' in str(board).replace("'", '"')
