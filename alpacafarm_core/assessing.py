"""Asking assessors: questions to calls, bought once, asked again while an answer breaks its form.

The same ledger, purse and estimate as for judges of pairs. Each try of a question is a row of the
ledger of its own, so a run that was killed goes on with the try at which it stopped. A call that
failed is no try and never a mark: the next run asks again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import NamedTuple

from alpacafarm_core.annotate import Spending
from alpacafarm_core.asked import Asked
from alpacafarm_core.assessors import Assessor, Assessors, Sheet
from alpacafarm_core.buying import Bought, commonest, spend
from alpacafarm_core.ledger import Ledger, Record, digest
from alpacafarm_core.llm import WORLD, Ask, Request
from alpacafarm_core.prices import Rates, rates, tokens_of
from alpacafarm_core.purse import Purse
from alpacafarm_core.sheets import BLANKS, Blank, Reading, is_whole, read, written
from alpacafarm_core.templates import PLACES, Named, named, named_places
from alpacafarm_core.world.assessing import HABITS
from alpacafarm_core.world.judges import manner

_ANOTHER_SEED = 10_007
"""Between the seeds of two tries; more than there are seeds of runs."""


@dataclass(frozen=True)
class Desk:
    """An assessor with one of its sheets, made ready to ask, to pay and to read."""

    assessor: Assessor
    name: str
    seed: int
    readings: dict[tuple[str, int], list[Reading]] = field(default_factory=dict)

    @property
    def sheet(self) -> Sheet:
        return self.assessor.sheets[self.name]

    @property
    def blanks(self) -> tuple[Blank, ...]:
        return BLANKS[self.name]

    @cached_property
    def prompt_digest(self) -> str:
        """Sixteen hexadecimal digits that stand for the template's text."""
        return digest(self.sheet.prompt, self.sheet.block)[:16]

    @cached_property
    def key(self) -> str:
        """Digest of who is asked and how, all but the seed and what is shown."""
        judge: Asked = self.assessor
        sampling = (judge.temperature, judge.top_p, self.sheet.max_tokens, self._extra)
        habits = [HABITS[self.name]] if self.name in HABITS else []
        told = (manner(judge.model), *habits) if judge.endpoint == WORLD else ()
        return digest(judge.model, judge.endpoint, judge.api, *sampling, self.prompt_digest, *told)

    @cached_property
    def _extra(self) -> str:
        body = self.assessor.extra | self.sheet.extra
        return json.dumps(body, sort_keys=True) if body else ""

    @cached_property
    def rates(self) -> Rates:
        """What its calls cost; raises BadInput where no price is known."""
        return rates(self.assessor)

    @cached_property
    def _template(self) -> Named:
        return Named.of(self.sheet.prompt, self.assessor.api)

    @cached_property
    def places(self) -> list[str]:
        """What its template shows, by name."""
        return sorted(named_places(self.sheet.prompt))

    @cached_property
    def _block(self) -> list[str]:
        return PLACES.split(self.sheet.block)

    def request(self, texts: Mapping[str, str], outputs: Sequence[str], seed: int) -> Request:
        """One call that shows these outputs, in this order."""
        judge = self.assessor
        blocks = [
            named(self._block, {"number": str(number), "output": output})
            for number, output in enumerate(outputs, start=1)
        ]
        shown = {**texts, "outputs": "\n\n".join(blocks), "output": "".join(outputs[:1])}
        return Request(
            judge.model,
            self._template.fill(shown),
            judge.temperature,
            self.sheet.max_tokens,
            seed,
            judge.top_p,
            endpoint=judge.endpoint,
            extra=self._extra,
        )

    def usual(self, size: int) -> tuple[int, int]:
        """Tokens of a usual answer about so many, at least and at most."""
        longest = self.assessor.longest(self.sheet.max_tokens)
        if self.sheet.usual_tokens is not None:
            return (min(longest, self.sheet.usual_tokens * size),) * 2
        plain = {blank.label: _plainest(blank) for blank in self.blanks}
        least = tokens_of(written([plain] * size, self.sheet.form, self.blanks))
        return min(longest, least), longest

    def read(self, record: Record, size: int) -> list[Reading]:
        """What the call says about each output it showed; each text is read once."""
        call = record.call
        if (call.text, size) not in self.readings:
            found = read(call.text, self.sheet.form, self.blanks, size)
            self.readings[call.text, size] = found
        if call.finish_reason == "content_filter" and not call.text:
            return [Reading({}, "refused")] * size
        if call.finish_reason == "length" and call.text[-1:].isdigit():
            # The number may go on: a ten that was cut is not a one.
            return [Reading({}, "unparsable")] * size
        return self.readings[call.text, size]


