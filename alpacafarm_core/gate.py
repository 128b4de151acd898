"""A gate before an endpoint: requests wait for their turn; those sent again go before new ones."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from alpacafarm_core.pacing import Pace

# Seconds; it bounds how often a server is asked that answers at once.
APART = 0.0005


class Gate:
    """Lets in as many as a pace allows.

    One at a time, a moment apart: an event loop works on all that are there in turns, so requests
    that were sent together would come back together and stay so, the endpoint idle in between.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._inside, self._last = 0, 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def place(self, is_first: bool) -> AsyncIterator[None]:
        """A place of one's own, waited for."""
        turn = asyncio.get_running_loop().create_future()
        (self._waiting.append if is_first else self._waiting.appendleft)(turn)
        self._admit()
        try:
            await turn
            yield
        finally:
            # Cancelled while waiting, or between being let in and noticing.
            self._inside -= turn.done() and not turn.cancelled()
            self._admit()

    def _admit(self) -> None:
        """Let in the next one if it is time, else see to it when it is."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        if self._timer or not self._waiting or self._inside >= int(self._pace.limit):
            return
        wait = max(self._pace.not_before, self._last + APART) - time.monotonic()
        if wait <= 0:
            self._waiting.popleft().set_result(None)
            self._inside += 1
            self._last = time.monotonic()
            wait = APART
        self._timer = asyncio.get_running_loop().call_later(wait, self._again)

    def _again(self) -> None:
        self._timer = None
        self._admit()
