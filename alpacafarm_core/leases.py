"""Leases: who of several machines that share no disk may produce an artifact.

A lease is an object that its holder lays anew every few seconds. One that has not been for `ttl`
seconds, by the storage's own clock, is nobody's. All that is asked of the storage is to refuse a
second object of one name: whoever lays the next number of an expired lease has it. A holder that
was paused and wakes up too late does no harm, since an artifact is finished only once.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from alpacafarm_core.errors import FarmError
from alpacafarm_core.objects import Held, Listing, Objects

FOLDER = "leases/"
TTL = 30.0
TURN = 1.0

log = logging.getLogger("alpacafarm.stages")


def _never() -> bool:
    return False


class Leases:
    """Leases beside one another in storage; `ttl` and `turn`, the wait between looks, in seconds.

    Clocks of storage count whole seconds, so a `ttl` below three has no meaning. `machine` names
    this one; of its processes only one at a time may ask for a name, so that what an earlier one
    holds is known to be left.
    """

    def __init__(
        self, objects: Objects, machine: str = "", ttl: float = TTL, turn: float = TURN
    ) -> None:
        self.objects, self.machine, self.ttl, self.turn = objects, machine, ttl, turn

    @contextmanager
    def held(self, name: str, until: Callable[[], bool] = _never) -> Iterator[None]:
        """Hold the lease `name` while the block runs; others wait.

        Waiting also ends when `until` is true: then the block runs without the lease.
        """
        holder = self._signature()
        mine = self._taken(name, holder, until)
        if mine is None:
            yield
            return
        done = threading.Event()
        beats = threading.Thread(target=self._beat, args=(mine, holder, done), daemon=True)
        beats.start()
        try:
            yield
        finally:
            done.set()
            beats.join()
            with suppress(FarmError):  # one that stays runs out
                self.objects.drop(mine)

    def is_held(self, name: str) -> bool:
        """Whether somebody holds it."""
        return self._holder(self._listed(name)) is not None

    def held_now(self) -> list[str]:
        """Names of all that somebody holds."""
        listing = self.objects.listing(FOLDER)
        alive = (each for each in listing.held if _age(each, listing) <= self.ttl)
        return sorted({each.name.split("/")[1] for each in alive})

    def expired(self, age: float) -> list[Held]:
        """Leases of all names that nobody laid anew for `age` seconds."""
        listing = self.objects.listing(FOLDER)
        return [each for each in listing.held if _age(each, listing) > max(age, self.ttl)]

    def renew(self, mine: str, holder: bytes) -> bool:
        """Lay a lease anew; false when another machine has taken over."""
        name = mine.removeprefix(FOLDER).rpartition("/")[0]
        if any(each.name > mine for each in self._listed(name).held):
            return False
        self.objects.lay(mine, holder)
        return True

    def _taken(self, name: str, mine: bytes, until: Callable[[], bool]) -> str | None:
        """The object that is the lease, once it is ours; None when `until` came first."""
        waits = False
        while True:
            listing = self._listed(name)
            holder = self._holder(listing)
            if holder is None or self._is_left(holder):
                last = listing.held[-1].name[-8:] if listing.held else "0"
                place = f"{FOLDER}{name}/{int(last) + 1:08d}"
                if self.objects.lay_new(place, mine):
                    for old in listing.held:
                        self.objects.drop(old.name)
                    return place
                continue
            if until():
                return None
            if not waits:
                log.info("another machine is at work on %s; waiting for it", name)
            waits = True
            time.sleep(self.turn)

    def _beat(self, mine: str, holder: bytes, done: threading.Event) -> None:
        while not done.wait(self.ttl / 3):
            # A storage that is away for a moment may be back for the next beat.
            with suppress(FarmError):
                if not self.renew(mine, holder):
                    log.warning(
                        "%s: this machine was silent for too long and another took over; "
                        "the first to finish counts",
                        mine.split("/")[1],
                    )
                    return

    def _is_left(self, lease: Held) -> bool:
        """Whether an earlier process of this machine had it."""
        said = self.objects.read(lease.name) if self.machine else None
        return said is not None and said[0].split()[:1] == [self.machine.encode()]

    def _signature(self) -> bytes:
        """Who holds it, for people who look, and told apart from any other holder."""
        whose = self.machine or uuid4().hex
        return f"{whose} {socket.gethostname()} {os.getpid()} {uuid4().hex}\n".encode()

    def _listed(self, name: str) -> Listing:
        return self.objects.listing(f"{FOLDER}{name}/")

    def _holder(self, listing: Listing) -> Held | None:
        """The lease that counts, the one with the highest number, unless it has run out."""
        if not listing.held or _age(listing.held[-1], listing) > self.ttl:
            return None
        return listing.held[-1]


def _age(lease: Held, listing: Listing) -> float:
    return (listing.now - lease.laid).total_seconds()
