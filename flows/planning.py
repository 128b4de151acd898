"""A farm that makes nothing: it says what a run would make, buy and cost.

Keys are known before anything is made, so every stage of a flow can be named, and looked for in the
store, ahead. Tables that do not exist yet are imagined with the right prompts and answers as long
as the demonstrations', enough to draw judges and to count tokens.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple, cast

import polars as pl

import tasks
from alpacafarm_core import composing
from alpacafarm_core.artifacts import Artifact, Table
from alpacafarm_core.estimate import Estimate
from alpacafarm_core.farm import Farm
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.method import Method
from alpacafarm_core.places import looked_into, place
from alpacafarm_core.setup import Setup
from alpacafarm_core.store import Store
from flows.imagining import COSTS, TABLES, Imagining
from flows.leaderboard import ranked
from tasks.stage import Stage

ORDER = """
    base instructions mix draw demonstrations published recorded share labels interactions
    guided corrected generate write gather annotate fresh label rate critique repair tag select
    grade rank prefer look train_policy soup fit_reward soup_rewards fit_pairwise roll_out grow
    weigh prune leaves choose score agree penalise residual compare_in_pairs compare_scored
    cluster_told cluster_read unite invent admit neighbours sift keep follow_up collect tally
"""


NOTHING = (None, *Estimate()[1:])


class Line(NamedTuple):
    """One stage of a plan; rows and seconds are None where nothing is known of them."""

    stage: str
    artifact: str
    state: str
    rows: int | None
    calls: int
    tokens: int
    usd_low: float
    usd_high: float
    seconds: float | None


def planned(methods: Sequence[Method], setups: Sequence[Setup]) -> dict[str, Any]:
    """The document of `alpacafarm plan`; nothing is asked, made or written."""
    return planned_by([(setup, partial(ranked, methods, setup)) for setup in setups])


def planned_by(asked: Sequence[tuple[Setup, Callable[[Farm], object]]]) -> dict[str, Any]:
    """The same for whatever asks a farm for its stages, in the setup beside it."""
    with looked_into(place()) as (store, ledger):
        lines = [line for setup, ask in asked for line in _lines(setup, ask, store, ledger)]
    return {
        "stages": [line._asdict() for line in lines],
        "usd_low": sum(line.usd_low for line in lines),
        "usd_high": sum(line.usd_high for line in lines),
        "calls": sum(line.calls for line in lines),
        "tokens": sum(line.tokens for line in lines),
        "seconds": sum(line.seconds or 0.0 for line in lines),
        "unpriced": sorted({line.stage for line in lines if _is_unpriced(line)}),
    }


def _is_unpriced(line: Line) -> bool:
    """Whether the stage will ask judges about nobody knows how many rows yet."""
    return line.state == "to do" and line.rows is None and line.stage in COSTS


def _lines(
    setup: Setup, ask: Callable[[Farm], object], store: Store | None, ledger: Ledger
) -> list[Line]:
    planner = Planner(setup, store, ledger)
    ask(cast(Farm, planner))
    order = ORDER.split()
    return sorted(planner.lines.values(), key=lambda line: (order.index(line.stage), line.artifact))


class Noting:
    """A farm that makes nothing: what it notes of a stage is all that happens.

    It has every verb that the cached farm has; a composed verb asks for its stages here.
    """

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        found = getattr(tasks, verb)
        if isinstance(found, Stage):
            return partial(self._note, found)
        composed: Callable[..., Any] = getattr(composing, verb)
        return partial(composed, self)

    def _note(self, stage: Stage[Any, Any], *asked: Any, **named: Any) -> Artifact:
        """The receipt of a stage."""
        raise NotImplementedError


class Planner(Noting):
    """A farm whose stages return their receipts and note what making them would take."""

    def __init__(self, setup: Setup, store: Store | None, ledger: Ledger) -> None:
        self.store, self.ledger = store, ledger
        self.imagining = Imagining(setup.source)
        self.lines: dict[str, Line] = {}
        self.tables: dict[str, pl.DataFrame] = {}
        self._pace = _pace(store)
        self._one_at_a_time = threading.RLock()

    def _note(self, stage: Stage[Any, Any], *asked: Any, **named: Any) -> Artifact:
        """The receipt of a stage; the first time it is met, also its line."""
        with self._one_at_a_time:
            artifact: Artifact = stage.receipt(*asked, **named)
            if artifact.folder not in self.lines:
                arguments = stage.arguments(*asked, **named)
                self.lines[artifact.folder] = self._line(stage.name, artifact, arguments)
            return artifact

    def _line(self, stage: str, artifact: Artifact, arguments: dict[str, Any]) -> Line:
        if self.store is not None and self.store.has(artifact):
            rows = self.store.manifest(artifact).rows
            return Line(stage, artifact.folder, "cached", rows, 0, 0, 0.0, 0.0, 0.0)
        table = self._imagined(stage, arguments)
        if table is None:
            return Line(stage, artifact.folder, "to do", *NOTHING, self._seconds(stage, None))
        self.tables[artifact.folder] = table
        whole = COSTS[stage](table, arguments, self.ledger) if stage in COSTS else Estimate()
        seconds = self._seconds(stage, table.height)
        return Line(stage, artifact.folder, "to do", table.height, *whole[1:], seconds)

    def _imagined(self, stage: str, arguments: dict[str, Any]) -> pl.DataFrame | None:
        """The rows that the stage would make, where that can be told."""
        if stage not in TABLES:
            return None
        told = {name: self._rows(each) for name, each in arguments.items()}
        if any(arguments[name] is not None and told[name] is None for name in told):
            return None
        return TABLES[stage](self.imagining, **told)

    def _rows(self, given: Any) -> Any:
        """What a table holds, or is imagined to hold; None where unknown; all else as it is."""
        if isinstance(given, tuple):
            return tuple(map(self._rows, given))
        if not isinstance(given, Table):
            return given
        known = self.tables.get(given.folder)
        if known is None and self.store is not None and self.store.has(given):
            return self.store.read(given)
        return known

    def _seconds(self, stage: str, rows: int | None) -> float | None:
        """By how long the same stage took before, for each row where it has rows."""
        known = self._pace.get(stage)
        return None if known is None else round(known * (rows or 1), 1)


def _pace(store: Store | None) -> dict[str, float]:
    """Median seconds of every stage in the store, a row where it has rows."""
    took: dict[str, list[float]] = {}
    for made in () if store is None else store.all():
        took.setdefault(made.recipe.stage, []).append(made.seconds / (made.rows or 1))
    return {stage: median(seconds) for stage, seconds in took.items()}
