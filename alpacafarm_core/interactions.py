"""Conversations in which users said what they thought: as prompts to sample from, and as pairs.

Frames in, frames out. A conversation of several turns is one instruction whose text has the turns
before it between the marks of Alpaca's layout, so that whatever renders a prompt renders it; what
the system said stands first, before an empty line. What a user said of an answer is shown to the
policy that answers again, and never to the one that learns.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import groupby
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
PLACES = ("system", "prompt", "response", "feedback", "request")
_PLACE = re.compile(r"\{(" + "|".join(PLACES) + r")\}")
_NAME_IN_BRACES = re.compile(r"\{\s*[\w.-]+\s*\}")


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
        named = _NAME_IN_BRACES.findall(self.layout)
        if unknown := [each for each in named if not _PLACE.fullmatch(each)]:
            known = ", ".join(f"{{{name}}}" for name in PLACES)
            raise ValueError(f"the layout has {unknown[0]}, which stands for nothing; use {known}")
        return self


def guided(interactions: pl.DataFrame, guidance: Guidance) -> pl.DataFrame:
    """One row for each disliked answer, as Guided: what is trained on, and what is sampled from.

    A prompt of more than `guidance.characters` loses its oldest exchanges, then the end of its
    longest text. Raises BadInput where no answer was disliked, or where nothing fits.
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

    Messages of one role in a row, and what the system said, are parted by an empty line.

    >>> conversation('[{"role": "user", "content": "A fruit?"},'
    ...     ' {"role": "assistant", "content": "Plum."}]', "A red one?")
    'A fruit?\\n\\n### Response:Plum.\\n\\n### Instruction:\\nA red one?'
    """
    return next(_ever_shorter(history, instruction))


def _ever_shorter(history: str, instruction: str) -> Iterator[str]:
    """The conversation whole, then without its oldest exchange, and so on to the question alone."""
    turns = [*json.loads(history or "[]"), {"role": "user", "content": instruction}]
    system = [turn["content"] for turn in turns if turn["role"] == "system"]
    spoken = groupby(
        (turn for turn in turns if turn["role"] != "system"), lambda turn: turn["role"]
    )
    said = [(role, "\n\n".join(turn["content"] for turn in some)) for role, some in spoken]
    texts = [text if role == "user" else f"{ANSWER}{text}{QUESTION}" for role, text in said]
    for start, (role, _) in enumerate(said):
        if start == 0 or role == "user":
            yield "\n\n".join([*system, "".join(texts[start:])])


def _shown(row: Mapping[str, str], guidance: Guidance) -> str:
    """The guided prompt, without the oldest exchanges where it would be too long with them.

    What is too long without any is cut: the longest of question, input, answer and feedback loses
    its end, then the next. Raises BadInput where the rest alone is too long.
    """
    parts = {name: row[name] for name in ("instruction", "input", "response", "feedback")}
    for asked in _ever_shorter(row["history"], row["instruction"]):
        shown = _laid_out(parts | {"instruction": asked}, guidance)
        if len(shown) <= guidance.characters:
            return shown
    return _cut(parts | {"instruction": asked}, guidance)


def _cut(parts: dict[str, str], guidance: Guidance) -> str:
    """The parts laid out in as many characters as there may be, the longest cut first."""
    for name, text in sorted(parts.items(), key=lambda part: len(part[1]), reverse=True):
        over = len(_laid_out(parts, guidance)) - guidance.characters
        if over > 0:
            parts = parts | {name: text[: max(0, len(text) - over)]}
    shown = _laid_out(parts, guidance)
    if len(shown) > guidance.characters:
        raise BadInput(
            f"an empty guided prompt has {len(shown)} characters and may have "
            f"{guidance.characters}; raise guidance.characters"
        )
    return shown


def _laid_out(parts: Mapping[str, str], guidance: Guidance) -> str:
    prompt = render(parts["instruction"], parts["input"])
    texts = {"system": guidance.system, "request": guidance.request, "prompt": prompt, **parts}
    return _PLACE.sub(lambda match: texts[match.group(1)], guidance.layout)


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
