"""New data -> the policy that goes on from it, and what changed.

A run looks at all that has landed and at all files that lie where files come in, so events may come
twice, late or not at all: what was made before comes from the store, what was bought from the
ledger, and a run without new rows says so and ends.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

from prefect import flow
from pydantic import Field

import tasks
from alpacafarm_core import landing, watched
from alpacafarm_core.arrivals import How, Incoming, Unusable, Way
from alpacafarm_core.artifacts import Changes, Leaderboard, Preferences
from alpacafarm_core.errors import BadInput, Missing
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.lineage import receipt
from alpacafarm_core.methods import AnyMethod
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.panel import Panel, load
from alpacafarm_core.recipe import plain
from alpacafarm_core.setup import Setup, Source
from alpacafarm_core.store import Manifest
from alpacafarm_core.weights import Policy
from flows.approval import AskAbove, admit
from flows.endings import named_endings
from flows.evaluate import evaluated
from flows.furthering import refuse_unfit
from flows.leaderboard import Dollars
from flows.planning import planned_by
from flows.prepare import admitted, started
from tasks.arrivals import REPORT, changed
from tasks.stage import RUN, in_flow_run, store

KIND = "preferences"
PROJECT = Path(__file__).parents[1]


class Growing(Farm, Protocol):
    """A farm that also takes in pairs."""

    def fresh(
        self, landed: Preferences, before: tuple[Preferences, ...], source: Source
    ) -> Preferences:
        """The pairs of a file that came with no file before it and are not evaluated."""

    def label(self, pairs: Preferences, panel: Panel) -> Preferences:
        """The pairs with the panel's labels where they came without."""


FARM: Growing = tasks
Tables = tuple[Preferences, Preferences, Preferences]
"""Of one file what landed, its fresh pairs and their labels."""


@flow(log_prints=True)
@named_endings
def refresh(
    data: Incoming = Incoming(),  # noqa: B008
    method: AnyMethod = DPO.at("small"),  # noqa: B008
    setup: Setup = Setup(),  # noqa: B008
    how: Annotated[
        How, Field(description="Train on everything again, or further on new rows")
    ] = "again",
    budget: Dollars = None,
    ask_above: AskAbove = None,
) -> Changes | None:
    """Go on from what has landed in a dataset, and say what changed.

    Args:
        data: The dataset, and where its files come in.
        method: The method that learns from it, and its settings.
        setup: What it begins from, who labels and who judges.
        how: Train again on everything, or go on with the new rows alone.
        budget: Judges may cost so many US dollars; the run stops before it would spend more.
        ask_above: Above so many US dollars the run waits for a person who approves its price.
    """
    since = time.time()
    way = Way(dataset=data.name, how=how, method=method, setup=admitted(setup))
    refuse_unfit(way)
    unusable = taken_in(data)
    for each in unusable:
        print(f"not used: {each.why}")
    landed, last = in_order(data.name), last_of(way)
    if not landed:
        print(f"nothing has landed in {data.name}")
        return None
    if last is not None and is_as_it_was(last, landed, unusable):
        publish(f"Nothing new in {data.name} since {last.made}; {last.key} says what changed then.")
        return cast(Changes, last.artifact)
    admit(budget, ask_above, lambda: planned_refresh(way, landed))
    made = refreshed(way, landed, unusable)
    publish(done(since), made)
    return made


def taken_in(data: Incoming) -> tuple[Unusable, ...]:
    """Take every whole file of the place into the store; the files that cannot be used, and why."""
    if not data.folder:
        return ()
    place = watched.place(_where(data.folder))
    try:
        names = watched.whole(place)
    except Missing as error:
        return (Unusable(file=data.folder, why=str(error)),)
    found = []
    for name in names:
        where = place.address(name)
        try:
            with place.fetched(name) as file:
                where = str(file)
                landing.take_in(store(), file, KIND, data.name)
        except BadInput as error:
            # By its name alone: where a copy of it lay is nobody's affair.
            found.append(Unusable(file=name, why=str(error).replace(where, name)))
    return tuple(found)


def _where(folder: str) -> str:
    """A folder that is not below here is meant below the project: runs begin where they please."""
    is_here = folder.startswith(watched.S3) or Path(folder).is_dir()
    return folder if is_here else str(PROJECT / folder)


def in_order(dataset: str) -> list[Preferences]:
    """What has landed, first seen first."""
    return [cast(Preferences, m.artifact) for m in landing.landed(store(), KIND, dataset)]


