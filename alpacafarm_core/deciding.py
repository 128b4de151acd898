"""Judging until decided: pairs are bought in growing chunks, and buying stops with the decision.

The order is drawn before the first look, so the labels bought are a sample of all, and the test is
one that may be looked at (see `sequential`). What comes out says how many rows were judged, what is
known of the others, and never passes for an evaluation of every row.
"""

import random
from typing import NamedTuple

import numpy as np
import polars as pl

from alpacafarm_core.annotate import Judged, Spending, judge, outstanding
from alpacafarm_core.comparison import Interval, Numbers
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.llm import Ask
from alpacafarm_core.panel import Panel
from alpacafarm_core.purse import Purse
from alpacafarm_core.sequential import confidence, decided, worst_case
from alpacafarm_core.tally import PROMPT, points

FIRST = 64
VERDICTS = {1: "better", 0: "undecided", -1: "worse"}


class Terms(NamedTuple):
    """What is to be decided: the error rate, the seed of the order, who pays.

    `rival` holds another model's preferences against the same reference; without it the model is
    held against the reference itself, a win rate of one half.
    """

    alpha: float = 0.05
    rival: pl.DataFrame | None = None
    seed: int = 0
    purse: Purse | None = None


USUAL = Terms()


class Decided(NamedTuple):
    """What was bought and what it decided; differences in points, of the win rate.

    `verdict` is better, worse or undecided. `interval` is for prompts like these at large; `likely`
    bounds what all `total` rows would give at the same error rate, `certain` without any error.
    `preferences` has the rows judged and no others, in the order in which they were asked;
    `calls_saved` would have labelled the rest.
    """

    preferences: pl.DataFrame
    verdict: str
    difference: float
    interval: Interval
    likely: Interval
    certain: Interval
    labels: int
    asked: int
    total: int
    calls_saved: int
    spending: Spending

    @property
    def is_stopped(self) -> bool:
        """Whether rows were left unjudged."""
        return self.asked < self.total

    def __str__(self) -> str:
        how = "stopped after" if self.is_stopped else "not stopped:"
        return (
            f"{self.verdict} ({how} {self.asked} of {self.total} rows, {self.labels} labels): "
            f"{self.difference:+.1f} points, {self.interval.low:.1f} to {self.interval.high:.1f}; "
            f"all rows would give {self.likely.low:.1f} to {self.likely.high:.1f}, "
            f"for certain {self.certain.low:.1f} to {self.certain.high:.1f}; "
            f"{self.calls_saved} calls saved"
        )


def judge_until_decided(
    pairs: pl.DataFrame, panel: Panel, ask: Ask, ledger: Ledger, terms: Terms = USUAL
) -> Decided:
    """Label pairs in a random order until it is decided which model is better.

    With a rival only prompts that it was judged on are asked. Rows whose call failed or whose
    answer was no verdict have no value. Raises BadInput where a prompt is repeated or none is left,
    and BudgetReached as `judge` does; the same call then goes on where it stopped.
    """
    drawn = _drawn(_comparable(pairs, terms.rival), terms.seed)
    parts, asked, sign, values = list[Judged](), 0, 0, np.array([])
    while asked < drawn.height and not sign:
        some = drawn[asked : next_look(asked, drawn.height)]
        parts.append(judge(some, panel, ask, ledger, terms.purse))
        asked += some.height
        values = _values(pl.concat(part.preferences for part in parts), terms.rival)
        sign = decided(values, terms.alpha)
    saved = len(outstanding(drawn[asked:], panel, ledger))
    return _summed(parts, values, (asked, drawn.height, saved), terms)


def next_look(asked: int, total: int) -> int:
    """How many rows are asked at the next look: a quarter more, by at least the first chunk."""
    return min(total, asked + max(FIRST, asked // 4))


def _comparable(pairs: pl.DataFrame, rival: pl.DataFrame | None) -> pl.DataFrame:
    """The pairs to ask about, each prompt once."""
    if twice := pairs.height - pairs.unique(PROMPT).height:
        raise BadInput(f"{twice} of {pairs.height} rows repeat a prompt; give each once")
    if rival is not None:
        pairs = pairs.join(points(rival), on=PROMPT, how="semi", maintain_order="left")
    if not pairs.height:
        raise BadInput("no pairs to judge, or none whose prompt the rival was judged on")
    return pairs


def _drawn(pairs: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The pairs in the order in which they are asked."""
    places = list(range(pairs.height))
    random.Random(f"order{seed}").shuffle(places)
    return pairs[places]


def _values(preferences: pl.DataFrame, rival: pl.DataFrame | None) -> Numbers:
    """Values in [-1, 1] in the order asked: the lead on one half doubled, or on the rival."""
    own = points(preferences)
    if rival is None:
        return own["points"].to_numpy() / 50 - 1
    theirs = points(rival).group_by(PROMPT).agg(theirs=pl.col("points").mean())
    both = own.join(theirs, on=PROMPT, maintain_order="left")
    return (both["points"] - both["theirs"]).to_numpy() / 100


def _summed(
    parts: list[Judged], values: Numbers, counts: tuple[int, int, int], terms: Terms
) -> Decided:
    """Everything said once; `counts` are rows asked, all rows and calls saved."""
    asked, total, saved = counts
    unit = 50.0 if terms.rival is None else 100.0
    return Decided(
        preferences=pl.concat(part.preferences for part in parts),
        verdict=VERDICTS[decided(values, terms.alpha)],
        difference=unit * float(values.mean()) if len(values) else 0.0,
        interval=confidence(values, terms.alpha).scaled(unit),
        likely=confidence(values, terms.alpha, total).scaled(unit),
        certain=worst_case(values, total).scaled(unit),
        labels=len(values),
        asked=asked,
        total=total,
        calls_saved=saved,
        spending=_spent([part.spending for part in parts]),
    )


def _spent(each: list[Spending]) -> Spending:
    """All chunks together."""
    sums = [sum(column) for column in zip(*(spent[:5] for spent in each), strict=True)]
    calls, price, bought, known, failed = sums
    complaint = next((spent.complaint for spent in each if spent.complaint), "")
    return Spending(int(calls), price, int(bought), int(known), int(failed), complaint)
