"""Buying answers: rows to batches to calls, each into the ledger before it is read.

Nothing is asked that the purse might not be able to pay, and while calls are under way the log says
how many are answered, what they cost so far and how long the rest will take.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from alpacafarm_core.answers import Choice
from alpacafarm_core.desk import Desk
from alpacafarm_core.ledger import Ledger, Purchase, answered
from alpacafarm_core.llm import Answer, Ask, Request, arrivals
from alpacafarm_core.prices import Rates, tokens_of
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


class Order(Protocol):
    """A call that can be bought, about one row or several."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The rows it is about, in the order in which they are shown."""

    @property
    def rates(self) -> Rates:
        """What it costs."""

    @property
    def longest(self) -> int:
        """Tokens of the longest answer it can have."""

    def usual(self) -> tuple[int, int]:
        """Tokens of a usual answer, at least and at most."""

    def request(self) -> Request:
        """What is asked."""


def most(order: Order) -> float:
    """US dollars that a call can cost."""
    return order.rates.most(order.request(), order.longest)


def purchase(order: Order, request: Request, answer: Answer) -> Purchase:
    """What the ledger is to remember of a call and its answer."""
    call = answered(request, answer, len(order.keys), order.rates.charged(answer))
    return Purchase(call, order.keys)


class Batch(NamedTuple):
    """Rows to be shown together in one call."""

    desk: Desk
    rows: tuple[Row, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(row.key for row in self.rows)

    @property
    def rates(self) -> Rates:
        return self.desk.rates

    @property
    def longest(self) -> int:
        return self.desk.longest

    def usual(self) -> tuple[int, int]:
        judge = self.desk.annotator
        size = judge.batch if judge.pads else len(self.rows)
        if judge.usual_tokens is not None:
            return (judge.usual_tokens * size,) * 2
        least = min(self.longest, tokens_of(judge.answer.written([1.0] * size).text))
        bare = isinstance(judge.answer, Choice)
        return least, least if bare else self.longest

    def request(self) -> Request:
        return self.desk.request([row.example for row in self.rows])


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


def spend(orders: Sequence[Order], ask: Ask, ledger: Ledger, purse: Purse) -> Bought:
    """Buy all orders, as many at a time as the purse can pay whatever they come to.

    Raises BadInput for a model without a known price before anybody is asked.
    """
    for order in orders:
        _ = order.rates
    bought, done = Bought(0, 0.0, set(), []), 0
    prices = [most(order) for order in orders] if purse.limit < UNLIMITED else [0.0] * len(orders)
    while done < len(orders):
        count = purse.reserve(prices[done:])
        some = prices[done : done + count]
        try:
            part = _buy(orders[done : done + count], ask, ledger)
        except BaseException:
            # What is under way may still be charged; others must not wait for its money.
            purse.settle(some, sum(some))
            raise
        purse.settle(some, part.price)
        bought, done = bought.and_then(part), done + count
    return bought


def _buy(orders: Sequence[Order], ask: Ask, ledger: Ledger) -> Bought:
    """Ask, and put what was answered in the ledger: whatever has arrived meanwhile, together."""
    requests, progress = [order.request() for order in orders], Progress(len(orders))

    def put_away(group: Sequence[tuple[int, Answer]]) -> Bought:
        purchases = [
            purchase(orders[index], requests[index], answer)
            for index, answer in group
            if answer.status == "ok"
        ]
        ledger.append(purchases)
        cost = sum(each.call.price for each in purchases)
        progress.add(len(group), cost)
        errors = [answer.error for _, answer in group if answer.error]
        return Bought(len(purchases), cost, _rejected(orders, group), errors)

    bought = Bought(0, 0.0, set(), [])
    for group in arrivals(ask, requests, CHUNK):
        bought = bought.and_then(put_away(group))
    return bought


def commonest(errors: Sequence[str]) -> str:
    return max(sorted(set(errors)), key=errors.count, default="")


def _rejected(orders: Sequence[Order], group: Sequence[tuple[int, Answer]]) -> set[str]:
    """Keys of the rows of several that were rejected together: one of them may be at fault."""
    return {
        key
        for index, answer in group
        if answer.status == "failed"
        and answer.finish_reason == "rejected"
        and len(orders[index].keys) > 1
        for key in orders[index].keys
    }
