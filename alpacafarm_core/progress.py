"""How far a purchase has come: a line on the log every few seconds."""

import logging
import time

log = logging.getLogger("alpacafarm.judging")

PERIOD = 5.0
"""Seconds between two lines."""


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
            log.info(
                "%d of %d calls, $%.2f so far, %.0f s to go", self.done, self.calls, self.usd, left
            )
