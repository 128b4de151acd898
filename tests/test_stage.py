"""The hinge between Prefect and the store."""

import polars as pl
import pytest

from alpacafarm_core.artifacts import Instructions
from alpacafarm_core.errors import Missing
from alpacafarm_core.lineage import because
from tasks.stage import stage, unfinished

RUNS: list[int] = []


@stage(Instructions, version=1)
def counted(size: int, word: str = "hello") -> pl.DataFrame:
    """Rows, and a note that it ran."""
    RUNS.append(size)
    return pl.DataFrame({"instruction": [word] * size, "input": "", "dataset": "toy"})


@stage(Instructions, version=1)
def longer(of: Instructions, by: int) -> pl.DataFrame:
    """A stage over another's result."""
    RUNS.append(-by)
    return pl.DataFrame({"instruction": ["x"] * by, "input": "", "dataset": of.key})


def test_a_stage_runs_once_and_its_receipt_is_known_before(store):
    RUNS.clear()
    expected = counted.receipt(2)
    assert counted(2) == expected == counted(2, word="hello")
    assert RUNS == [2]
    assert [event["ran"] for event in store.journal()] == [True, False]


def test_what_a_process_made_and_used_again_was_made_and_the_next_one_skipped_it(
    store, monkeypatch
):
    made = counted(2)
    assert counted(2) == made and because(store, made)[0]
    monkeypatch.setattr("tasks.stage.RUN", "next")
    assert counted(2) == made and not because(store, made)[0]


def test_a_changed_argument_runs_just_what_stands_on_it(store):
    RUNS.clear()
    longer(counted(2), 5)
    longer(counted(2), 6)
    assert RUNS == [2, -5, -6]


def test_forgetting_one_in_the_middle_makes_just_that_one_again(store):
    RUNS.clear()
    longer(counted(2), 5)
    store.forget(counted.receipt(2))
    longer(counted(2), 5)
    assert RUNS == [2, -5, 2]


def test_on_prefect_a_stage_is_cached_the_second_time(store, prefect):
    from prefect import flow
    from prefect.client.schemas.objects import State

    names: list[str] = []

    def watch(task, run, state: State) -> None:
        names.append(state.name)

    @flow
    def twice() -> Instructions:
        return longer(counted(3), 2)

    RUNS.clear()
    first = twice()
    assert RUNS == [3, -2]
    assert twice() == first and RUNS == [3, -2]
    assert (store.path(first) / "prefect.json").is_file()


def test_made_without_prefect_is_cached_with_it_and_forgotten_is_made_again(store, prefect):
    from prefect import flow
    from prefect.states import State

    @flow
    def once() -> State:
        return counted._task(4, return_state=True)

    RUNS.clear()
    made = counted(4)
    assert once().name == "Cached" and RUNS == [4]
    store.forget(made)
    assert once().name == "Completed" and RUNS == [4, 4]
    assert once().name == "Cached" and RUNS == [4, 4]


@stage(Instructions, version=1)
def stopped_once(size: int) -> pl.DataFrame:
    """A stage that notes how far it came, and is stopped the first time."""
    place = unfinished() / "so far"
    RUNS.append(len(place.read_text()) if place.is_file() else 0)
    place.write_text("x" * size)
    if RUNS[-1] == 0:
        raise KeyboardInterrupt
    return pl.DataFrame({"instruction": ["x"] * size, "input": "", "dataset": "toy"})


def test_a_stage_that_was_stopped_finds_what_it_left_until_it_is_finished(store):
    RUNS.clear()
    with pytest.raises(KeyboardInterrupt):
        stopped_once(3)
    assert not store.has(stopped_once.receipt(3))
    made = stopped_once(3)
    assert RUNS == [0, 3] and store.has(made)
    store.forget(made)
    with pytest.raises(KeyboardInterrupt):
        stopped_once(3)


def test_what_was_left_unfinished_is_found_by_its_key_and_forgotten(store):
    with pytest.raises(KeyboardInterrupt):
        stopped_once(4)
    begun = stopped_once.receipt(4)
    assert store.begun() == [begun] == [store.find(begun.key[:6])]
    store.forget(begun)
    assert store.begun() == []
    with pytest.raises(Missing):
        store.find(begun.key)