class Question(NamedTuple):
    """One sheet about one prompt and the outputs shown with it; an order that can be bought.

    `texts` are what stands in the other places, `order` the place in the prompt's own list of each
    output shown, `attempt` how often it was asked before.
    """

    desk: Desk
    texts: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]
    order: tuple[int, ...]
    attempt: int = 0

    @property
    def key(self) -> str:
        """Digest of all that reaches the judge; of another try another one."""
        told = [part for pair in self.texts for part in pair]
        size = len(self.outputs)
        return digest(self.desk.key, self.seed, self.attempt, *told, size, *self.outputs)

    @property
    def seed(self) -> int:
        return self.desk.seed + _ANOTHER_SEED * self.attempt

    @property
    def size(self) -> int:
        """How many are to be judged: the outputs, or the prompt itself."""
        return max(1, len(self.outputs))

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    @property
    def rates(self) -> Rates:
        return self.desk.rates

    @property
    def longest(self) -> int:
        return self.desk.assessor.longest(self.desk.sheet.max_tokens)

    def usual(self) -> tuple[int, int]:
        return self.desk.usual(self.size)

    def request(self) -> Request:
        return self.desk.request(dict(self.texts), self.outputs, self.seed)


class Reply(NamedTuple):
    """What was said to a question: a reading of each output in the prompt's own order.

    `positions` says where each was shown. Tokens, US dollars and seconds are those of all tries.
    """

    question: Question
    readings: list[Reading]
    positions: list[int]
    tokens: int
    price: float
    seconds: float


class Assessed(NamedTuple):
    """Replies in the order of the questions, and what they cost this time."""

    replies: list[Reply]
    spending: Spending


class Office:
    """The desks of a panel of assessors, each made once."""

    def __init__(self, panel: Assessors) -> None:
        self.panel = panel
        self._desks = [
            {sheet: Desk(each, sheet, panel.seed) for sheet in each.sheets}
            for each in panel.assessors
        ]

    def question(self, sheet: str, texts: Mapping[str, str], outputs: Sequence[str]) -> Question:
        """The question about a prompt: its judge and the order of its outputs drawn by their texts.

        The judge depends on the prompt alone, so all that is asked about it is asked of one.
        """
        prompt, seed = texts["instruction"], self.panel.seed
        desk = Random(f"assessor{prompt}{seed}").choice(self._desks)[sheet]
        order = list(range(len(outputs)))
        if self.panel.order == "random":
            Random(f"order{sheet}{prompt}{''.join(outputs)}{seed}").shuffle(order)
        told = tuple((place, texts[place]) for place in desk.places if place in texts)
        return Question(desk, told, tuple(outputs[at] for at in order), tuple(order))


def outstanding(questions: Iterable[Question], retries: int, ledger: Ledger) -> list[Question]:
    """The calls that would be bought next: nobody is asked for what the ledger holds."""
    tries = _known(_unlike(questions), retries, ledger)
    return [order for each in tries.values() if (order := each.next(retries)) is not None]


