"""The judgement behind a label: the request that was sent, word for word, and what came back.

The request is rendered again from the panel and the rows and held against the digest under which
the ledger has its answer, so what is shown is what was asked; where batch mates are not in the
table any more, it is shown for the row alone and said to be so.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl

from alpacafarm_core.annotate import outstanding
from alpacafarm_core.buying import Row
from alpacafarm_core.ledger import Call, Ledger, Record, call_key
from alpacafarm_core.llm import Request
from alpacafarm_core.panel import Panel


class Judgement(NamedTuple):
    """A call about a row: `position` counts from 0 among the `call.size` rows it was about.

    `is_exact` says that `request` is the one that was answered; else it is about the row alone.
    """

    request: Request
    call: Call
    position: int
    is_exact: bool


def judgement(labels: pl.DataFrame, row: int, panel: Panel, ledger: Ledger) -> Judgement | None:
    """What was asked about a row of `Preferences`, and the answer.

    None where nobody was asked (equal outputs, or a coin) and where the ledger has no answer.
    """
    own = _asked(labels[row : row + 1], panel)
    held = ledger.known(own)
    if not held:
        return None
    key, record = next(iter(held.items()))
    shown = _shown(labels, labels["annotator"][row], panel, ledger, record)
    mates = {**shown, record.position: own[key]}
    rows = [mates[at] for at in range(record.call.size) if at in mates]
    whole = own[key].desk.request([each.example for each in rows])
    if call_key(whole) == record.call.key:
        return Judgement(whole, record.call, record.position, is_exact=True)
    alone = own[key].desk.request([own[key].example])
    return Judgement(alone, record.call, record.position, is_exact=False)


def _asked(pairs: pl.DataFrame, panel: Panel) -> dict[str, Row]:
    """The pairs that a judge is to see, by key."""
    with TemporaryDirectory() as nowhere:
        empty = Ledger(Path(nowhere, "empty.sqlite"))
        batches = outstanding(pairs, panel, empty)
        empty.close()
    return {row.key: row for batch in batches for row in batch.rows}


def _shown(
    labels: pl.DataFrame, annotator: str, panel: Panel, ledger: Ledger, record: Record
) -> dict[int, Row]:
    """The rows of the table that the same call was about, by their position."""
    if record.call.size == 1:
        return {}
    mates = _asked(labels.filter(annotator=annotator), panel)
    held = ledger.known(mates)
    return {
        found.position: mates[key]
        for key, found in held.items()
        if found.call.key == record.call.key
    }
