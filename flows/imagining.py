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
from alpacafarm_core.arrivals import fresh, unjudged
from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.assessing import Question
from alpacafarm_core.assessing import outstanding as not_yet_asked
from alpacafarm_core.assessors import Assessors
from alpacafarm_core.critique import questions as criticised
from alpacafarm_core.critique import questions_again as criticised_again
from alpacafarm_core.estimate import Estimate, estimated
from alpacafarm_core.interactions import Guidance
from alpacafarm_core.interactions import guided as shown
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.mixture import Mixture, mixed
from alpacafarm_core.panel import Panel
from alpacafarm_core.rate import questions as rated
from alpacafarm_core.responders import Drawing, Seat, drawn, gathered
from alpacafarm_core.select import shared
from alpacafarm_core.settings import Sampling
from alpacafarm_core.setup import Source
from alpacafarm_core.synthesis import Drafts, Inventing
from alpacafarm_core.tag import questions as tagged

MOST = 100_000
"""Instructions imagined; of more, a plan says nothing instead of taking minutes."""

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

    def drafts(self, number: int) -> pl.DataFrame:
        """So many instructions nobody has drawn yet, as long as the source's own."""
        typical = sources.demonstrations(self.source, TYPICAL)["instruction"].to_list()
        texts = [f"{text} {n}" for n, text in enumerate(islice(cycle(typical), number))]
        told = pl.DataFrame({"instruction": texts, "asked": texts, "prompt": texts})
        blank = {name: pl.lit(None, kind) for name, kind in Drafts.columns.items()}
        return told.with_columns(
            **{name: null for name, null in blank.items() if name not in told.columns}
        ).with_columns(input=pl.lit(""), dataset=pl.lit(""), history=pl.lit("[]"))


def _invented(imagining: Imagining, policy: object, inventing: Inventing) -> pl.DataFrame | None:
    """Every draw as if it could be used; unknown where there are too many to count tokens of."""
    wanted = sum(shard.count for shard in inventing.shards)
    return imagining.drafts(wanted) if wanted <= MOST else None


def _fresh(
    _: Imagining, landed: pl.DataFrame, before: tuple[pl.DataFrame, ...], source: Source
) -> pl.DataFrame:
    unlabelled = [rows.with_columns(preference=pl.lit(None, pl.Float64)) for rows in before]
    return fresh(landed, unlabelled, source).rows


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


def _grown(
    imagining: Imagining, policy: object, instructions: pl.DataFrame, sampling: Sampling, **_: Any
) -> pl.DataFrame:
    return imagining.answers(instructions, sampling.n)


def _annotated(
    _: Imagining, candidates: pl.DataFrame, rivals: pl.DataFrame, panel: Panel
) -> pl.DataFrame:
    return pair(candidates, rivals)


def _labels_bought(rows: pl.DataFrame, asked: dict[str, Any], ledger: Ledger) -> Estimate:
    return estimated(outstanding(rows, asked["panel"], ledger))


def _asked(
    questions: Callable[[pl.DataFrame, Assessors], list[Question]],
    rows: pl.DataFrame,
    panel: Assessors,
    ledger: Ledger,
) -> Estimate:
    return estimated(not_yet_asked(questions(rows, panel), panel.retries, ledger))


def _asked_again(rows: pl.DataFrame, asked: dict[str, Any], ledger: Ledger) -> Estimate:
    """Between no score that is doubted and all of them: which, the critiques will tell."""
    whole = _asked(criticised_again, rows, asked["critics"], ledger)
    return Estimate(usd_high=whole.usd_high)


TABLES: dict[str, Callable[..., pl.DataFrame | None]] = {
    "instructions": lambda _, **asked: sources.instructions(**asked),
    "demonstrations": lambda _, **asked: sources.demonstrations(**asked),
    "published": lambda _, **asked: sources.published(**asked),
    "interactions": lambda _, **asked: sources.interactions(**asked),
    "recorded": lambda _, **asked: sources.recorded(**asked),
    "fresh": _fresh,
    "label": lambda _, pairs, panel: pairs,
    "share": _shared,
    "mix": _mixed,
    "draw": lambda _, instructions, drawing, seat: drawn(instructions, drawing, seat),
    "write": lambda imagining, prompts, **asked: imagining.answers(prompts, 1),
    "gather": _gathered,
    "guided": _guided,
    "generate": _generated,
    "grow": _grown,
    "weigh": lambda _, branches, ranker: branches,
    "prune": lambda _, branches, pruning: branches,
    "leaves": lambda _, layers: layers[-1],
    "choose": lambda _, branches, width: branches.filter(pl.col("sample_index") % width == 0),
    "annotate": _annotated,
    "rate": lambda _, candidates, raters, references: candidates,
    "critique": lambda _, candidates, critics: candidates,
    "repair": lambda _, ratings, critiques, critics: ratings,
    "tag": lambda _, prompts, taggers: prompts,
    "score": lambda _, candidates, judge: candidates,
    "penalise": lambda _, scores, penalties: scores,
    "residual": lambda _, scores, seen: scores,
    "invent": _invented,
    "follow_up": lambda _, policy, said, inventing, following: said,
    "admit": lambda _, drafts, source: drafts,
    "neighbours": lambda _, instructions, nearness: instructions,
    "sift": lambda _, invented, filtering, **others: invented.head(
        filtering.longest or invented.height
    ),
    "keep": lambda _, sifted: sifted,
    "collect": lambda _, tables: pl.concat(tables),
    "prefer": lambda _, chosen, rejected: rejected,
}
"""The rows of a stage, from its arguments."""

COSTS: dict[str, Callable[[pl.DataFrame, dict[str, Any], Ledger], Estimate]] = {
    "annotate": _labels_bought,
    "label": lambda rows, asked, ledger: _labels_bought(unjudged(rows), asked, ledger),
    "rate": lambda rows, asked, ledger: _asked(rated, rows, asked["raters"], ledger),
    "critique": lambda rows, asked, ledger: _asked(criticised, rows, asked["critics"], ledger),
    "repair": _asked_again,
    "tag": lambda rows, asked, ledger: _asked(tagged, rows, asked["taggers"], ledger),
}
"""What the rows of a stage would cost, from the rows and its arguments."""
