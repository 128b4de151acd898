"""A stage's failures: what may pass is tried again; and jobs on a GPU take turns."""

from contextlib import contextmanager

import httpx
import polars as pl
import pytest

from alpacafarm_core.artifacts import Instructions
from alpacafarm_core.errors import (
    BadInput,
    BudgetReached,
    DoesNotFit,
    JudgeFailed,
    TrainingFailed,
    Unanswered,
    Unreachable,
)
from tasks.retrying import RETRIES, may_pass
from tasks.slots import gpu_slot, limit
from tasks.stage import stage

TRIES: list[str] = []
PASSING = (Unanswered, Unreachable, ConnectionResetError, TimeoutError, httpx.ReadTimeout)
LASTING = (BadInput, BudgetReached, JudgeFailed, DoesNotFit, TrainingFailed, MemoryError)


@stage(Instructions, version=1, retry_delay_seconds=0)
def troubled(kind: str, times: int) -> pl.DataFrame:
    """A stage that fails so many times with an error of a kind."""
    TRIES.append(kind)
    if TRIES.count(kind) <= times:
        raise {each.__name__: each for each in (*PASSING, *LASTING)}[kind]("trouble")
    return pl.DataFrame({"instruction": ["x"], "input": "", "dataset": "toy"})


@pytest.mark.parametrize("kind", PASSING)
def test_transport_may_pass(kind):
    assert may_pass(kind("trouble"))


@pytest.mark.parametrize("kind", LASTING)
def test_what_is_wrong_stays_wrong(kind):
    assert not may_pass(kind("trouble"))


def test_prefect_tries_a_stage_again_only_for_what_may_pass(store, prefect):
    from prefect import flow

    @flow
    def tries(kind: str, times: int) -> Instructions:
        return troubled(kind, times)

    TRIES.clear()
    assert store.has(tries("Unanswered", 2))
    assert TRIES == ["Unanswered"] * 3
    with pytest.raises(BudgetReached):
        tries("BudgetReached", 1)
    assert TRIES.count("BudgetReached") == 1
    assert RETRIES["retry_delay_seconds"] == sorted(RETRIES["retry_delay_seconds"])


@stage(Instructions, version=1)
def heavy(size: int) -> pl.DataFrame:
    """A stage whose work is a job."""
    with gpu_slot():
        return pl.DataFrame({"instruction": ["x"] * size, "input": "", "dataset": "toy"})


def test_a_slot_is_held_for_a_job_and_not_for_what_is_cached(store, prefect, monkeypatch):
    from prefect import flow

    held: list[tuple[str, int, bool]] = []

    @contextmanager
    def slots(name, occupy, strict):
        held.append((name, occupy, strict))
        yield

    @flow
    def makes(size: int) -> Instructions:
        return heavy(size)

    monkeypatch.setattr("prefect.concurrency.sync.concurrency", slots)
    monkeypatch.setenv("ALPACAFARM_DEVICE", "cuda")
    makes(3)
    assert held == [("gpu", 1, False)]
    makes(3)
    assert len(held) == 1, "cached"
    heavy(4)
    assert len(held) == 1, "no flow run, no server to ask"
    monkeypatch.setenv("ALPACAFARM_DEVICE", "cpu")
    makes(5)
    assert len(held) == 1, "no GPU"


def test_machines_of_another_kind_may_count_apart(monkeypatch):
    monkeypatch.delenv("ALPACAFARM_GPU_LIMIT", raising=False)
    assert limit() == "gpu"
    monkeypatch.setenv("ALPACAFARM_GPU_LIMIT", "gpu-a100")
    assert limit() == "gpu-a100"
