"""Tags of prompts: difficulty with intent and knowledge, quality, task and safety.

They are Magpie's (arXiv 2406.08464, section 2.2). One call a sheet, answered in JSON. A prompt
whose answer cannot be read keeps its row, with nulls.
"""

from typing import Any

import polars as pl

from alpacafarm_core.artifacts import Demonstrations
from alpacafarm_core.assessing import Office, Question, assess
from alpacafarm_core.assessors import Assessors
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import Ledger, digest
from alpacafarm_core.llm import Ask
from alpacafarm_core.prompts import merged
from alpacafarm_core.purse import Purse
from alpacafarm_core.rate import Rated, table
from alpacafarm_core.ratings import Tags

COLUMNS = {
    "difficulty": {"intent": "intent", "knowledge": "knowledge", "difficulty": "difficulty"},
    "quality": {"quality": "quality", "explanation": "quality_explanation"},
    "task": {"task": "task", "other tasks": "other_tasks"},
    "safety": {"safety": "safety"},
}
"""For each sheet the columns that its blanks fill."""


def questions(rows: pl.DataFrame, taggers: Assessors) -> list[Question]:
    """The questions about a table of prompts: every sheet of each in turn."""
    office = Office(taggers)
    return [
        office.question(sheet, {"instruction": merged(instruction, text)}, _outputs(sheet, output))
        for instruction, text, output in _with_output(rows)[_TEXTS].iter_rows()
        for sheet in taggers.sheets
    ]


def tag(
    rows: pl.DataFrame,
    taggers: Assessors,
    ask: Ask,
    ledger: Ledger,
    purse: Purse | None = None,
) -> Rated:
    """Tag prompts, or prompts with answers; columns of `Tags`, rows in the order given.

    Raises as `assess`, and BadInput where safety is asked of a row without an answer.
    """
    if "safety" in taggers.sheets and (_with_output(rows)["output"] == "").any():
        raise BadInput(
            f"panel {taggers.name} tags safety, which is that of an answer, and there are rows "
            "without one; tag demonstrations, or take the sheet out"
        )
    asked = questions(rows, taggers)
    replies, spending = assess(asked, taggers.retries, ask, ledger, purse)
    sheets, said = len(taggers.sheets), []
    for start in range(0, len(replies), sheets):
        row: dict[str, Any] = {
            column: None for columns in COLUMNS.values() for column in columns.values()
        }
        some = replies[start : start + sheets]
        for reply in some:
            held = reply.readings[0].held
            row |= {to: held.get(of) for of, to in COLUMNS[reply.question.desk.name].items()}
        faults = [reply.readings[0].status for reply in some]
        said.append(
            row
            | {
                "status": next((each for each in faults if each != "ok"), "ok"),
                "judge": some[0].question.desk.assessor.name,
                "prompt_digest": digest(*(each.question.desk.prompt_digest for each in some))[:16],
                "tokens": sum(each.tokens for each in some),
                "price": sum(each.price for each in some),
                "seconds": sum(each.seconds for each in some),
            }
        )
    return Rated(table(Tags.columns, _with_output(rows), said), spending)


_TEXTS = ["instruction", "input", "output"]


def _outputs(sheet: str, output: str) -> list[str]:
    """The answers that a sheet shows: safety is that of one."""
    return [output] if sheet == "safety" else []


def _with_output(rows: pl.DataFrame) -> pl.DataFrame:
    """Prompts alone as prompts with an empty answer."""
    if "output" in rows.columns:
        return rows
    return rows.select(
        "instruction",
        "input",
        "dataset",
        output=pl.lit(""),
        output_ids=pl.lit([], dtype=Demonstrations.columns["output_ids"]),
        tokenizer=pl.lit(""),
    )
