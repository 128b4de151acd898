"""Ctrl-C at a moment of one's own choosing.

Python raises KeyboardInterrupt between any two instructions of the main thread, also between taking
a lock and the line that sees to letting it go; who asks for that lock again then waits for ever.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def deferred(noticed: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Ctrl-C inside calls `noticed`, and is raised where the block ends; a second one at once.

    `noticed` is called in the main thread between any two instructions, so it must not take locks.
    Other threads are never interrupted; for them nothing changes.
    """
    former = _handler()
    if former is None:
        yield
        return
    presses: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        presses.append(number)
        signal.signal(signal.SIGINT, former)
        noticed()

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
        if presses:
            signal.raise_signal(signal.SIGINT)


def _handler() -> _Handler | None:
    """What Ctrl-C does now; None where it does nothing, or this is not the main thread."""
    handler = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    return handler if is_main and callable(handler) else None
