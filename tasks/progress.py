"""Following a training job: on the terminal, on the page of the flow run, and in sinks."""

import base64
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from alpacafarm_core import sinks
from alpacafarm_core.following import Listener, Watch, followed, shown
from alpacafarm_core.plots import STEPS, small
from alpacafarm_core.progress import WATCHER
from alpacafarm_core.train.logbook import Figures
from tasks.previews import takes
from tasks.stage import flow_run, in_flow_run

log = logging.getLogger("alpacafarm.progress")
CHARTED, POINTS = 3, 60
"""Charts on a page, and points of each: a chart of a thousand steps is slow to draw."""


@contextmanager
def following(feed: Path, stage: str, run: str) -> Iterator[None]:
    """Show what a job writes to `feed` while this is open; `run` tells one of a stage from others.

    Raises BadInput when a sink is asked for that is not installed. The feed is gone afterwards.
    """
    listeners: list[Listener] = [shown(stage), *sinks.opened(stage, run)]
    if in_flow_run():
        listeners.append(Page(stage))
    with followed(feed, listeners):
        yield
    feed.unlink(missing_ok=True)


class Page:
    """The progress artifact of a flow run: how much of a stage is done, and its figures."""

    def __init__(self, title: str) -> None:
        from prefect.artifacts import create_progress_artifact

        self._watch = Watch(title)
        self._artifact: Any = create_progress_artifact(0.0, description=title)

    def note(self, entries: Sequence[Figures]) -> None:
        """Percent of the steps done."""
        from prefect.artifacts import update_progress_artifact

        line, last = self._watch.line(entries), entries[-1]
        if "steps" in last:
            done = round(100 * (last["step"] + 1) / last["steps"], 1)
            update_progress_artifact(self._artifact, done, description=line)

    def close(self) -> None:
        """The last figures stay."""


@contextmanager
def counting(stage: str) -> Iterator[None]:
    """Show on the page of a flow run how far what is bought inside has come.

    What is over before the first line of the log has nothing on the page.
    """
    tally = Tally(stage)
    token = WATCHER.set(tally)
    try:
        yield
        tally.close()
    finally:
        WATCHER.reset(token)


class Tally:
    """The progress artifact of a purchase, there from the first line on; a failure ends it."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._artifact: Any = None
        self._is_over = False

    def __call__(self, percent: float, line: str) -> None:
        """Show how much is done, in percent, and the line that says so."""
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if self._is_over:
            return
        said = f"{self._title}: {line}"
        try:
            if self._artifact is None:
                self._artifact = create_progress_artifact(percent, description=said)
            else:
                update_progress_artifact(self._artifact, percent, description=said)
        except Exception as error:  # a page is not worth what is being bought
            self._is_over = True
            log.warning("the page of %s is no longer kept up: %s", self._title, error)

    def close(self) -> None:
        """All calls are back."""
        if self._artifact is not None:
            self(100.0, "all calls are back")


def publish(title: str, history: pl.DataFrame, plot: bytes) -> None:
    """Show the figures of all steps, and their plot while there is room, on a flow run's page."""
    run = flow_run()
    if run is None:
        return
    from prefect.artifacts import create_markdown_artifact

    shown = charts(history)
    picture = f"![steps](data:image/png;base64,{base64.b64encode(small(plot)).decode()})"
    if takes(run, len(picture)):
        shown.append(picture)
    create_markdown_artifact(markdown="\n\n".join(shown), description=f"{title}, step by step")


def charts(history: pl.DataFrame) -> list[str]:
    """The first figures as Mermaid charts: the new UI draws these and leaves pictures out."""
    known = [name for name in STEPS if name in history.columns][:CHARTED]
    some = history.gather_every(-(-history.height // POINTS)) if history.height else history
    return [_chart(STEPS[name], some[name].cast(pl.Float64)) for name in known]


def _chart(title: str, figures: pl.Series) -> str:
    line = ", ".join(f"{figure:.6g}" for figure in figures.drop_nulls().drop_nans())
    return "\n".join(
        ["```mermaid", "xychart-beta", f"  title {json.dumps(title)}", f"  line [{line}]", "```"]
    )
