"""A leaderboard over several machines: a run for each method, wherever a worker is free.

Nobody hands out the work. Every run asks for its end, and the lock that the store has on each stage
decides who makes it: what another machine makes is waited for, what it did not come to is made
here. So a machine that dies loses nothing but time, and one machine alone finishes too.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from prefect import flow
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from pydantic import Field

from alpacafarm_core.artifacts import Candidates, Leaderboard
from alpacafarm_core.errors import BudgetReached, Missing
from alpacafarm_core.farm import Farm
from alpacafarm_core.method import Method
from alpacafarm_core.methods import AnyMethod
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.setup import File, Setup
from flows.approval import UNKNOWN, AskAbove, admit, threshold
from flows.endings import named_endings
from flows.evaluate import answered
from flows.leaderboard import DEMO, Dollars, methods_named, plan_of, ranked
from flows.optimise import optimised
from flows.prepare import FARM, admitted, started
from tasks.stage import in_flow_run

ENTER = "enter/default"
Begin = Callable[[Method, Setup, float | None], None]


def entered(method: Method, setup: Setup, farm: Farm = FARM) -> Candidates:
    """A method's answers to the evaluation prompts, trained for as far as the store lacks it."""
    return answered(optimised(method, setup, farm), setup, farm)


@flow(log_prints=True)
@named_endings
def enter(
    method: AnyMethod = SFT.at("small"),  # noqa: B008
    setup: Setup = Setup(),  # noqa: B008
    budget: Dollars = None,
) -> Candidates | None:
    """Train with one method and answer the evaluation prompts: its part of a leaderboard.

    Args:
        method: The method and its settings.
        setup: What the experiment begins from.
        budget: What judges may cost here, US dollars; what is left over is left to the leaderboard.
    """
    admit(budget, None, lambda: UNKNOWN)
    try:
        return entered(method, admitted(setup))
    except BudgetReached as reached:
        print(f"{method.name} is left to the leaderboard's own run: {reached}")
        return None


@flow(log_prints=True)
@named_endings
def spread(
    methods: Annotated[list[str], Field(min_length=1, description="Names of methods")] = list(DEMO),  # noqa: B006
    setup: Setup = Setup(),  # noqa: B008
    budget: Dollars = None,
    ask_above: AskAbove = None,
) -> Leaderboard:
    """Rank methods like `leaderboard`, each trained by a run of its own on any worker.

    Args:
        methods: Which methods race.
        setup: What the experiment begins from.
        budget: What judges may cost, US dollars; with a cap only this run itself spends.
        ask_above: Ask before judges may cost more, US dollars; then too only this run spends.
    """
    chosen = methods_named(methods, setup)
    admit(budget, ask_above, lambda: plan_of(chosen, setup))
    is_capped = budget is not None or threshold(ask_above) is not None
    return divided(chosen, setup, 0.0 if is_capped else None, begun)


def divided(
    methods: Sequence[Method],
    setup: Setup,
    allowance: float | None,
    begin: Begin,
    farm: Farm = FARM,
) -> Leaderboard:
    """The board of `ranked`, with a run begun for each method that may spend the allowance.

    Runs are begun first to last and this one works from the last, so that they meet; what all
    start from is made before, as the others could only wait for it. Raises Missing when runs cannot
    be begun.
    """
    pinned = admitted(setup)
    started(pinned, farm)
    for method in methods:
        begin(method, pinned, allowance)
    for method in reversed(methods):
        entered(method, pinned, farm)
    return ranked(methods, pinned, farm)


def begun(method: Method, setup: Setup, allowance: float | None) -> None:
    """Have a worker enter the method; raises Missing when that deployment is not registered.

    A leaderboard that starts again, after its machine died, begins no second run.
    """
    asked = {"method": method.model_dump(mode="json"), "setup": told(setup)}
    try:
        run_deployment(
            ENTER,
            parameters=asked | {"budget": allowance},
            timeout=0,
            flow_run_name=method.name,
            idempotency_key=f"{_run()}-{method.name}",
        )
    except ObjectNotFound as error:
        raise Missing(
            f"no deployment {ENTER!r} on the server; register all with `alpacafarm serve`"
        ) from error


def told(setup: Setup) -> dict[str, Any]:
    """The setup as a run's parameters: with the paths of its files, which no key holds."""
    said = setup.model_dump(mode="json")
    for name, each in setup.source:
        if isinstance(each, File):
            said["source"][name] |= {"path": str(each.path)}
    return said


def _run() -> str:
    """The flow run this is, by which the server tells a second call from a second wish."""
    from prefect.context import FlowRunContext

    assert in_flow_run()
    run = FlowRunContext.get()
    assert run is not None and run.flow_run is not None
    return str(run.flow_run.id)
