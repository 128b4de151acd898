"""Buying answers: rows to batches to calls, each into the ledger before it is read.

Nothing is asked that the purse might not be able to pay, and while calls are under way the log says
how many are answered, what they cost so far and how long the rest will take.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from alpacafarm_core.desk import Desk
from alpacafarm_core.ledger import Ledger, Purchase, answered
from alpacafarm_core.llm import Answer, Ask, Request, arrivals
from alpacafarm_core.progress import Progress
from alpacafarm_core.purse import UNLIMITED, Purse
from alpacafarm_core.templates import Example

CHUNK = 256


class Row(NamedTuple):
    """One pair after its draws; `key` is empty when nobody is to be asked."""

    desk: Desk
    example: Example
    key: str
    is_switched: bool
    coin: float | None


class Batch(NamedTuple):
    """Rows to be shown together in one call."""

    desk: Desk
    rows: tuple[Row, ...]

    def request(self) -> Request:
        return self.desk.request([row.example for row in self.rows])

    def most(self) -> float:
        """US dollars that the call can cost."""
        return self.desk.most(self.request())

    def purchase(self, request: Request, answer: Answer) -> Purchase:
        call = answered(request, answer, len(self.rows), self.desk.price(answer))
        return Purchase(call, tuple(row.key for row in self.rows))


class Bought(NamedTuple):
    """Calls and US dollars; keys of rows in batches that were rejected as a whole; errors."""

    calls: int
    price: float
    rejected: set[str]
    errors: list[str]

    def and_then(self, more: "Bought") -> "Bought":
        """Both together."""
        return Bought(
            self.calls + more.calls,
            self.price + more.price,
            self.rejected | more.rejected,
            self.errors + more.errors,
        )


def batches_of(rows: Sequence[Row]) -> list[Batch]:
    """Rows of one desk in their order, a batch at a time; the same for the same missing rows."""
    by_desk: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_desk[id(row.desk)].append(row)
    return [
        Batch(some[0].desk, tuple(some[start : start + some[0].desk.annotator.batch]))
        for some in by_desk.values()
        for start in range(0, len(some), some[0].desk.annotator.batch)
    ]


def spend(batches: Sequence[Batch], ask: Ask, ledger: Ledger, purse: Purse) -> Bought:
    """Buy all batches, as many at a time as the purse can pay whatever they come to."""
    bought, done = Bought(0, 0.0, set(), []), 0
    most = [batch.most() for batch in batches] if purse.limit < UNLIMITED else [0.0] * len(batches)
    while done < len(batches):
        count = purse.reserve(most[done:])
        some = most[done : done + count]
        try:
            part = _buy(batches[done : done + count], ask, ledger)
        except BaseException:
            # What is under way may still be charged; others must not wait for its money.
            purse.settle(some, sum(some))
            raise
        purse.settle(some, part.price)
        bought, done = bought.and_then(part), done + count
    return bought


def _buy(batches: Sequence[Batch], ask: Ask, ledger: Ledger) -> Bought:
    """Ask, and put what was answered in the ledger: whatever has arrived meanwhile, together."""
    requests, progress = [batch.request() for batch in batches], Progress(len(batches))

    def put_away(group: Sequence[tuple[int, Answer]]) -> Bought:
        purchases = [
            batches[index].purchase(requests[index], answer)
            for index, answer in group
            if answer.status == "ok"
        ]
        ledger.append(purchases)
        cost = sum(purchase.call.price for purchase in purchases)
        progress.add(len(group), cost)
        errors = [answer.error for _, answer in group if answer.error]
        return Bought(len(purchases), cost, _rejected(batches, group), errors)

    bought = Bought(0, 0.0, set(), [])
    for group in arrivals(ask, requests, CHUNK):
        bought = bought.and_then(put_away(group))
    return bought


def commonest(errors: Sequence[str]) -> str:
    return max(sorted(set(errors)), key=errors.count, default="")


def _rejected(batches: Sequence[Batch], group: Sequence[tuple[int, Answer]]) -> set[str]:
    """Keys of the rows of several that were rejected together: one of them may be at fault."""
    return {
        row.key
        for index, answer in group
        if answer.status == "failed"
        and answer.finish_reason == "rejected"
        and len(batches[index].rows) > 1
        for row in batches[index].rows
    }
