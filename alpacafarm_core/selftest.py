"""The self-test of a panel: what it would do to labels, found out before anything is bought.

The very code that judges runs on planted pairs with scripted judges in place of the models: an
oracle, one that always names the first, one that always refuses, a coin, and one that is down. Of
each it is known what the labels must be. Shares are held against their binomial intervals.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from math import comb
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from alpacafarm_core import annotate
from alpacafarm_core.errors import JudgeFailed
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.llm import Ask
from alpacafarm_core.panel import Annotator, Panel
from alpacafarm_core.planted import (
    Planted,
    Says,
    Script,
    always_first,
    always_refuse,
    coin,
    contrary,
    oracle,
    out_of_order,
    planted,
    table,
)

ROWS, ROWS_EACH, FEW = 400, 24, 24
RECOVERED = 0.99
CHANCE = 1e-6
"""Probability with which a sound panel falls outside one interval."""

_NOISE = 0.25
_GRADE = 0.01
_CODE = "the code that judges is at fault, mend that"
_ANNOTATOR = "mend its templates or its `answer`"


class Report(NamedTuple):
    """What the self-test of a panel saw; shares of planted pairs in [0, 1].

    `recovered` is how many of the oracle's labels came back right, `order_bias` by how much they
    name the output shown first too often. `first` is the share of output_1 in the labels of the
    judge that looks at the order alone, `coin` in those of a coin. `refused` is how many refusals
    count as such, `noisy` how many labels noise decided at the panel's flip, or at 0.25.
    """

    panel: str
    rows: int
    recovered: float
    order_bias: float
    first: float
    coin: float
    refused: float
    noisy: float


def check(panel: Panel) -> Report:
    """Test a panel once in this process; raises JudgeFailed where a label would not be what it is.

    The error names the panel, the annotator where one is to blame, what was expected, what was
    found and the mend.
    """
    content = panel.model_dump_json()
    if content not in _passed:
        _passed[content] = trial(panel)
    return _passed[content]


_passed: dict[str, Report] = {}
"""Panels that have passed in this process, by content."""


def trial(panel: Panel) -> Report:
    """Test a panel anew; raises as `check`."""
    pairs = planted(max(ROWS, ROWS_EACH * len(panel.annotators)))
    noisy = _told_apart(panel.replace(flip=panel.flip or _NOISE, only=()))
    clean = noisy.replace(flip=0.0)
    with passing_ledger() as ledger:
        noised = _noise(_run(noisy, pairs, oracle, ledger))
        asked = _run(clean, pairs, oracle, ledger)
        _bought_once(noised, asked)
        recovered = _recovered(asked)
        _kept_apart(clean, pairs[:FEW], ledger)
    with passing_ledger() as ledger:
        _nothing_of_failures(clean, pairs[:FEW], ledger)
        first = _order(_run(clean, pairs, always_first, ledger))
    with passing_ledger() as ledger:
        refused = _refusals(_run(clean, pairs, always_refuse, ledger))
    with passing_ledger() as ledger:
        tossed = _tosses(_run(clean, pairs, coin, ledger))
    return Report(
        panel.name,
        len(pairs),
        recovered,
        _order_bias(asked),
        first,
        tossed,
        refused,
        _share(row.is_noisy for row in noised.rows),
    )


class _Row(NamedTuple):
    """What judging said of one planted pair."""

    pair: Planted
    annotator: str
    preference: float | None
    status: str
    is_switched: bool
    is_noisy: bool

    def says(self, preferred: int) -> bool:
        """Whether the label names this output; a graded one to within 0.01."""
        return self.preference is not None and abs(self.preference - preferred) <= _GRADE


class _Run(NamedTuple):
    """One judging of planted pairs by a scripted judge."""

    panel: Panel
    script: Script
    rows: list[_Row]

    def asked(self) -> list[_Row]:
        """The rows that went to an annotator this time."""
        return [row for row in self.rows if row.pair.number in self.script.shown]

    def first(self, row: _Row) -> int:
        """The output that was shown first, 1 or 2."""
        return self.script.shown[row.pair.number].first


@contextmanager
def passing_ledger() -> Iterator[Ledger]:
    """A ledger that is gone afterwards."""
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder, "ledger.sqlite"))
        try:
            yield ledger
        finally:
            ledger.close()


def _told_apart(panel: Panel) -> Panel:
    """The panel with each annotator's name for its model, so a request says whom it is for.

    Prices, and tokens to favour or avoid, are those of the model; scripted judges have neither.
    """
    free = {"price_per_1k_tokens": 0.0, "favour": (), "avoid": ()}
    return _with(panel, lambda each: {"model": each.name, **free})


def _with(panel: Panel, changes: Callable[[Annotator], dict[str, object]]) -> Panel:
    return panel.replace(
        annotators=tuple(each.replace(**changes(each)) for each in panel.annotators)
    )


def _run(panel: Panel, pairs: Sequence[Planted], says: Says, ledger: Ledger) -> _Run:
    script = Script(panel, pairs, says)
    return _Run(panel, script, _judged(panel, pairs, script, ledger))


def _judged(panel: Panel, pairs: Sequence[Planted], ask: Ask, ledger: Ledger) -> list[_Row]:
    labels = annotate.judge(table(pairs), panel, ask, ledger).preferences
    columns = labels.select(_Row._fields[1:]).iter_rows()
    return [_Row(pair, *held) for pair, held in zip(pairs, columns, strict=True)]


def _noise(run: _Run) -> _Run:
    """Refuse another share of noise than the panel's, or noise that is more than a coin."""
    panel, noisy = run.panel, [row for row in run.rows if row.is_noisy]
    share = 2 * min(panel.flip, 1 - panel.flip)
    _within(panel, "rows that a coin decides", len(noisy), (len(run.rows), share))
    ones, wrong = sum(row.says(1) for row in noisy), sum(row.says(_worse(row)) for row in noisy)
    _within(panel, "labels of such a coin for output_1", ones, (len(noisy), 0.5))
    _within(panel, "labels of such a coin that are wrong", wrong, (len(noisy), 0.5))
    for row in run.asked():
        if row.is_noisy:
            raise _failure(panel, row.annotator, "a row that a coin decides was asked for", _CODE)
    turned = panel.flip > 0.5
    _recovered(run, lambda row: _worse(row) if turned else row.pair.better)
    return run


