"""Jobs side by side: each with its own GPUs and its share of the cores, results in order."""

import os
import threading

import pytest

from alpacafarm_core import side_by_side
from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine

GPUS = Machine(device="cuda", apart="yes", data_parallel=2)


@pytest.fixture(autouse=True)
def all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing chosen beforehand, and the choice of a test forgotten after it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_jobs_run_at_the_same_time_on_gpus_of_their_own(monkeypatch):
    meeting = threading.Barrier(2, timeout=20)

    def job(function: str, word: str, machine: Machine) -> tuple[str, str, str, int]:
        meeting.wait()
        return function, word, machine.gpus, machine.data_parallel

    monkeypatch.setattr(side_by_side, "call", job)
    found = side_by_side.call_beside("module:name", [("one",), ("two",)], GPUS)
    assert found == [("module:name", "one", "0", 1), ("module:name", "two", "1", 1)]
    assert GPUS.at_once() == 2


def test_each_job_gets_as_many_gpus_as_hold_a_model():
    machine = GPUS.replace(tensor_parallel=2, gpus="4,5,6,7")
    assert [machine.lent(number).gpus for number in range(2)] == ["4,5", "6,7"]


def test_only_gpus_that_this_process_may_use_are_lent(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert [GPUS.lent(number).gpus for number in range(2)] == ["3", "1"]
    with pytest.raises(BadInput, match=r"wants 4 GPUs and may use 2 \(3,1\); lower one"):
        GPUS.replace(data_parallel=4).lent(0)


def test_on_a_cpu_jobs_share_the_cores_and_no_gpu(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    lent = Machine(device="cpu", data_parallel=4).lent(3)
    assert (lent.gpus, lent.threads, lent.data_parallel) == ("", 2, 1)


def test_a_job_sees_its_gpus_only():
    Machine(device="cuda", gpus="2,3").claim()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    Machine(device="cuda").claim()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
