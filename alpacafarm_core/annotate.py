"""Preferences: pairs of outputs, a panel to judge them, and what the judging cost.

Draws follow AlpacaFarm (arXiv 2305.14387, section 3): an annotator for each prompt, a random order
undone afterwards, a coin in place of some judgements. They are seeded by the row's own text, so a
row keeps its draws whatever stands beside it. The only ways out are `ask` and the ledger.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from alpacafarm_core.artifacts import Preferences
from alpacafarm_core.desk import Desk
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import Call, Ledger, Purchase, Record, answered
from alpacafarm_core.llm import Answer, Ask, Request, arrivals
from alpacafarm_core.panel import Panel
from alpacafarm_core.templates import Example

CHUNK = 256
_PROMPT = ["instruction", "input"]
_SEEN = [*_PROMPT, "output_1", "output_2"]


class Spending(NamedTuple):
    """What one judging bought: calls and US dollars; rows judged from the ledger; rows failed.

    `complaint` is the commonest error of the calls that failed, "" when none did.
    """

    calls: int
    price: float
    rows_from_ledger: int
    rows_failed: int
    complaint: str = ""


class Judged(NamedTuple):
    """Labelled pairs, columns of `Preferences`, and what labelling them cost this time."""

    preferences: pl.DataFrame
    spending: Spending


def pair(candidates: pl.DataFrame, rivals: pl.DataFrame) -> pl.DataFrame:
    """Pairs to judge, one row each, from two tables with the columns of `Candidates`.

    The same table twice pairs samples 0 and 1, 2 and 3, ... of a prompt. Two tables are joined on
    (instruction, input): `candidates` give output_2, the model, and `rivals` output_1, its
    reference.
    """
    if candidates is rivals or candidates.equals(rivals):
        even = pl.col("sample_index") % 2 == 0
        left, right = candidates.filter(even), candidates.filter(~even)
        key = [*_PROMPT, "_pair"]
        left, right = (
            side.with_columns(_pair=pl.col("sample_index") // 2) for side in (left, right)
        )
    else:
        left, right, key = rivals, candidates, _PROMPT
    _refuse_unmatched(left, right, key)
    joined = right.join(left, on=key, how="left", suffix="_left", maintain_order="left")
    # One column names the tokenizer of both: ids of another one are not ids here.
    foreign = pl.col("tokenizer") != pl.col("tokenizer_left")
    return joined.select(
        "instruction",
        "input",
        "dataset",
        output_1="output_left",
        output_2="output",
        output_1_ids=pl.when(foreign).then([]).otherwise("output_ids_left"),
        output_2_ids="output_ids",
        tokenizer="tokenizer",
        generator_1="generator_left",
        generator_2="generator",
    )


def annotate(pairs: pl.DataFrame, panel: Panel, ask: Ask, ledger: Ledger) -> pl.DataFrame:
    """Label pairs; columns of `Preferences`, rows in the order of `pairs`."""
    return judge(pairs, panel, ask, ledger).preferences


def judge(pairs: pl.DataFrame, panel: Panel, ask: Ask, ledger: Ledger) -> Judged:
    """Label pairs and say what it cost.

    Answers are in the ledger before they are read, and a row whose answer is there is not asked
    for again. A batch that came back with a wrong number of verdicts is asked again row by row.
    Rows whose call failed have status failed and no preference; a later run asks for them again.
    """
    desks = _desks(panel)
    rows = [_drawn(row, panel, desks) for row in pairs.select(_SEEN).iter_rows()]
    asked = {row.key: row for row in rows if row.key}
    held = ledger.known(asked)
    missing = [row for key, row in asked.items() if key not in held]
    bought = _buy(_batches(missing), ask, ledger)
    held |= ledger.known(row.key for row in missing)
    again = [row for row in asked.values() if row.key in bought.rejected or _miscounted(row, held)]
    alone = _buy([_Batch(row.desk, (row,)) for row in again], ask, ledger)
    held |= ledger.known(row.key for row in again)
    labels = [_label(row, held, panel.flip > 0.5) for row in rows]
    spending = Spending(
        bought.calls + alone.calls,
        bought.price + alone.price,
        len(asked) - len(missing),
        sum(label.status == "failed" for label in labels),
        _commonest(bought.errors + alone.errors),
    )
    return Judged(_preferences(pairs, labels), spending)


class _Row(NamedTuple):
    """One pair after its draws; `key` is empty when nobody is to be asked."""

    desk: Desk
    example: Example
    key: str
    is_switched: bool
    coin: float | None


class _Batch(NamedTuple):
    """Rows to be shown together."""

    desk: Desk
    rows: tuple[_Row, ...]

    def request(self) -> Request:
        return self.desk.request([row.example for row in self.rows])

    def purchase(self, request: Request, answer: Answer) -> Purchase:
        call = answered(request, answer, len(self.rows), self.desk.price(answer))
        return Purchase(call, tuple(row.key for row in self.rows))


class _Bought(NamedTuple):
    """Calls and US dollars; keys of rows in batches that were rejected as a whole; errors."""

    calls: int
    price: float
    rejected: set[str]
    errors: list[str]


class _Label(NamedTuple):
    """The columns that judging adds to a pair."""

    annotator: str
    preference: float | None
    status: str
    is_switched: bool
    is_noisy: bool
    raw_completion: str | None
    prompt_digest: str
    tokens: int
    price: float
    seconds: float


def _desks(panel: Panel) -> list[tuple[Desk, Desk]]:
    """For each annotator its desk for rows without and with input."""
    return [
        (Desk(each, each.prompt, panel.seed), Desk(each, each.prompt_with_input, panel.seed))
        for each in panel.annotators
    ]


def _drawn(row: tuple[str, ...], panel: Panel, desks: list[tuple[Desk, Desk]]) -> _Row:
    """Draw annotator, coin and order of one pair; texts as in `Example`."""
    instruction, input, output_1, output_2 = row
    prompt, pair = f"{instruction}{input}{panel.seed}", f"{''.join(row)}{panel.seed}"
    desk = random.Random(f"annotator{prompt}").choice(desks)[input != ""]
    if output_1 == output_2:
        return _Row(desk, Example(*row), "", False, None)
    coin = _coin(pair, panel.flip)
    if coin is not None:
        return _Row(desk, Example(*row), "", False, coin)
    switched = panel.order == "random" and _draw(f"is_switched_outputs{pair}") < 0.5
    if switched:
        output_1, output_2 = output_2, output_1
    shown = Example(instruction, input, output_1, output_2)
    return _Row(desk, shown, desk.row_key(shown), switched, None)


def _draw(text: str) -> float:
    """A uniform number in [0, 1) that depends on the text alone."""
    return random.Random(text).random()


def _coin(pair: str, flip: float) -> float | None:
    """1 or 2 by a coin with probability 2 * flip, else None; beyond one half 2 * (1 - flip)."""
    side = min(flip, 1 - flip)
    if side == 0:
        return None
    drawn = _draw(f"noisy_preference{pair}")
    return 1.0 if drawn < side else 2.0 if drawn < 2 * side else None


def _batches(rows: Sequence[_Row]) -> list[_Batch]:
    """Rows of one desk in their order, a batch at a time; the same for the same missing rows."""
    by_desk: dict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        by_desk[id(row.desk)].append(row)
    return [
        _Batch(some[0].desk, tuple(some[start : start + some[0].desk.annotator.batch]))
        for some in by_desk.values()
        for start in range(0, len(some), some[0].desk.annotator.batch)
    ]


def _buy(batches: Sequence[_Batch], ask: Ask, ledger: Ledger) -> _Bought:
    """Ask, and put what was answered in the ledger, a chunk or, from a stream, a call at a time."""
    calls, price, rejected, errors = 0, 0.0, set(), list[str]()
    for start in range(0, len(batches), CHUNK):
        chunk = batches[start : start + CHUNK]
        requests = [batch.request() for batch in chunk]
        for group in arrivals(ask, requests):
            purchases = [
                chunk[index].purchase(requests[index], answer)
                for index, answer in group
                if answer.status == "ok"
            ]
            ledger.append(purchases)
            calls += len(purchases)
            price += sum(purchase.call.price for purchase in purchases)
            rejected |= _rejected(chunk, group)
            errors += [answer.error for _, answer in group if answer.error]
    return _Bought(calls, price, rejected, errors)


def _commonest(errors: Sequence[str]) -> str:
    return max(sorted(set(errors)), key=errors.count, default="")


def _rejected(chunk: Sequence[_Batch], group: Sequence[tuple[int, Answer]]) -> set[str]:
    """Keys of the rows of several that were rejected together: one of them may be at fault."""
    return {
        row.key
        for index, answer in group
        if answer.finish_reason == "rejected" and len(chunk[index].rows) > 1
        for row in chunk[index].rows
    }


def _miscounted(row: _Row, held: Mapping[str, Record]) -> bool:
    """Whether the row's call answered about another number of rows than it was asked about."""
    record = held.get(row.key)
    return record is not None and row.desk.read(record.call) is None


