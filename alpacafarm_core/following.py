"""Following a training run while it goes: its feed is read in a thread and passed on to listeners.

On a terminal that is one live line, elsewhere a line on the log now and then. Listening never ends
a run: a listener that fails is left out from then on, with a warning.
"""

import logging
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from threading import Event, Thread
from typing import Protocol, TextIO

from alpacafarm_core.train.logbook import Figures, Reader, terse

log = logging.getLogger("alpacafarm.progress")

LOOK, SAY = 1.0, 10.0
"""Seconds between two looks at a feed, and between two lines on a log."""

RECENT = 20
"""Steps from whose seconds the time left is told."""

CLEAR = "\r\x1b[2K"
"""Return to the start of a terminal's line and wipe it."""


class Listener(Protocol):
    """Whoever wants a run's figures as they come."""

    def note(self, entries: Sequence[Figures]) -> None:
        """The figures of new steps, oldest first."""

    def close(self) -> None:
        """The run is over."""


@contextmanager
def followed(feed: Path, listeners: Sequence[Listener], look: float = LOOK) -> Iterator[None]:
    """Pass on what appears in `feed` meanwhile, looking every `look` seconds and once at the end.

    A feed that lies there already is of a run that was stopped, and goes.
    """
    feed.unlink(missing_ok=True)
    done = Event()
    work = (_pass_on, Reader(feed), list(listeners), done, look)
    # The context goes along: a run's page belongs to whoever opened it.
    thread = Thread(target=copy_context().run, args=work, name="following", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _pass_on(reader: Reader, listeners: list[Listener], done: Event, look: float) -> None:
    is_over = False
    while not is_over:
        is_over = done.wait(look)
        entries = reader.new()
        for each in [*listeners] if entries else []:
            if not _told(each, entries):
                listeners.remove(each)
    for each in listeners:
        _told(each, None)


def _told(listener: Listener, entries: Sequence[Figures] | None) -> bool:
    """Whether a listener took the figures, or, given none, that the run is over."""
    try:
        listener.close() if entries is None else listener.note(entries)
    except Exception as error:  # others' programs and servers; none is worth a training run
        log.warning("%s no longer follows: %s", type(listener).__name__, error)
        return False
    return True


class Watch:
    """One line of where a run is: of its last step, with the time that is left."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._seconds: list[float] = []

    def line(self, entries: Sequence[Figures]) -> str:
        """The line once these entries, at least one, are in."""
        self._seconds = [*self._seconds, *(one["seconds"] for one in entries)][-RECENT:]
        last = entries[-1]
        if "steps" not in last:
            return f"{self._title}: going on after step {last['step'] + 1}"
        pace = sorted(self._seconds)[len(self._seconds) // 2]
        left = pace * (last["steps"] - last["step"] - 1)
        return f"{self._title}: {terse(last, last['steps'])} · {_lasting(left)} left"


class Line:
    """A live line on a terminal, each over the one before; gone when the run is over."""

    def __init__(self, title: str, terminal: TextIO | None = None) -> None:
        self._watch, self._terminal = Watch(title), terminal or sys.stderr

    def note(self, entries: Sequence[Figures]) -> None:
        """Write the line anew."""
        room = shutil.get_terminal_size().columns - 1
        self._write(self._watch.line(entries)[:room])

    def close(self) -> None:
        """Wipe it."""
        self._write("")

    def _write(self, text: str) -> None:
        self._terminal.write(f"{CLEAR}{text}")
        self._terminal.flush()


class Lines:
    """A line on the log every SAY seconds."""

    def __init__(self, title: str) -> None:
        self._watch, self._said = Watch(title), time.monotonic()

    def note(self, entries: Sequence[Figures]) -> None:
        """Say where the run is, if the last line is long enough ago."""
        line = self._watch.line(entries)
        if time.monotonic() - self._said >= SAY:
            self._said = time.monotonic()
            log.info("%s", line)

    def close(self) -> None:
        """Nothing is left to say."""


def shown(title: str) -> Listener:
    """A live line where people watch a terminal, else lines on the log."""
    return Line(title) if sys.stderr.isatty() else Lines(title)


def _lasting(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
