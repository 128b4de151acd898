"""Conversations in which users said what they thought: as prompts to sample from, and as pairs.

Frames in, frames out. A conversation of several turns is one instruction whose text has the turns
before it between the marks of Alpaca's layout, so that whatever renders a prompt renders it. What a
user said of an answer is shown to the policy that answers again, and never to the one that learns.
"""

import json
import re
from typing import Self

import polars as pl
from pydantic import Field, model_validator

from alpacafarm_core.artifacts import Candidates, Guided, Preferences
from alpacafarm_core.errors import BadInput
from alpacafarm_core.pairs import KNOWN
from alpacafarm_core.prompts import render
from alpacafarm_core.values import Value

DISLIKED = "DSAT"
ANSWER, QUESTION = "\n\n### Response:", "\n\n### Instruction:\n"
_PLACE = re.compile(r"\{(system|prompt|response|feedback|request)\}")


class Guidance(Value):
    """How a policy is shown an answer that was disliked, and why, when it answers again."""

    system: str = Field(
        default="An answer and what its user thought of it follow.\n\n",
        description="Text before everything",
    )
    request: str = Field(
        default="Please improve your answer.", description="What is asked after the feedback"
    )
    layout: str = Field(
        default=f"{{system}}{{prompt}}{{response}}{QUESTION}{{feedback}} {{request}}{ANSWER}",
        description="Order of the parts; {prompt} alone is unguided",
    )
    characters: int = Field(
        default=6000, ge=1, description="Longest guided prompt; the oldest turns go"
    )

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if "{prompt}" not in self.layout:
            raise ValueError("the layout has no {prompt}; say where the question stands")
        return self


def guided(interactions: pl.DataFrame, guidance: Guidance) -> pl.DataFrame:
    """One row for each disliked answer, as Guided: what is trained on, and what is sampled from.

    Raises BadInput where no answer was disliked.
    """
    disliked = _disliked(interactions)
    rows = disliked.to_dicts()
    asked = [conversation(row["history"], row["instruction"]) for row in rows]
    return disliked.with_columns(
        instruction=pl.Series(asked, dtype=pl.String),
        prompt=pl.Series([_shown(row, guidance) for row in rows], dtype=pl.String),
    ).select(list(Guided.columns))


def corrected(interactions: pl.DataFrame, better: pl.DataFrame) -> pl.DataFrame:
    """Fresh answers over the disliked ones they were to improve on, as Preferences.

    `better` has as many answers to each row of `guided` as it says, in its order; raises BadInput
    where it is about others. A copy of the disliked answer is a tie.
    """
    disliked = _asked(_disliked(interactions))
    each = better.height // disliked.height
    rows = disliked.select(pl.all().repeat_by(each).explode())
    if not rows.select("instruction", "input").equals(better.select("instruction", "input")):
        raise BadInput(
            f"{better.height} answers are not to the {disliked.height} disliked ones; generate "
            "them from these interactions"
        )
    sampled = better.select(
        *("output", "output_ids", "tokenizer", "generator"),
    )
    return _over(pl.concat([rows, sampled], how="horizontal"))


def accepted(interactions: pl.DataFrame) -> pl.DataFrame:
    """The answers users went on to accept over those they disliked before, as Preferences."""
    turned = _asked(_disliked(interactions)).filter(pl.col("next_response") != "")
    if turned.is_empty():
        raise BadInput(
            f"none of {interactions.height} turns has a later answer that its user accepted; "
            "give more conversations, with next_response"
        )
    none = pl.lit([], dtype=Candidates.columns["output_ids"])
    known = {"output_ids": none, "tokenizer": pl.lit(""), "generator": pl.lit("accepted")}
    return _over(turned.with_columns(output="next_response", **known))


def conversation(history: str, instruction: str) -> str:
    """An instruction with the turns before it, JSON of messages with role and content.

    >>> conversation('[{"role": "user", "content": "A fruit?"},'
    ...     ' {"role": "assistant", "content": "Plum."}]', "A red one?")
    'A fruit?\\n\\n### Response:Plum.\\n\\n### Instruction:\\nA red one?'
    """
    turns = json.loads(history or "[]")
    marks = {"assistant": (ANSWER, QUESTION)}
    said = [
        f"{before}{turn['content']}{after}"
        for turn in turns
        for before, after in [marks.get(turn["role"], ("", ""))]
    ]
    return "".join([*said, instruction])


def _shown(row: dict[str, str], guidance: Guidance) -> str:
    """The guided prompt, without the oldest turns where it would be too long with them."""
    turns = json.loads(row["history"] or "[]")
    texts = {"system": guidance.system, "request": guidance.request, **row}
    for start in range(0, len(turns) + 1, 2):
        asked = conversation(json.dumps(turns[start:]), row["instruction"])
        texts["prompt"] = render(asked, row["input"])
        shown = _PLACE.sub(lambda match: texts[match.group(1)], guidance.layout)
        if len(shown) <= guidance.characters:
            break
    return shown


def _disliked(interactions: pl.DataFrame) -> pl.DataFrame:
    rows = interactions.filter(pl.col("label") == DISLIKED)
    if rows.is_empty():
        raise BadInput(f"none of {interactions.height} turns is labelled {DISLIKED}; label some")
    return rows


def _asked(rows: pl.DataFrame) -> pl.DataFrame:
    """The instruction of each row with the turns before it."""
    asked = rows.select("history", "instruction").iter_rows()
    return rows.with_columns(instruction=pl.Series([conversation(*row) for row in asked]))


def _over(rows: pl.DataFrame) -> pl.DataFrame:
    """`output` over `response`, the user's words left out."""
    is_copy = pl.col("output") == pl.col("response")
    columns = {
        "output_1": pl.col("output"),
        "output_2": pl.col("response"),
        "output_1_ids": pl.col("output_ids"),
        "output_2_ids": pl.lit([], dtype=Preferences.columns["output_2_ids"]),
        "generator_1": pl.col("generator"),
        "generator_2": pl.lit("disliked"),
        **KNOWN,
        "annotator": pl.lit("user"),
        "preference": pl.when(is_copy).then(1.5).otherwise(1.0),
        "status": pl.when(is_copy).then(pl.lit("tie")).otherwise(pl.lit("ok")),
    }
    made = rows.select("instruction", "input", "dataset", "tokenizer", **columns)
    return made.select(pl.col(name).cast(kind) for name, kind in Preferences.columns.items())