def _label(row: _Row, held: Mapping[str, Record], turned: bool) -> _Label:
    """The label of a row, counted in the order of the pair; `turned` says the opposite."""
    desk = row.desk
    if not row.key:
        status = "tie" if row.coin is None else "ok"
        return _unasked(desk, row.coin or 1.5, status, is_noisy=row.coin is not None)
    record = held.get(row.key)
    verdicts = desk.read(record.call) if record else None
    if record is None or verdicts is None:
        return _unasked(desk, None, "failed", is_noisy=False)
    call, position = record
    verdict = verdicts[position]
    preference = verdict.preference
    if preference is not None and row.is_switched != turned:
        preference = 3 - preference
    return _Label(
        desk.annotator.name,
        preference,
        verdict.status,
        row.is_switched,
        False,
        call.text,
        desk.prompt_digest,
        *_share(call, position),
    )


def _unasked(desk: Desk, preference: float | None, status: str, is_noisy: bool) -> _Label:
    name, prompt = desk.annotator.name, desk.prompt_digest
    return _Label(name, preference, status, False, is_noisy, None, prompt, 0, 0.0, 0.0)


def _share(call: Call, position: int) -> tuple[int, float, float]:
    """Tokens, US dollars and seconds of a call that fall to one row; shares add up to the whole."""
    whole, left = divmod(call.prompt_tokens + call.completion_tokens, call.size)
    return whole + (position < left), call.price / call.size, call.seconds / call.size


def _preferences(pairs: pl.DataFrame, labels: Sequence[_Label]) -> pl.DataFrame:
    """Pairs and labels side by side, columns as declared."""
    schema = {name: Preferences.columns[name] for name in _Label._fields}
    added = pl.DataFrame(labels, schema=schema, orient="row")
    columns = Preferences.columns
    return pairs.hstack(added).select(list(columns)).cast(pl.Schema(columns))


def _refuse_unmatched(left: pl.DataFrame, right: pl.DataFrame, key: Sequence[str]) -> None:
    """Every prompt once on either side, and the same prompts on both."""
    for side in (left, right):
        if twice := side.height - side.unique(key).height:
            raise BadInput(
                f"{twice} of {side.height} rows repeat a prompt (instruction, input); "
                "give one answer for each prompt, or the same table twice to pair its samples"
            )
    alone = [
        side.join(other, on=key, how="anti").height
        for side, other in ((left, right), (right, left))
    ]
    if any(alone):
        raise BadInput(
            f"{alone[0]} of {left.height} rows for output_1 and {alone[1]} of {right.height} for "
            "output_2 stand alone; each prompt (instruction, input) needs both"
        )