def _bought_once(before: _Run, after: _Run) -> None:
    """Refuse a noisy label that passes for an answer, and an answer that is asked for again."""
    noisy = {row.pair.number for row in before.rows if row.is_noisy}
    asked = {row.pair.number for row in after.asked()}
    if kept := len(noisy - asked):
        told = f"without noise {len(noisy)} rows are to be asked for, {kept} were not"
        raise _failure(after.panel, "", told, _CODE)
    if again := len(asked - noisy):
        told = f"{again} rows with an answer in the ledger were asked for again"
        raise _failure(after.panel, "", told, _CODE)


def _recovered(run: _Run, right: Callable[[_Row], int] = lambda row: row.pair.better) -> float:
    """Share of the rows judged so far that say what they should; refused below 99%.

    Rows that a coin decided do not count. Each annotator must get its share of rows, and no batch
    may come back with another number of verdicts.
    """
    judged = [row for row in run.rows if not row.is_noisy]
    for annotator, rows in _by_annotator(run, judged).items():
        good = sum(row.says(right(row)) for row in rows)
        if good < RECOVERED * len(rows):
            told = (
                f"of {len(rows)} planted pairs {good} came back as a scripted judge decided them "
                f"({_statuses(rows)}), expected {RECOVERED:.0%}"
            )
            raise _failure(run.panel, annotator, told, _ANNOTATOR)
        if again := sum(run.script.times[row.pair.number] > 1 for row in rows):
            told = f"{again} of {len(rows)} rows were asked for in a batch and again one by one"
            raise _failure(run.panel, annotator, told, _ANNOTATOR)
    return _share(row.says(right(row)) for row in judged)


def _by_annotator(run: _Run, judged: Sequence[_Row]) -> dict[str, list[_Row]]:
    """Rows of each annotator; refuses shares that are no even draw, and a wrong name at a label."""
    held: dict[str, list[_Row]] = defaultdict(list)
    for row in judged:
        held[row.annotator].append(row)
    for row in run.asked():
        asked = run.script.shown[row.pair.number].annotator
        if asked != row.annotator:
            told = f"a label has this name and {asked} was asked"
            raise _failure(run.panel, row.annotator, told, _CODE)
    for each in run.panel.annotators:
        found = (len(judged), 1 / len(run.panel.annotators))
        _within(run.panel, f"rows drawn for {each.name}", len(held[each.name]), found)
    return held


