"""Preferences: pairs of outputs, a panel to judge them, and what the judging cost.

Draws follow AlpacaFarm (arXiv 2305.14387, section 3): an annotator for each prompt, a random order
undone afterwards, a coin in place of some judgements. They are seeded by the row's own text, so a
row keeps its draws whatever stands beside it. The only ways out are `ask` and the ledger.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core.artifacts import Preferences
from alpacafarm_core.buying import Batch, Bought, Row, batches_of, commonest, spend
from alpacafarm_core.desk import Desk
from alpacafarm_core.draws import coin, draws
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import Ledger, Record
from alpacafarm_core.llm import Ask
from alpacafarm_core.panel import Panel
from alpacafarm_core.purse import Purse
from alpacafarm_core.templates import Example

_PROMPT = ["instruction", "input"]
_SEEN = [*_PROMPT, "output_1", "output_2"]


class Spending(NamedTuple):
    """What one judging bought: calls, US dollars and rows; rows from the ledger; rows failed.

    `complaint` is the commonest error of the calls that failed, "" when none did.
    """

    calls: int
    price: float
    rows_bought: int
    rows_from_ledger: int
    rows_failed: int
    complaint: str


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


def outstanding(pairs: pl.DataFrame, panel: Panel, ledger: Ledger) -> list[Batch]:
    """The calls that judging these pairs would buy: nobody is asked for rows of the ledger.

    Those about a row alone come last: its batch came back with a wrong number of verdicts.
    """
    asked = _asked(_kept(pairs, panel)[1])
    held = ledger.known(asked)
    alone = [Batch(row.desk, (row,)) for row in asked.values() if _miscounted(row, held)]
    return [*batches_of([row for key, row in asked.items() if key not in held]), *alone]


def judge(
    pairs: pl.DataFrame, panel: Panel, ask: Ask, ledger: Ledger, purse: Purse | None = None
) -> Judged:
    """Label pairs and say what it cost.

    Answers are in the ledger before they are read, and a row whose answer is there is not asked
    for again, nor one that another process buys meanwhile. A batch that came back with a wrong
    number of verdicts is asked again row by row.
    Rows whose call failed have status failed and no preference; a later run asks for them again.
    Raises BudgetReached before a call that `purse` might not be able to pay.
    """
    pairs, rows = _kept(pairs, panel)
    asked = _asked(rows)
    held = ledger.known(asked)
    wanted = [key for key, row in asked.items() if key not in held or _miscounted(row, held)]
    with ledger.claimed(wanted):
        held |= ledger.known(wanted)
        missing = [row for key, row in asked.items() if key not in held]
        bought = _buy(asked, held, ask, ledger, purse or Purse())
    labels = _paid_once(rows, [_label(row, held, panel) for row in rows])
    spending = Spending(
        bought.calls,
        bought.price,
        sum(row.key in held for row in missing),
        len(asked) - len(missing),
        sum(label.status == "failed" for label in labels),
        commonest(bought.errors),
    )
    return Judged(_preferences(pairs, labels), spending)


def _buy(
    asked: Mapping[str, Row], held: dict[str, Record], ask: Ask, ledger: Ledger, purse: Purse
) -> Bought:
    """Buy what is not held, in batches and then what must be asked alone, and hold it."""
    missing = [row for key, row in asked.items() if key not in held]
    bought = spend(batches_of(missing), ask, ledger, purse)
    held |= ledger.known(row.key for row in missing)
    again = [row for row in asked.values() if row.key in bought.rejected or _miscounted(row, held)]
    alone = spend([Batch(row.desk, (row,)) for row in again], ask, ledger, purse)
    held |= ledger.known(row.key for row in again)
    return bought.and_then(alone)


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


def _rows(pairs: pl.DataFrame, panel: Panel) -> list[Row]:
    desks = _desks(panel)
    return [_drawn(row, panel, desks) for row in pairs.select(_SEEN).iter_rows()]


def kept(pairs: pl.DataFrame, panel: Panel) -> pl.Series:
    """Whether each pair is drawn for an annotator whose rows the panel keeps."""
    names = [each.name for each in panel.annotators]
    drawn = (draws(Example(*row), panel).judge for row in pairs.select(_SEEN).iter_rows())
    flags = [not panel.only or names[judge] in panel.only for judge in drawn]
    return pl.Series(flags, dtype=pl.Boolean)


def _kept(pairs: pl.DataFrame, panel: Panel) -> tuple[pl.DataFrame, list[Row]]:
    """The pairs with their draws, without those drawn for annotators that are left out."""
    if panel.only:
        pairs = pairs.filter(kept(pairs, panel))
    return pairs, _rows(pairs, panel)


def _asked(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows that a judge is to see, each once, by key."""
    return {row.key: row for row in rows if row.key}


