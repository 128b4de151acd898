"""Responders: a pool of models of which a few answer each instruction, each under a principle.

Which of them answer depends on the instruction and the responder's name alone: each has a hash of
the two, and those with the smallest answer. So an instruction keeps its responders whatever stands
beside it, and a new responder takes only the places it wins. Frames in, frames out.
"""

import re
from collections.abc import Sequence
from typing import Self

import polars as pl
from pydantic import Field, model_validator

from alpacafarm_core.artifacts import TEXT, Guided, Pooled
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import digest
from alpacafarm_core.principles import Principles, principle_for
from alpacafarm_core.prompts import merged, render
from alpacafarm_core.select import PROMPT
from alpacafarm_core.values import Value

ALPACA = "{principle}\n\n{prompt}"
_PLACE = re.compile(r"\{(principle|prompt|question)\}")


class Seat(Value):
    """A responder as it is asked: its name, and where its prompt says what."""

    name: str = Field(min_length=1, description="What it is called in tables")
    layout: str = Field(
        default=ALPACA, description="Order of {principle}, and {prompt} or {question}"
    )

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if not {"prompt", "question"} & set(_PLACE.findall(self.layout)):
            raise ValueError(
                "the layout has neither {prompt} nor {question}; say where the instruction stands"
            )
        return self


class Drawing(Value):
    """How many of a pool answer each instruction, and under which principles."""

    responders: tuple[str, ...] = Field(min_length=1, description="Names of the pool")
    each: int = Field(default=4, ge=1, description="Different responders per instruction")
    principles: Principles = Field(default=Principles(), description="What they are told")
    seed: int = Field(default=0, ge=0, description="Seed of who answers")

    @model_validator(mode="after")
    def _are_enough(self) -> Self:
        names = self.responders
        if twice := [name for at, name in enumerate(names) if name in names[:at]]:
            raise ValueError(f"responder {twice[0]!r} is in the pool twice; give each its own name")
        if self.each > len(names):
            raise ValueError(
                f"{self.each} different responders are asked for, and the pool has {len(names)}; "
                f"name more, or lower each to {len(names)}"
            )
        return self

    def chosen(self, prompt: tuple[str, str]) -> tuple[str, ...]:
        """Names of those that answer a prompt (instruction, input), in the order drawn."""
        names = sorted(
            self.responders, key=lambda name: digest("responder", self.seed, *prompt, name)
        )
        return tuple(names[: self.each])


def drawn(instructions: pl.DataFrame, drawing: Drawing, seat: Seat) -> pl.DataFrame:
    """The prompts that one responder answers, as Guided: what it is shown begins with a principle.

    Raises BadInput where the pool has no such responder.
    """
    if seat.name not in drawing.responders:
        raise BadInput(
            f"responder {seat.name!r} is not in the pool of {', '.join(drawing.responders)}; add it"
        )
    rows = _once(instructions)
    prompts = rows.select(PROMPT).iter_rows()
    asked = pl.Series([seat.name in drawing.chosen(prompt) for prompt in prompts], dtype=pl.Boolean)
    mine = rows.filter(asked)
    shown = [_shown(drawing, seat, *row) for row in mine.select(*PROMPT, "dataset").iter_rows()]
    texts = pl.Series("prompt", shown, dtype=pl.String)
    return mine.with_columns(texts).select(list(Guided.columns))


def gathered(
    instructions: pl.DataFrame, drawing: Drawing, answers: Sequence[pl.DataFrame]
) -> pl.DataFrame:
    """Everybody's answers, in the order of the pool's names, as one table of Pooled.

    Rows stand prompt by prompt, answers in the order in which their responders were drawn. Raises
    BadInput, with the responder, where answers are not to the prompts that were drawn for it.
    """
    rows = _once(instructions).with_row_index("row")
    if len(answers) != len(drawing.responders):
        raise BadInput(
            f"{len(answers)} tables of answers for a pool of {len(drawing.responders)}; give one "
            "table for each responder, in the pool's order"
        )
    seats = pl.DataFrame(
        [_seated(drawing, *row) for row in rows.select("row", *PROMPT, "dataset").iter_rows()],
        schema={"row": rows.schema["row"], "responder": pl.List(TEXT), "principle": pl.List(TEXT),
                "principle_kind": pl.List(TEXT), "place": pl.List(pl.Int64)},
        orient="row",
    ).explode("responder", "principle", "principle_kind", "place")  # fmt: skip
    places = rows.select("row", *PROMPT).join(seats, on="row", maintain_order="left_right")
    told = [
        _told(table, name, places.filter(responder=name))
        for name, table in zip(drawing.responders, answers, strict=True)
    ]
    whole = pl.concat(told).sort("row", "place")
    return whole.with_columns(sample_index=pl.col("place")).select(
        pl.col(name).cast(kind) for name, kind in Pooled.columns.items()
    )


def _told(answers: pl.DataFrame, name: str, places: pl.DataFrame) -> pl.DataFrame:
    """One responder's answers with their places; they must be to exactly these prompts."""
    met = answers.join(places, on=PROMPT, maintain_order="left")
    if not met.height == answers.height == places.height:
        raise BadInput(
            f"responder {name!r}: {answers.height} answers, of which {met.height} are to the "
            f"{places.height} prompts drawn for it; generate one answer to each of them"
        )
    return met


def _seated(
    drawing: Drawing, row: int, instruction: str, text: str, source: str
) -> tuple[int, list[str], list[str], list[str], list[int]]:
    """Who answers a prompt, under which principle, in the order drawn."""
    prompt = (instruction, text)
    names = list(drawing.chosen(prompt))
    told = [principle_for(drawing.principles, source, prompt, name) for name in names]
    kinds, texts = [each.name for each in told], [each.text for each in told]
    return row, names, texts, kinds, list(range(len(names)))


def _shown(drawing: Drawing, seat: Seat, instruction: str, text: str, source: str) -> str:
    told = principle_for(drawing.principles, source, (instruction, text), seat.name)
    parts = {
        "principle": told.text,
        "prompt": render(instruction, text),
        "question": merged(instruction, text),
    }
    layout = seat.layout if told.text else seat.layout.replace("{principle}\n\n", "")
    return _PLACE.sub(lambda match: parts[match.group(1)], layout)


def _once(instructions: pl.DataFrame) -> pl.DataFrame:
    """Each prompt once, in the order of the table."""
    return instructions.unique(PROMPT, keep="first", maintain_order=True)
