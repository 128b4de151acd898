"""Pacing: how many requests an endpoint is sent at a time, when again, and when no more.

Nothing here sends or sleeps. Whoever does says what happened and when; times are in seconds on any
clock that only goes forward.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

_NEVER = -math.inf


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard an endpoint is pressed, and how long anyone is waited for; times in seconds.

    A request gets `retries` tries beyond the first, each of at most `timeout`, all within
    `deadline`; tries that meet a rate limit are not counted. After `strikes` failures in a row,
    and `grace` after the first of them, the endpoint counts as down for `pause`.
    """

    concurrency: int = 16
    timeout: float = 120.0
    deadline: float = 900.0
    retries: int = 8
    first_wait: float = 0.5
    longest_wait: float = 30.0
    strikes: int = 20
    grace: float = 5.0
    pause: float = 10.0

    def wait(self, tries: int, chance: float) -> float:
        """Before another try: twice as long each time, and of that a share of one half to one."""
        whole = min(self.longest_wait, self.first_wait * 2.0 ** min(tries, 32))
        return whole * (1.0 + chance) / 2.0


class Pace:
    """How many may be under way: a rate limit halves it, each full round of answers adds one."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.not_before = _NEVER
        self._halved = _NEVER

    def answered(self) -> None:
        """One request came back."""
        self.limit = min(float(self.most), self.limit + 1.0 / self.limit)

    def limited(self, sent: float, now: float, wait: float) -> None:
        """One sent at `sent` met a rate limit, and the server asked all to wait so long.

        Those sent before the last halving say nothing new.
        """
        self.not_before = max(self.not_before, now + wait)
        if sent >= self._halved:
            self.limit = max(1.0, self.limit / 2.0)
            self._halved = now


class Breaker:
    """Whether an endpoint is worth asking; one that is down is asked once in a pause."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._failures = 0
        self._first = self._quiet_until = _NEVER
        self.reason = ""

    def allows(self, now: float) -> bool:
        """Whether a request may go out; of an endpoint that is down the first after each pause."""
        if not self.reason:
            return True
        if now < self._quiet_until:
            return False
        self._quiet_until = now + self._limits.pause
        return True

    def answered(self) -> None:
        """It lives."""
        self._failures, self.reason = 0, ""

    def failed(self, now: float, reason: str, is_final: bool = False) -> None:
        """One failure more; one that is final needs no grace."""
        if not self._failures:
            self._first = now
        self._failures += 1
        grace = 0.0 if is_final else self._limits.grace
        if self._failures >= self._limits.strikes and now - self._first >= grace:
            self.shut(now, reason)

    def shut(self, now: float, reason: str) -> None:
        """It is down, whatever was counted."""
        self.reason, self._quiet_until = reason, now + self._limits.pause


def asked_wait(headers: Mapping[str, str], now: float) -> float:
    """Seconds a response asks to wait, 0 when it does not; `now` in seconds since the epoch."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        said = headers.get(name, "")
        try:
            return _sane(float(said) * unit)
        except ValueError:
            continue
    try:
        return _sane(parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _sane(seconds: float) -> float:
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