def _drawn(row: tuple[str, ...], panel: Panel, desks: list[tuple[Desk, Desk]]) -> Row:
    """Draw annotator, coin and order of one pair; texts as in `Example`."""
    drawn = draws(Example(*row), panel)
    desk = desks[drawn.judge][row[1] != ""]
    given = desk.shown(Example(*row))
    if given.output_1 == given.output_2:
        return Row(desk, given, "", False, None)
    if drawn.coin is not None:
        return Row(desk, given, "", False, drawn.coin)
    shown = given
    if drawn.is_switched:
        shown = given._replace(output_1=given.output_2, output_2=given.output_1)
    return Row(desk, shown, desk.row_key(shown), drawn.is_switched, None)


def _miscounted(row: Row, held: Mapping[str, Record]) -> bool:
    """Whether the row's call answered about another number of rows than it was asked about."""
    record = held.get(row.key)
    return record is not None and row.desk.read(record.call) is None


def _label(row: Row, held: Mapping[str, Record], panel: Panel) -> _Label:
    """The label of a row; a tie stays one, or a coin decides it where the panel says so."""
    label = _said(row, held, turned=panel.flip > 0.5)
    if label.status != "tie" or panel.ties == "keep":
        return label
    side = coin(row.example, panel.seed)
    preference = 3 - side if row.is_switched else side
    return label._replace(preference=preference, status="ok", is_noisy=True)


def _said(row: Row, held: Mapping[str, Record], turned: bool) -> _Label:
    """What was said of a row, counted in the order of the pair; `turned` says the opposite."""
    desk = row.desk
    if not row.key:
        status = "tie" if row.coin is None else "ok"
        return _unasked(desk, row.coin or 1.5, status, is_noisy=row.coin is not None)
    record = held.get(row.key)
    verdicts = desk.read(record.call) if record else None
    if record is None or verdicts is None:
        return _unasked(desk, None, "failed", is_noisy=False)
    call, verdict = record.call, verdicts[record.position]
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
        *_share(record),
    )


def _paid_once(rows: Sequence[Row], labels: Sequence[_Label]) -> list[_Label]:
    """The labels with what an answer cost at the first of the rows that it is about."""
    first: dict[str, int] = {}
    for place, row in enumerate(rows):
        first.setdefault(row.key, place)
    free: dict[str, Any] = {"tokens": 0, "price": 0.0, "seconds": 0.0}
    return [
        label if first[row.key] == place else label._replace(**free)
        for place, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]


def _unasked(desk: Desk, preference: float | None, status: str, is_noisy: bool) -> _Label:
    name, prompt = desk.annotator.name, desk.prompt_digest
    return _Label(name, preference, status, False, is_noisy, None, prompt, 0, 0.0, 0.0)


def _share(record: Record) -> tuple[int, float, float]:
    """Tokens, US dollars and seconds of calls that fall to one row; shares add up to the whole."""
    tokens, price, seconds = 0, 0.0, 0.0
    for call, position, _ in (*record.before, record):
        whole, left = divmod(call.prompt_tokens + call.completion_tokens, call.size)
        tokens += whole + (position < left)
        price, seconds = price + call.price / call.size, seconds + call.seconds / call.size
    return tokens, price, seconds


def _preferences(pairs: pl.DataFrame, labels: Sequence[_Label]) -> pl.DataFrame:
    """Pairs and labels side by side, columns as declared."""
    schema = {name: Preferences.columns[name] for name in _Label._fields}
    added = pl.DataFrame(labels, schema=schema, orient="row")
    columns = Preferences.columns
    return pairs.hstack(added).select(list(columns)).cast(pl.Schema(columns))


def _refuse_unmatched(left: pl.DataFrame, right: pl.DataFrame, key: Sequence[str]) -> None:
    """Every prompt once on either side, the same on both; the error names the first that is not."""
    for side in (left, right):
        twice = side.filter(~pl.struct(key).is_first_distinct())
        if twice.height:
            raise BadInput(
                f"{twice.height} of {side.height} rows repeat a prompt (instruction, input), first "
                f"{_named(twice)}; give one answer for each prompt, or the same table twice to "
                "pair its samples"
            )
    alone = [side.join(other, on=key, how="anti") for side, other in ((left, right), (right, left))]
    if any(side.height for side in alone):
        first = next(_named(side) for side in alone if side.height)
        raise BadInput(
            f"{alone[0].height} of {left.height} rows for output_1 and {alone[1].height} of "
            f"{right.height} for output_2 stand alone, first {first}; each prompt (instruction, "
            "input) needs both"
        )


def _named(rows: pl.DataFrame) -> str:
    """The first row's prompt, short enough for a line."""
    instruction = str(rows["instruction"][0])
    return repr(instruction if len(instruction) <= 60 else instruction[:57] + "...")
