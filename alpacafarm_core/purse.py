"""The purse: what may still be spent, shared by all who buy in one run.

Nothing is asked that could cost more than is left. A caller reserves the most its next calls can
cost, buys, and gives back what they did not; so the cap holds with any number of threads.
"""

import threading
from collections.abc import Sequence
from itertools import accumulate

from alpacafarm_core.errors import BudgetReached

UNLIMITED = float("inf")


class Purse:
    """US dollars up to `limit`, safe under threads."""

    def __init__(self, limit: float = UNLIMITED) -> None:
        self.limit, self.spent = limit, 0.0
        self._reserved = 0.0
        self._turn = threading.Condition()

    def reserve(self, prices: Sequence[float]) -> int:
        """How many of the next calls can be paid whatever they cost, at least one; reserves them.

        `prices` are the most that each can cost. Waits while others hold what would pay for the
        first; raises BudgetReached when nobody does.
        """
        with self._turn:
            self._turn.wait_for(lambda: prices[0] <= self._left() or not self._reserved)
            sums = list(accumulate(prices))
            count = sum(total <= self._left() for total in sums)
            if not count:
                raise BudgetReached(
                    f"budget of ${self.limit:.2f}: ${self.spent:.2f} are spent and the next call "
                    f"may cost ${prices[0]:.4f}; all answers are kept, so raise the budget and "
                    "run again to go on"
                )
            self._reserved += sums[count - 1]
            return count

    def settle(self, prices: Sequence[float], spent: float) -> None:
        """Give back a reservation of calls at most `prices`, of which `spent` dollars went."""
        with self._turn:
            self._reserved -= sum(prices)
            if self._reserved < 1e-9:
                self._reserved = 0.0
            self.spent += spent
            self._turn.notify_all()

    def _left(self) -> float:
        return self.limit - self.spent - self._reserved
