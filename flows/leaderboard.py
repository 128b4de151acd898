"""Methods, Setup -> Leaderboard."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from alpacafarm_core.artifacts import Candidates, Leaderboard
from alpacafarm_core.errors import Missing
from alpacafarm_core.farm import Farm
from alpacafarm_core.method import Method
from alpacafarm_core.methods import METHODS, AnyMethod
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.setup import Setup
from alpacafarm_core.values import Amount
from flows.approval import AskAbove, admit
from flows.endings import named_endings
from flows.evaluate import answered, judged
from flows.prepare import FARM, admitted, based, started
from tasks.tally import publish

Dollars = Annotated[Amount | None, Field(description="What judges may cost, US dollars")]
if TYPE_CHECKING:
    MethodName = str
else:  # a form offers the names; nothing else is taken by it
    MethodName = Literal[tuple(sorted(METHODS))]
DEMO = ("sft", "feedme", "best_of_n", "dpo", "ppo")


def methods_named(names: Sequence[str], setup: Setup) -> list[Method]:
    """Each method with its settings for the setup's scale; raises Missing for an unknown name."""
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise Missing(f"unknown method {unknown[0]!r}; methods are {', '.join(sorted(METHODS))}")
    return [METHODS[name].at(setup.scale) for name in names]


def ranked(methods: Sequence[Method], setup: Setup, farm: Farm = FARM) -> Leaderboard:
    """Base and each method against the reference, paired with SFT.

    Policies are judged in the order of the methods, so that rows which two of them share are always
    bought for the same one, in the same batch, at the same price.
    """
    setup = admitted(setup)
    names = ["base", *(method.name for method in methods)]
    answers = side_by_side([None, *methods], setup, farm)
    rows = {name: judged(each, setup, farm) for name, each in zip(names, answers, strict=True)}
    board = farm.tally(rows)
    publish(board, rows)
    return board


def side_by_side(
    entries: Sequence[Method | None], setup: Setup, farm: Farm
) -> Iterator[Candidates]:
    """The answers of each entry (None is the base), made in threads and given in their order.

    Stages they share are made once, work is queued as jobs. The last entries start first: the
    costliest methods stand last.
    """
    # Made before the race, so that the training all wait for is queued before the base answers.
    based(setup, farm)
    farm.demonstrations(setup.source, setup.sizes.sft)
    threads = ThreadPoolExecutor(len(entries) + 1)

    def begin(function: Callable[..., Any], *arguments: object) -> "Future[Any]":
        return threads.submit(copy_context().run, function, *arguments)

    start = begin(started, setup, farm)

    def answers(method: Method | None) -> Candidates:
        if method is None:
            return answered(based(setup, farm), setup, farm)
        policy = method.seeded(setup.seed).optimise(farm, start.result())
        return answered(policy, setup, farm)

    try:
        begun = [begin(answers, entry) for entry in reversed(entries)]
        for each in reversed(begun):
            # An interrupt may reach another thread, and this one sees it only when it wakes.
            while not each.done():
                wait([each], timeout=1.0)
            yield each.result()
    finally:
        # Nobody waits for the others when one fails or the user interrupts.
        threads.shutdown(wait=False, cancel_futures=True)


@flow(log_prints=True)
@named_endings
def run(
    method: AnyMethod = SFT.at("small"),  # noqa: B008
    setup: Setup = Setup(),  # noqa: B008
    budget: Dollars = None,
    ask_above: AskAbove = None,
) -> Leaderboard:
    """Train with one method and rank the policy beside base and SFT.

    Args:
        method: The method and its settings.
        setup: What it begins from, and who judges.
        budget: Judges may cost so many US dollars; the run stops before it would spend more.
        ask_above: Above so many US dollars the run waits for a person who approves its price.
    """
    methods = beside_sft(method, setup)
    admit(budget, ask_above, lambda: plan_of(methods, setup))
    return ranked(methods, setup)


def beside_sft(method: Method, setup: Setup) -> list[Method]:
    """The method, after SFT unless it is SFT."""
    sft = SFT.at(setup.scale)
    return [method] if method.name == sft.name else [sft, method]


def plan_of(methods: Sequence[Method], setup: Setup) -> dict[str, Any]:
    """The document of `alpacafarm plan` for a race."""
    from flows.planning import planned

    return planned(methods, [setup])


@flow(log_prints=True)
@named_endings
def leaderboard(
    methods: list[MethodName] = list(DEMO),  # noqa: B006
    setup: Setup = Setup(),  # noqa: B008
    budget: Dollars = None,
    ask_above: AskAbove = None,
) -> Leaderboard:
    """Run every method from the same start and rank them against the reference.

    Args:
        methods: Which methods, with their settings for the scale; base and SFT stand beside them.
        setup: What it begins from, and who judges.
        budget: Judges may cost so many US dollars; the run stops before it would spend more.
        ask_above: Above so many US dollars the run waits for a person who approves its price.
    """
    chosen = methods_named(methods, setup)
    admit(budget, ask_above, lambda: plan_of(chosen, setup))
    return ranked(chosen, setup)
