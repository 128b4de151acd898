"""A leaderboard over several seeds: the same race again, and errors over seeds and prompts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from pydantic import Field

from alpacafarm_core.artifacts import Leaderboard
from alpacafarm_core.errors import BadInput, Missing
from alpacafarm_core.setup import Setup
from flows.approval import AskAbove, admit, threshold
from flows.endings import named_endings
from flows.leaderboard import DEMO, Dollars, methods_named, ranked
from flows.planning import planned
from flows.racing import over_seeds, with_seeds
from tasks.stage import store

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner

Workers = Literal["here", "ray"]


@task(name="race")
def raced(methods: Sequence[str], setup: Setup) -> Leaderboard:
    """The board of one seed."""
    return ranked(methods_named(methods, setup), setup)


@flow(log_prints=True)
@named_endings
def seeds(
    methods: list[str] = list(DEMO),  # noqa: B006
    setup: Setup = Setup(),  # noqa: B008
    seeds: Annotated[int, Field(ge=2, le=100, description="Seeds, from the setup's on")] = 3,
    workers: Annotated[Workers, Field(description="One after the other, or on Ray")] = "here",
    budget: Dollars = None,
    ask_above: AskAbove = None,
) -> list[Leaderboard]:
    """Race the same methods from several seeds; errors are over seeds and prompts.

    Args:
        methods: Which methods race.
        setup: What the experiment begins from; its seed is the first.
        seeds: How many seeds, counted up from the setup's.
        workers: `here` one seed after the other; `ray` on the processors of a Ray cluster.
        budget: What judges may cost, US dollars, all seeds together.
        ask_above: Ask before judges may cost more, US dollars.
    """
    setups = [setup.replace(seed=setup.seed + more) for more in range(seeds)]
    refuse_loose(workers, budget, threshold(ask_above))
    chosen = methods_named(methods, setup)
    admit(budget, ask_above, lambda: planned(chosen, setups))
    boards = mapped(methods, setups, workers)
    rows = with_seeds(over_seeds([store().read(board) for board in boards]), boards)
    create_table_artifact(
        key="seeds", table=rows.to_dicts(), description=f"Means over {seeds} seeds"
    )
    return boards


def refuse_loose(workers: Workers, *caps: float | None) -> None:
    """Refuse a cap that no single process could hold."""
    if workers == "ray" and any(cap is not None for cap in caps):
        raise BadInput(
            "a cap is held by one process and Ray has many; use workers='here', or leave out "
            "budget, ask_above and ALPACAFARM_ASK_ABOVE"
        )


def mapped(methods: Sequence[str], setups: Sequence[Setup], workers: Workers) -> list[Leaderboard]:
    """A board for each setup, in their order; raises Missing where Ray is not installed."""
    if workers == "here":
        return [raced(methods, setup) for setup in setups]
    with _ray() as runner:
        sent = [runner.submit(raced, {"methods": methods, "setup": setup}) for setup in setups]
        return [each.result() for each in sent]


@contextmanager
def _ray() -> "Iterator[TaskRunner[Any]]":
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise Missing("Ray is not installed; pip install 'alpacafarm[ray]'") from error
    with RayTaskRunner() as runner:
        yield runner
