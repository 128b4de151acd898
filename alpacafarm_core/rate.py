"""Rating: all answers to a prompt together, one call an aspect, and the mean of the marks.

One call for each (prompt, aspect) shows every answer in one random order, which is undone by the
place of each (UltraFeedback, arXiv 2310.01377, section 2.3). Marks of one call are on one scale, so
their mean tells answers apart better than scores of separate calls (section 2.4, and
tests/test_rate.py, which simulates it).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core.annotate import Spending
from alpacafarm_core.assessing import Office, Question, Reply, assess
from alpacafarm_core.assessors import NO_KNOWLEDGE, Assessors
from alpacafarm_core.ledger import Ledger, digest
from alpacafarm_core.llm import Ask
from alpacafarm_core.prompts import merged
from alpacafarm_core.purse import Purse
from alpacafarm_core.ratings import ASPECTS, TYPED, Ratings

PROMPT = ["instruction", "input"]


class Rated(NamedTuple):
    """Rows with what was said of them, and what that cost this time."""

    rows: pl.DataFrame
    spending: Spending


def questions(
    candidates: pl.DataFrame, raters: Assessors, references: pl.DataFrame | None = None
) -> list[Question]:
    """The questions about a table of answers: every aspect of each prompt in turn."""
    return [question for question, _ in _asked(candidates, raters, references)]


def rate(
    candidates: pl.DataFrame,
    raters: Assessors,
    ask: Ask,
    ledger: Ledger,
    purse: Purse | None = None,
    references: pl.DataFrame | None = None,
) -> Rated:
    """Rate answers; columns of `Ratings`, rows in the order of `candidates`.

    `references` are right answers, columns of `Demonstrations`, shown to raters whose sheet has a
    place for knowledge. Raises as `assess`.
    """
    asked = _asked(candidates, raters, references)
    replies, spending = assess(
        [question for question, _ in asked], raters.retries, ask, ledger, purse
    )
    rows: list[dict[str, Any]] = [_unasked() for _ in range(candidates.height)]
    for reply, (_, places) in zip(replies, asked, strict=True):
        _noted(rows, reply, places)
    for row in rows:
        row["fine"] = fine([row[aspect] for aspect in ASPECTS])
        row["prompt_digest"] = digest(*row["prompt_digest"])[:16]
    return Rated(table(Ratings.columns, candidates, rows), spending)


def fine(marks: Sequence[int | None]) -> float | None:
    """The mean of the marks there are; null where there are none.

    >>> fine([2, None, 3, 3])
    2.6666666666666665
    """
    given = [mark for mark in marks if mark is not None]
    return sum(given) / len(given) if given else None


def table(
    columns: Mapping[str, pl.DataType], given: pl.DataFrame, rows: Sequence[Mapping[str, Any]]
) -> pl.DataFrame:
    """Given rows and what was added to each, with these columns; a principle nobody had is ""."""
    if not rows:
        return pl.DataFrame(schema=pl.Schema(columns))
    if "principle" in columns and "principle" not in given.columns:
        given = given.with_columns(principle=pl.lit(""))
    own = [name for name in columns if name in given.columns and name not in rows[0]]
    added = {name: kind for name, kind in columns.items() if name not in own}
    said = pl.DataFrame([{name: row[name] for name in added} for row in rows], schema=added)
    return given.select(own).hstack(said).select(list(columns)).cast(pl.Schema(columns))


def shares(reply: Reply, size: int) -> Iterator[tuple[int, float, float]]:
    """Tokens, US dollars and seconds of a reply that fall to each of so many rows."""
    whole, left = divmod(reply.tokens, size)
    for place in range(size):
        yield whole + (place < left), reply.price / size, reply.seconds / size


def _asked(
    candidates: pl.DataFrame, raters: Assessors, references: pl.DataFrame | None
) -> list[tuple[Question, list[int]]]:
    """Each question with the rows that it is about."""
    office, asked = Office(raters), []
    known = _references(references)
    numbered = candidates.with_row_index("_row")
    for (instruction, text, dataset), rows in numbered.group_by(
        *PROMPT, "dataset", maintain_order=True
    ):
        outputs, places = rows["output"].to_list(), rows["_row"].to_list()
        told = raters.knowledge.get(str(dataset), NO_KNOWLEDGE)
        texts = {
            "instruction": merged(str(instruction), str(text)),
            "knowledge": "\n".join(known.get((str(instruction), str(text)), [])) or told,
        }
        asked += [(office.question(aspect, texts, outputs), places) for aspect in raters.sheets]
    return asked


def _references(references: pl.DataFrame | None) -> dict[tuple[str, str], list[str]]:
    """What is to be said of each prompt whose right answers are known."""
    known: dict[tuple[str, str], list[str]] = {}
    for *prompt, output in () if references is None else references[[*PROMPT, "output"]].rows():
        known.setdefault((prompt[0], prompt[1]), []).append(f"A right answer: {output}")
    return known


def _unasked() -> dict[str, Any]:
    """The columns that rating adds to an answer, before anybody said anything."""
    row: dict[str, Any] = {
        "overall": None,
        "critique": "",
        "repaired": "",
        "judge": "",
        "prompt_digest": [],
        "tokens": 0,
        "price": 0.0,
        "seconds": 0.0,
    }
    for aspect in ASPECTS:
        row |= {aspect: None, f"{aspect}_rationale": None, f"{aspect}_position": None}
        row[f"{aspect}_status"] = "unasked"
        if aspect in TYPED:
            row |= {f"{aspect}_types": None, f"{aspect}_reason": None}
    return row


def _noted(rows: Sequence[dict[str, Any]], reply: Reply, places: Sequence[int]) -> None:
    """Put what a reply says of each answer, and its share of the cost, into its row."""
    aspect, desk = reply.question.desk.name, reply.question.desk
    costs = shares(reply, len(places))
    for place, reading, position, cost in zip(
        places, reply.readings, reply.positions, costs, strict=True
    ):
        row, held = rows[place], reading.held
        row |= {
            aspect: held.get("rating"),
            f"{aspect}_rationale": held.get("rationale"),
            f"{aspect}_status": reading.status,
            f"{aspect}_position": position,
            "judge": desk.assessor.name,
            "prompt_digest": [*row["prompt_digest"], desk.prompt_digest],
            "tokens": row["tokens"] + cost[0],
            "price": row["price"] + cost[1],
            "seconds": row["seconds"] + cost[2],
        }
        if aspect in TYPED:
            row[f"{aspect}_types"] = held.get("types")
            row[f"{aspect}_reason"] = held.get("reason")
