"""Methods, Setup -> Leaderboard."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from prefect import flow

from alpacafarm_core.artifacts import Candidates, Leaderboard
from alpacafarm_core.errors import Missing
from alpacafarm_core.farm import Farm
from alpacafarm_core.method import Method
from alpacafarm_core.methods import METHODS, AnyMethod
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.setup import Setup
from flows.evaluate import answered, judged
from flows.prepare import FARM, based, checked, pinned, started
from tasks.tally import publish

DEMO = ("sft", "feedme", "best_of_n", "dpo", "ppo")


def methods_named(names: Sequence[str], setup: Setup) -> list[Method]:
    """Each method with its settings for the setup's scale; raises Missing for an unknown name."""
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise Missing(f"unknown method {unknown[0]!r}; methods are {', '.join(sorted(METHODS))}")
    return [METHODS[name].at(setup.scale) for name in names]


def ranked(methods: Sequence[Method], setup: Setup, farm: Farm = FARM) -> Leaderboard:
    """Base and each method against the reference, paired with SFT."""
    checked(setup)
    setup = pinned(setup)

    def answers(method: Method | None) -> Candidates:
        if method is None:
            return answered(based(setup, farm), setup, farm)
        policy = method.seeded(setup.seed).optimise(farm, started(setup, farm))
        return answered(policy, setup, farm)

    entries = [None, *methods]
    names = ["base" if method is None else method.name for method in entries]
    made = side_by_side(answers, entries)
    rows = {name: judged(each, setup, farm) for name, each in zip(names, made, strict=True)}
    board = farm.tally(rows)
    publish(board, rows)
    return board


def side_by_side(
    answers: Callable[[Method | None], Candidates], entries: Sequence[Method | None]
) -> Iterator[Candidates]:
    """Each entry in a thread of its own, given in their order as they come.

    Stages they share are made once, work is queued as jobs. The last entries start first: the
    costliest methods stand last. Who takes them one by one and judges them buys rows that two
    entries share always for the same one, in the same batch, at the same price.
    """
    context = copy_context()
    with ThreadPoolExecutor(len(entries)) as threads:
        begun = [threads.submit(context.copy().run, answers, e) for e in reversed(entries)]
        for each in reversed(begun):
            yield each.result()


@flow(log_prints=True)
def run(method: AnyMethod = SFT.at("small"), setup: Setup = Setup()) -> Leaderboard:  # noqa: B008
    """Train with one method and rank the policy beside base and SFT."""
    return ranked(_beside_sft(method, setup), setup)


def _beside_sft(method: Method, setup: Setup) -> list[Method]:
    sft = SFT.at(setup.scale)
    return [method] if method.name == sft.name else [sft, method]


@flow(log_prints=True)
def leaderboard(methods: list[str] = list(DEMO), setup: Setup = Setup()) -> Leaderboard:  # noqa: B006,B008
    """Run every method from the same start and rank them against the reference."""
    return ranked(methods_named(methods, setup), setup)
