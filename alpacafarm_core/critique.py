"""Criticism: a tutor's feedback on each answer with an overall score, and the mending of scores.

One call an answer, feedback first and then a score from 1 to 10 (UltraFeedback, arXiv 2310.01377,
section 2.3). The first release of that data had read a 1 as a share of one and written 10, so its
repair distrusts a ten that the marks do not bear out; `repair_of` is that rule.
"""

from collections.abc import Sequence
from typing import Any, Literal

import polars as pl

from alpacafarm_core.assessing import Office, Question, assess
from alpacafarm_core.assessors import Assessors
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.llm import Ask
from alpacafarm_core.prompts import merged
from alpacafarm_core.purse import Purse
from alpacafarm_core.rate import Rated, shares, table
from alpacafarm_core.ratings import TOP, Critiques, Ratings

NOTE = "\n\nWhoever answered had been told: {}"
_SAME = ["instruction", "input", "output", "generator", "sample_index"]


def questions(candidates: pl.DataFrame, critics: Assessors) -> list[Question]:
    """The questions about a table of answers, one each."""
    office = Office(critics)
    return [office.question("critique", texts, [texts["output"]]) for texts in _texts(candidates)]


def criticise(
    candidates: pl.DataFrame,
    critics: Assessors,
    ask: Ask,
    ledger: Ledger,
    purse: Purse | None = None,
) -> Rated:
    """Criticise answers; columns of `Critiques`, rows in the order of `candidates`.

    An answer's `principle`, where there is such a column, is told in a note: its first line, as
    what follows are examples. Raises as `assess`.
    """
    asked = questions(candidates, critics)
    replies, spending = assess(asked, critics.retries, ask, ledger, purse)
    rows = []
    for reply in replies:
        (reading,), ((tokens, price, seconds),) = reply.readings, shares(reply, 1)
        rows.append(
            {
                "critique": reading.held.get("feedback") or "",
                "overall": reading.held.get("overall score") if reading.status == "ok" else None,
                "status": reading.status,
                "judge": reply.question.desk.assessor.name,
                "prompt_digest": reply.question.desk.prompt_digest,
                "tokens": tokens,
                "price": price,
                "seconds": seconds,
            }
        )
    return Rated(table(Critiques.columns, candidates, rows), spending)


def questions_again(candidates: pl.DataFrame, critics: Assessors) -> list[Question]:
    """The second questions about a table of answers, were every score of theirs in doubt."""
    office = Office(critics)
    return [_again(office, texts, "") for texts in _texts(candidates)]


Repair = Literal["kept", "lowered", "asked", "unread"]


def repair_of(overall: int | None, fine: float | None) -> Repair:
    """What to do about an overall score beside the mean of the marks.

    A ten is lowered to 1 where the mean is at most 2, kept above 4, and asked for again between,
    or where there is no mean; any other score is kept.

    >>> [repair_of(10, mean) for mean in (2.0, 2.01, 4.0, 4.01)]
    ['lowered', 'asked', 'asked', 'kept']
    """
    if overall is None:
        return "unread"
    if overall != TOP or (fine is not None and fine > 4):
        return "kept"
    return "lowered" if fine is not None and fine <= 2 else "asked"


def doubtful(
    ratings: pl.DataFrame, critiques: pl.DataFrame, critics: Assessors
) -> list[tuple[Question, int]]:
    """The scores to ask for again, with the rows that they are about.

    Raises BadInput, with the first row, where the tables are not about the same answers.
    """
    _refuse_other_answers(ratings, critiques)
    office, told = Office(critics), _texts(critiques)
    scores = zip(critiques["overall"], ratings["fine"], critiques["critique"], strict=True)
    return [
        (_again(office, told[row], critique), row)
        for row, (overall, fine, critique) in enumerate(scores)
        if repair_of(overall, fine) == "asked"
    ]


def repair(
    ratings: pl.DataFrame,
    critiques: pl.DataFrame,
    critics: Assessors,
    ask: Ask,
    ledger: Ledger,
    purse: Purse | None = None,
) -> Rated:
    """Ratings with critiques and overall scores, mended where a score is not to be believed.

    What the critiques and the second question cost is added to what the ratings did. Raises as
    `assess` and `doubtful`.
    """
    asked = doubtful(ratings, critiques, critics)
    replies, spending = assess([each for each, _ in asked], critics.retries, ask, ledger, purse)
    again = {row: reply for reply, (_, row) in zip(replies, asked, strict=True)}
    rows: list[dict[str, Any]] = []
    both = zip(ratings.iter_rows(named=True), critiques.iter_rows(named=True), strict=True)
    for row, (rated, criticised) in enumerate(both):
        what = repair_of(criticised["overall"], rated["fine"])
        overall = 1 if what == "lowered" else criticised["overall"]
        costs = [criticised[name] for name in ("tokens", "price", "seconds")]
        if row in again:
            overall = again[row].readings[0].held.get("overall score")
            what = what if overall is not None else "unread"
            costs = [sum(pair) for pair in zip(costs, *shares(again[row], 1), strict=True)]
        rows.append(
            {
                "overall": overall,
                "critique": criticised["critique"],
                "repaired": what,
                "tokens": rated["tokens"] + costs[0],
                "price": rated["price"] + costs[1],
                "seconds": rated["seconds"] + costs[2],
            }
        )
    return Rated(table(Ratings.columns, ratings, rows), spending)


def _again(office: Office, texts: dict[str, str], critique: str) -> Question:
    return office.question("repair", texts | {"critique": critique}, [texts["output"]])


def _texts(candidates: pl.DataFrame) -> list[dict[str, str]]:
    """What stands in the places of a critic's sheet, for each answer."""
    has = "principle" in candidates.columns
    principles: Sequence[str] = candidates["principle"].to_list() if has else [""] * len(candidates)
    rows = candidates.select("instruction", "input", "output").iter_rows()
    return [
        {
            "instruction": merged(instruction, text),
            "output": output,
            "principle": NOTE.format(principle.split("\n")[0]) if principle else "",
        }
        for (instruction, text, output), principle in zip(rows, principles, strict=True)
    ]


def _refuse_other_answers(ratings: pl.DataFrame, critiques: pl.DataFrame) -> None:
    if ratings.height == critiques.height:
        odd = [
            row
            for row, (one, other) in enumerate(
                zip(ratings[_SAME].iter_rows(), critiques[_SAME].iter_rows(), strict=True)
            )
            if one != other
        ]
        if not odd:
            return
        where = f"row {odd[0] + 1} is another answer in each"
    else:
        where = f"{ratings.height} ratings and {critiques.height} critiques"
    raise BadInput(
        f"ratings and critiques are not about the same answers ({where}); rate and criticise the "
        "same candidates"
    )
