"""How far a purchase has come: a line on the log every few seconds, and to whoever watches."""

import logging
import time
from collections.abc import Callable
from contextvars import ContextVar

log = logging.getLogger("alpacafarm.judging")

PERIOD = 5.0
"""Seconds between two lines."""

WATCHER: ContextVar[Callable[[float, str], None] | None] = ContextVar("watcher", default=None)
"""Who is told the share of calls that came back, in percent, and the line."""


class Progress:
    """Counts calls out of `calls`, and US dollars."""

    def __init__(self, calls: int) -> None:
        self.calls, self.done, self.usd = calls, 0, 0.0
        self._begun = self._said = time.monotonic()

    def add(self, calls: int, usd: float) -> None:
        """More calls have come back; says so when the last line is long enough ago."""
        self.done, self.usd = self.done + calls, self.usd + usd
        now = time.monotonic()
        if now - self._said >= PERIOD and self.done:
            self._said = now
            left = (now - self._begun) / self.done * (self.calls - self.done)
            line = f"{self.done} of {self.calls} calls, ${self.usd:.2f} so far, {left:.0f} s to go"
            log.info("%s", line)
            if watcher := WATCHER.get():
                watcher(100 * self.done / self.calls, line)
