"""Critiques as answers to imitate: the data a critique model learns from.

UltraFeedback (arXiv 2310.01377, section 2.4) trains its UltraCM on every critique it bought: asked
about an instruction and an answer, the model gives the feedback and the score. Frames in, frames
out.
"""

import polars as pl

from alpacafarm_core.artifacts import Demonstrations
from alpacafarm_core.errors import BadInput
from alpacafarm_core.prompts import merged

ASKED = (
    "Read the task and the answer below. Say what is good about the answer and how it could be "
    "better, without giving a better one, and end with a score from 1 to 10."
)


def request(instruction: str, input: str, output: str) -> str:
    """What a critique model is asked about an answer."""
    return f"{ASKED}\n\n### Task\n{merged(instruction, input)}\n\n### Answer\n{output}"


def imitable(critiques: pl.DataFrame) -> pl.DataFrame:
    """A row for each critique that could be read: feedback and score are the answer to imitate.

    Raises BadInput where there is none.
    """
    if not {"critique", "overall"} <= set(critiques.columns):
        raise BadInput(
            f"rows with the columns {', '.join(critiques.columns)} are no critiques; have the "
            "answers criticised first"
        )
    read = critiques.filter(
        pl.col("overall").is_not_null(), pl.col("critique").fill_null("").str.strip_chars() != ""
    )
    if read.is_empty():
        raise BadInput(
            f"none of {critiques.height} critiques has both feedback and score; look at their "
            "status, and have the answers criticised again"
        )
    asked = [request(*row) for row in read.select("instruction", "input", "output").iter_rows()]
    said = read.select("critique", "overall").iter_rows()
    columns: dict[str, pl.Expr | pl.Series] = {
        "instruction": pl.Series(asked, dtype=pl.String),
        "input": pl.lit(""),
        "output": pl.Series([f"{text.strip()}\n\nOverall score: {score}" for text, score in said]),
        "output_ids": pl.lit([], dtype=pl.List(pl.Int32)),
        "tokenizer": pl.lit(""),
    }
    return read.with_columns(**columns).select(list(Demonstrations.columns))
