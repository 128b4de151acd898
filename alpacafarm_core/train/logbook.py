"""The figures of every step: kept, written to a feed that others follow, and now and then said.

A feed is a file of JSON lines, one a step. It holds exactly the history, so going on from a
checkpoint writes it anew. Who reads it meanwhile may meet half a line at its end.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from os import SEEK_END
from pathlib import Path

log = logging.getLogger("alpacafarm.training")

TIMED = ("seconds", "tokens_per_second")
"""Figures that tell of the machine; all others are the same whenever the run is repeated."""

PERIOD = 2.0
"""Seconds between two lines on the log."""

SAID = {
    "loss": "loss {:.4f}",
    "reward": "reward {:.3f}",
    "kl": "KL {:.2f}",
    "accuracy": "accuracy {:.1%}",
    "length": "{:.0f} tokens long",
    "tokens_per_second": "{:.0f} tokens/s",
}

Figures = dict[str, float]


class Logbook:
    """Takes the figures of each step, `history` those of steps done before."""

    def __init__(
        self,
        feed: Path | None = None,
        history: Sequence[Mapping[str, float]] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.history: list[Figures] = [dict(one) for one in history]
        self._feed, self._clock = feed, clock
        self._before, self._said = clock(), -PERIOD
        if feed is not None:
            feed.parent.mkdir(parents=True, exist_ok=True)
            feed.write_text("".join(json.dumps(one) + "\n" for one in self.history))

    def note(self, step: int, steps: int, figures: Figures) -> None:
        """Keep the figures of step `step` (from 0) of `steps`, with the seconds it took.

        Seconds are since the step before, or since the book was opened. Figures with `tokens` also
        get `tokens_per_second`.
        """
        now = self._clock()
        entry = {"step": step, **figures, "seconds": now - self._before}
        if "tokens" in figures:
            entry["tokens_per_second"] = figures["tokens"] / max(entry["seconds"], 1e-9)
        self._before = now
        self.history.append(entry)
        if self._feed is not None:
            with self._feed.open("a") as feed:
                feed.write(json.dumps(entry | {"steps": steps}) + "\n")
        if now - self._said >= PERIOD or step in (0, steps - 1):
            self._said = now
            log.info("%s", terse(entry, steps))


class Reader:
    """Reads a feed while it is written."""

    def __init__(self, feed: Path) -> None:
        self._feed, self._at = feed, 0

    def new(self) -> list[Figures]:
        """What came since the last call, oldest first; half a line is left for the next one."""
        if not self._feed.is_file():
            return []
        with self._feed.open("rb") as feed:
            if feed.seek(0, SEEK_END) < self._at:
                self._at = 0
            feed.seek(self._at)
            text = feed.read()
        whole = text.rfind(b"\n") + 1
        self._at += whole
        return [json.loads(line) for line in text[:whole].splitlines()]


def means(history: Sequence[Mapping[str, float]]) -> Figures:
    """The mean of each figure over some steps, which all have the same ones."""
    return {name: sum(one[name] for one in history) / len(history) for name in history[0]}


def terse(entry: Mapping[str, float], steps: float) -> str:
    """One line of a step's figures, those that a person watches."""
    known = [said.format(entry[name]) for name, said in SAID.items() if name in entry]
    return " · ".join([f"step {entry['step'] + 1:.0f} of {steps:.0f}", *known])