def _kept_apart(panel: Panel, pairs: Sequence[Planted], ledger: Ledger) -> None:
    """Refuse an answer in the ledger that passes for that of another prompt, model or sampling."""
    others: dict[str, Callable[[Annotator], dict[str, object]]] = {
        "prompt": lambda each: {
            field: getattr(each, field).replace("{instruction}", "(again) {instruction}")
            for field in ("prompt", "prompt_with_input")
        },
        "model": lambda each: {"model": f"{each.model} again"},
        "temperature": lambda each: {"temperature": each.temperature + 0.5},
        "max_tokens": lambda each: {"max_tokens": each.max_tokens + 1},
    }
    for name, changes in others.items():
        run = _run(_with(panel, changes), pairs, contrary, ledger)
        fresh = sum(row.says(_worse(row)) for row in run.asked())
        if fresh < len(pairs):
            told = f"with another {name} {fresh} of {len(pairs)} rows got an answer of their own"
            raise _failure(panel, "", told, _CODE)


def _nothing_of_failures(panel: Panel, pairs: Sequence[Planted], ledger: Ledger) -> None:
    """Refuse a label, or a record, of a call that failed."""
    rows = _judged(panel, pairs, out_of_order, ledger)
    kept = ledger.counts()
    if kept.rows or kept.calls:
        told = f"{kept.calls} failed calls about {kept.rows} rows are in the ledger, expected none"
        raise _failure(panel, "", told, _CODE)
    for row in rows:
        if row.preference is not None or row.status != "failed":
            told = f"a failed call became {row.preference} with status {row.status}"
            raise _failure(panel, row.annotator, told, _CODE)


def _order(run: _Run) -> float:
    """Share of output_1 in the labels of the judge that names the first; refused beyond chance."""
    for row in run.rows:
        if row.is_switched != (run.first(row) == 2):
            told = f"output_{run.first(row)} stands first and is_switched is {row.is_switched}"
            raise _failure(run.panel, row.annotator, told, _ANNOTATOR)
    _recovered(run, run.first)
    ones = sum(row.says(1) for row in run.rows)
    first = {"random": 0.5, "fixed": 1.0, "switched": 0.0}[run.panel.order]
    _within(run.panel, "labels for output_1 by always-first", ones, (len(run.rows), first))
    return ones / len(run.rows)


def _order_bias(run: _Run) -> float:
    """How much more often labels name the output shown first than it is the better one."""
    named = _share(row.says(run.first(row)) for row in run.asked())
    return named - _share(row.pair.better == run.first(row) for row in run.asked())


def _refusals(run: _Run) -> float:
    """Share of refusals counted as such: all, and none with a label."""
    for annotator, rows in _by_annotator(run, run.rows).items():
        good = sum(row.status == "refused" and row.preference is None for row in rows)
        if good < len(rows):
            told = f"of {len(rows)} refusals {good} count as refused ({_statuses(rows)})"
            raise _failure(run.panel, annotator, told, _ANNOTATOR)
    return _share(row.status == "refused" for row in run.rows)


def _tosses(run: _Run) -> float:
    """Share of output_1 in the labels of a coin; refused beyond chance."""
    _recovered(run, lambda row: coin(row.pair, run.first(row)))
    ones = sum(row.says(1) for row in run.rows)
    _within(run.panel, "labels for output_1 by a coin", ones, (len(run.rows), 0.5))
    return ones / len(run.rows)


def _within(panel: Panel, what: str, count: int, drawn: tuple[int, float]) -> None:
    """Refuse a count outside its binomial interval; `drawn` is how many, with which chance."""
    low, high = interval(*drawn)
    if not low <= count <= high:
        told = f"{count} of {drawn[0]} {what}, expected {low} to {high}"
        raise _failure(panel, "", told, _CODE)


def interval(trials: int, chance: float) -> tuple[int, int]:
    """The counts outside which a binomial one falls with a probability of at most `CHANCE`."""
    masses = (
        comb(trials, count) * chance**count * (1 - chance) ** (trials - count)
        for count in range(trials + 1)
    )
    sums = list(accumulate(masses))
    inside = [count for count, held in enumerate(sums) if held > CHANCE / 2]
    return inside[0], next(count for count in inside if sums[count] >= 1 - CHANCE / 2)


def _worse(row: _Row) -> int:
    return 3 - row.pair.better


def _share(held: Iterable[bool]) -> float:
    listed = list(held)
    return sum(listed) / len(listed) if listed else 0.0


def _statuses(rows: Sequence[_Row]) -> str:
    """How many rows have which status, in words."""
    found = [row.status for row in rows]
    return ", ".join(f"{found.count(each)} {each}" for each in sorted(set(found)))


def _failure(panel: Panel, annotator: str, told: str, mend: str) -> JudgeFailed:
    who = f"panel {panel.name}" + (f", annotator {annotator}" if annotator else "")
    return JudgeFailed(f"{who} failed its self-test: {told}; {mend}; nothing was bought")
