"""Ctrl-C put off to a moment at which nothing is half done."""

import signal
import threading
from contextlib import suppress

import pytest

from alpacafarm_core.interrupts import deferred


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), deferred(lambda: said.append("noticed")):
        press()
        said.append("done")
    assert said == ["noticed", "done"]


def test_the_second_one_waits_for_nothing() -> None:
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), deferred():
        press()
        press()
        said.append("never")
    assert said == []


def test_a_block_inside_a_block_hands_it_on() -> None:
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), deferred(lambda: said.append("outer")):
        with deferred(lambda: said.append("inner")):
            press()
            said.append("still inside")
        said.append("still outside")
    assert said == ["inner", "still inside", "outer", "still outside"]


def test_afterwards_all_is_as_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    with suppress(KeyboardInterrupt), deferred():
        press()
    assert signal.getsignal(signal.SIGINT) is before


def test_who_ignores_interrupts_goes_on_to() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred():
            press()
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_changes() -> None:
    before, inside = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with deferred():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