def assess(
    questions: Sequence[Question],
    retries: int,
    ask: Ask,
    ledger: Ledger,
    purse: Purse | None = None,
) -> Assessed:
    """Ask all questions, each once, and again while its answer breaks the form.

    Answers are in the ledger before they are read. Of tries that all break it the one that says
    most counts. Raises BudgetReached before a call that `purse` might not be able to pay.
    """
    unlike = _unlike(questions)
    before = _known(unlike, retries, ledger)
    waiting = {key for key, each in before.items() if each.next(retries)}
    with ledger.claimed(waiting):
        tries = before | _known({key: unlike[key] for key in waiting}, retries, ledger)
        open_still = sum(each.next(retries) is not None for each in tries.values())
        bought = _buy(tries, retries, ask, ledger, purse or Purse())
    failed = sum(each.next(retries) is not None for each in tries.values())
    spending = Spending(
        bought.calls,
        bought.price,
        open_still - failed,
        len(unlike) - open_still,
        failed,
        commonest(bought.errors),
    )
    return Assessed(_replies(questions, tries, retries), spending)


class _Tries(NamedTuple):
    """A question, and what the ledger has of its tries, in turn."""

    question: Question
    records: list[Record]

    def readings(self, record: Record) -> list[Reading]:
        return self.question.desk.read(record, self.question.size)

    def next(self, retries: int) -> Question | None:
        """The try to buy; None when one says all, or there were too many."""
        done = len(self.records)
        if done > retries or (done and is_whole(self.readings(self.records[-1]))):
            return None
        return self.question._replace(attempt=done)

    def best(self, retries: int) -> list[Reading]:
        """What the try says that says most; nothing, with status failed, while one has failed."""
        if self.next(retries) is not None:
            return [Reading({}, "failed")] * self.question.size
        said = [self.readings(record) for record in self.records]
        return max(said, key=lambda each: sum(one.status != "unparsable" for one in each))


def _unlike(questions: Iterable[Question]) -> dict[str, Question]:
    """Each question once, by key."""
    return {question.key: question for question in questions}


def _known(unlike: Mapping[str, Question], retries: int, ledger: Ledger) -> dict[str, _Tries]:
    """What the ledger has of each question, try after try."""
    tries = {key: _Tries(question, []) for key, question in unlike.items()}
    waiting = list(tries.values())
    while waiting:
        waiting = [each for each in _added(waiting, retries, ledger) if each.next(retries)]
    return tries


def _added(waiting: Sequence[_Tries], retries: int, ledger: Ledger) -> list[_Tries]:
    """Those of whose next try the ledger knew; it is added to them."""
    orders = [(each, order.key) for each in waiting if (order := each.next(retries))]
    held = ledger.known(key for _, key in orders)
    known = [(each, held[key]) for each, key in orders if key in held]
    for each, record in known:
        each.records.append(record)
    return [each for each, _ in known]


def _buy(
    tries: Mapping[str, _Tries], retries: int, ask: Ask, ledger: Ledger, purse: Purse
) -> Bought:
    """Buy try after try, all questions at a time, until all are whole, failed or given up."""
    bought, waiting = Bought(0, 0.0, set(), []), list(tries.values())
    while orders := [order for each in waiting if (order := each.next(retries))]:
        bought = bought.and_then(spend(orders, ask, ledger, purse))
        waiting = _added(waiting, retries, ledger)
    return bought


def _replies(
    questions: Sequence[Question], tries: Mapping[str, _Tries], retries: int
) -> list[Reply]:
    """A reply a question; what it cost stands at the first of those that are alike."""
    paid: set[str] = set()
    replies = []
    for question in questions:
        key = question.key
        readings = tries[key].best(retries)
        places = [question.order.index(at) for at in range(len(question.order))] or [0]
        told = [readings[place] for place in places]
        cost = (0, 0.0, 0.0) if key in paid else _cost(tries[key].records)
        replies.append(Reply(question, told, places, *cost))
        paid.add(key)
    return replies


def _cost(records: Sequence[Record]) -> tuple[int, float, float]:
    """Tokens, US dollars and seconds of some calls."""
    calls = [record.call for record in records]
    tokens = sum(call.prompt_tokens + call.completion_tokens for call in calls)
    return tokens, sum(call.price for call in calls), sum(call.seconds for call in calls)


def _plainest(blank: Blank) -> object:
    """A short value that a blank takes."""
    shortest = {"text": "", "number": blank.scale[0], "numbers": [], "words": []}
    return blank.values[0] if blank.takes == "word" else shortest[blank.takes]