def refreshed(
    way: Way, landed: Sequence[Preferences], unusable: tuple[Unusable, ...] = ()
) -> Changes:
    """What changed since the last refresh of this way."""
    known = _known_at(last_of(way))
    start = started(way.setup)
    tables = list(labelled(way, start, landed, FARM))
    before = board(way, start, [t for t in tables if t[0] in known], FARM)
    after = board(way, start, tables, FARM)
    return changed(way, tuple(tables), known, unusable, (before, after))


def labelled(
    way: Way, start: Start, landed: Sequence[Preferences], farm: Growing
) -> Iterator[Tables]:
    """The new pairs of each file, labelled."""
    panel = load(way.setup.panel, flip=way.setup.flip, seed=way.setup.seed)
    for number, each in enumerate(landed):
        fresh = farm.fresh(each, (start.preferences, *landed[:number]), way.setup.source)
        yield each, fresh, farm.label(fresh, panel)


def board(way: Way, start: Start, tables: Sequence[Tables], farm: Growing) -> Leaderboard:
    """Base, SFT and the policy that learned from these tables, as `run` ranks them."""
    policy = learned(way, start, [labels for _, _, labels in tables if _teaches(labels)], farm)
    entries = {"base": start.base, "sft": start.policy, way.method.name: policy}
    return farm.tally({name: evaluated(each, way.setup, farm) for name, each in entries.items()})


def learned(way: Way, start: Start, labels: Sequence[Preferences], farm: Farm) -> Policy:
    """From the start with all labels, or from label table to label table, policy after policy."""
    method = way.method.seeded(way.setup.seed)
    if way.how == "again":
        whole = farm.unite((start.preferences, *labels)) if labels else start.preferences
        return method.optimise(farm, start.replace(preferences=whole))
    policy = method.optimise(farm, start)
    for more in labels:
        policy = method.optimise(farm, start.replace(policy=policy, preferences=more))
    return policy


def _teaches(labels: Preferences) -> bool:
    """Whether there is a decided label; of what is not made yet, as in a plan, it is supposed."""
    return not store().has(labels) or store().manifest(labels).notes["decided"] > 0


def last_of(way: Way) -> Manifest | None:
    """The last finished refresh of this way."""
    said = plain(way)
    found = [
        made
        for made in store().all(Changes.kind)
        if made.recipe.stage == changed.name and made.recipe.settings["way"] == said
    ]
    return max(found, key=lambda made: (made.made, len(made.recipe.inputs["landed"])), default=None)


def _known_at(last: Manifest | None) -> tuple[Preferences, ...]:
    """What had landed then, in order."""
    if last is None:
        return ()
    settings = last.recipe.settings["landed"]
    return tuple(cast(Preferences, receipt(tables[0]["artifact"])) for tables in settings)


def is_as_it_was(
    last: Manifest, landed: Sequence[Preferences], unusable: tuple[Unusable, ...]
) -> bool:
    """Whether no file came, was forgotten or mended since a refresh."""
    same = last.recipe.settings["unusable"] == plain(unusable)
    return same and set(_known_at(last)) == set(landed)


def planned_refresh(way: Way, landed: Sequence[Preferences]) -> dict[str, Any]:
    """What a refresh would make, buy and cost; nothing is asked, made or written."""

    def ask(farm: Farm) -> None:
        growing = cast(Growing, farm)
        start = started(way.setup, growing)
        known = _known_at(last_of(way))
        tables = list(labelled(way, start, landed, growing))
        for some in ([t for t in tables if t[0] in known], tables):
            board(way, start, some, growing)

    return planned_by([(way.setup, ask)])


def done(since: float) -> str:
    """How many stages this process made since then, and how many it found made."""
    ran: dict[str, bool] = {}
    for event in store().journal():
        if event.get("run") == RUN and event["at"] >= since:
            ran[event["artifact"]] = ran.get(event["artifact"], False) or event["ran"]
    made = sum(ran.values())
    return f"This run made {made} stages and found {len(ran) - made} made."


def publish(said: str, made: Changes | None = None) -> None:
    """What a run did, and the report where it made one, on the page of a flow run."""
    print(said)
    if not in_flow_run():
        return
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    page = [] if made is None else [(store().path(made) / REPORT).read_text()]
    create_markdown_artifact(
        key="what-changed", markdown="\n\n".join([*page, said]), description="What changed"
    )
    if made is not None:
        rows = store().read(made).to_dicts()
        create_table_artifact(key="what-landed", table=rows, description="File by file")
