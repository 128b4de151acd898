"""Leases: one holder at a time by the storage's clock, and no harm from one that wakes up late."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alpacafarm_core.errors import Unreachable
from alpacafarm_core.leases import Leases
from tests.shelf import Shelf
from tests.test_remote import ONE, OTHERS, ROWS, laid, machine


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def leases(shelf: Shelf) -> Leases:
    return Leases(shelf, turn=0.001)


def test_a_lease_is_there_while_the_block_runs(leases, shelf):
    with leases.held("policy-1"):
        assert shelf.names("leases/") == ["leases/policy-1/00000001"]
        assert leases.is_held("policy-1") and not leases.is_held("policy-2")
    assert shelf.names("leases/") == [] and not leases.is_held("policy-1")


def test_many_that_want_one_lease_have_it_one_after_the_other(shelf):
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with Leases(shelf, turn=0.001).held("x"):
            inside.append(number)
            most.append(len(inside))
            inside.remove(number)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(40)))
    assert len(most) == 40 and max(most) == 1


def test_one_that_is_dead_is_followed_when_its_time_is_over(leases, shelf):
    shelf.lay_new("leases/x/00000001", b"dead")
    shelf.later(30)
    assert leases.is_held("x")
    shelf.later(1)
    with leases.held("x"):
        assert shelf.names("leases/") == ["leases/x/00000002"]


def test_what_a_dead_process_of_this_machine_held_is_not_waited_for(shelf):
    here, there = Leases(shelf, "here"), Leases(shelf, "there", turn=0.001)
    shelf.lay_new("leases/x/00000001", here._signature())
    with here.held("x"):
        assert shelf.names("leases/") == ["leases/x/00000002"]
    shelf.lay_new("leases/y/00000001", here._signature())
    looks = iter([False, True])
    with there.held("y", until=lambda: next(looks)):
        assert shelf.names("leases/") == ["leases/y/00000001"]


def test_a_holder_that_is_alive_keeps_it(leases, shelf):
    shelf.lay_new("leases/x/00000001", b"mine")
    for _ in range(5):
        shelf.later(20)
        assert leases.renew("leases/x/00000001", b"mine") and leases.is_held("x")


def test_the_holder_renews_it_while_it_works(shelf):
    leases, renewed = Leases(shelf, ttl=0.003), threading.Event()
    lay = shelf.lay
    shelf.lay = lambda *given: (lay(*given), renewed.set())
    with leases.held("x"):
        renewed.clear()
        assert renewed.wait(5)


def test_a_holder_that_was_followed_does_not_renew(leases, shelf):
    shelf.lay_new("leases/x/00000001", b"mine")
    shelf.lay_new("leases/x/00000002", b"theirs")
    assert not leases.renew("leases/x/00000001", b"mine")


def test_waiting_ends_when_what_is_waited_for_is_there(leases, shelf):
    shelf.lay_new("leases/x/00000001", b"theirs")
    looks = iter([False, False, True])
    with leases.held("x", until=lambda: next(looks)):
        assert shelf.names("leases/") == ["leases/x/00000001"]
    assert shelf.names("leases/") == ["leases/x/00000001"]


def test_a_storage_that_is_away_for_a_moment_costs_neither_work_nor_lease(shelf):
    leases, tried = Leases(shelf, ttl=0.003), threading.Event()

    def away(*_: object) -> None:
        tried.set()
        raise Unreachable("away")

    with leases.held("x"):
        shelf.lay = away
        assert tried.wait(5)
        del shelf.lay
    assert shelf.names("leases/") == []


def test_expired_leases_are_told_from_those_that_are_held(leases, shelf):
    shelf.lay("leases/a/00000001", b"dead")
    shelf.later(600)
    shelf.lay("leases/b/00000001", b"alive")
    assert [each.name for each in leases.expired(300)] == ["leases/a/00000001"]


def test_a_paused_holder_that_wakes_up_changes_nothing(shelf: Shelf, tmp_path: Path):
    here, there = machine(shelf, tmp_path / "here"), machine(shelf, tmp_path / "there")
    with here.lock(ONE):
        shelf.later(31)  # asleep, while the other machine takes over and finishes
        with there.lock(ONE):
            laid(there)
        laid(here, OTHERS)
    assert here.read(ONE).equals(ROWS) and there.read(ONE).equals(ROWS)
    assert shelf.names("leases/") == []
