"""Tables that nobody has made yet, imagined well enough to count and to price.

One function a stage that can be told ahead: it takes the stage's arguments by name, tables as their
rows. Answers are as long as the demonstrations, which is enough to draw judges and count tokens.
"""

from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import polars as pl

from alpacafarm_core import sources
from alpacafarm_core.annotate import outstanding, pair
from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.estimate import Estimate, estimated
from alpacafarm_core.interactions import Guidance
from alpacafarm_core.interactions import guided as shown
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.mixture import Mixture, mixed
from alpacafarm_core.panel import Panel
from alpacafarm_core.responders import Drawing, Seat, drawn, gathered
from alpacafarm_core.select import shared
from alpacafarm_core.settings import Sampling
from alpacafarm_core.setup import Source

TYPICAL = 500
"""Demonstrations whose lengths stand for those of answers nobody has drawn yet."""


class Imagining:
    """What is known of a source without making anything."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def answers(self, prompts: pl.DataFrame, number: int) -> pl.DataFrame:
        """A row each answer, `number` to a prompt; demonstrations stand for what is answered."""
        typical = sources.demonstrations(self.source, TYPICAL)["output"].to_list()
        drawn = prompts.with_columns(sample_index=pl.lit(list(range(number)))).explode(
            "sample_index"
        )
        # Told apart, because equal outputs are a tie that nobody is asked about.
        texts = [f"{text} {n}" for n, text in enumerate(islice(cycle(typical), drawn.height))]
        return pl.DataFrame(
            [
                drawn[name].cast(kind)
                if name in drawn.columns
                else pl.Series(name, texts, dtype=kind)
                if name == "output"
                else pl.Series(name, [None] * drawn.height, dtype=kind)
                for name, kind in Candidates.columns.items()
            ]
        )


def _shared(_: Imagining, number: int, of: int, **tables: pl.DataFrame) -> pl.DataFrame:
    (rows,) = tables.values()
    return shared(rows, number, of)


def _mixed(
    _: Imagining, instructions: pl.DataFrame, source: Source, mixture: Mixture
) -> pl.DataFrame:
    return mixed(
        instructions, sources.instructions(source, "eval", mixture.evaluated), mixture
    ).rows


def _gathered(
    imagining: Imagining, instructions: pl.DataFrame, drawing: Drawing, answers: object
) -> pl.DataFrame:
    asked = [drawn(instructions, drawing, Seat(name=name)) for name in drawing.responders]
    return gathered(instructions, drawing, [imagining.answers(prompts, 1) for prompts in asked])


def _guided(_: Imagining, interactions: pl.DataFrame, guidance: Guidance) -> pl.DataFrame:
    return shown(interactions, guidance)


def _generated(
    imagining: Imagining, policy: object, instructions: pl.DataFrame, sampling: Sampling
) -> pl.DataFrame:
    return imagining.answers(instructions, sampling.n)


def _annotated(
    _: Imagining, candidates: pl.DataFrame, rivals: pl.DataFrame, panel: Panel
) -> pl.DataFrame:
    return pair(candidates, rivals)


def _labels_bought(rows: pl.DataFrame, asked: dict[str, Any], ledger: Ledger) -> Estimate:
    return estimated(outstanding(rows, asked["panel"], ledger))


TABLES: dict[str, Callable[..., pl.DataFrame]] = {
    "instructions": lambda _, **asked: sources.instructions(**asked),
    "demonstrations": lambda _, **asked: sources.demonstrations(**asked),
    "published": lambda _, **asked: sources.published(**asked),
    "interactions": lambda _, **asked: sources.interactions(**asked),
    "recorded": lambda _, **asked: sources.recorded(**asked),
    "share": _shared,
    "mix": _mixed,
    "draw": lambda _, instructions, drawing, seat: drawn(instructions, drawing, seat),
    "write": lambda imagining, prompts, **asked: imagining.answers(prompts, 1),
    "gather": _gathered,
    "guided": _guided,
    "generate": _generated,
    "annotate": _annotated,
    "score": lambda _, candidates, judge: candidates,
    "prefer": lambda _, chosen, rejected: rejected,
}
"""The rows of a stage, from its arguments."""

COSTS: dict[str, Callable[[pl.DataFrame, dict[str, Any], Ledger], Estimate]] = {
    "annotate": _labels_bought,
}
"""What the rows of a stage would cost, from the rows and its arguments."""
