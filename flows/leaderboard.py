"""Methods, Setup -> Leaderboard."""

from collections.abc import Sequence

from prefect import flow

from alpacafarm_core.artifacts import Leaderboard
from alpacafarm_core.errors import Missing
from alpacafarm_core.farm import Evaluation, Farm
from alpacafarm_core.method import Method
from alpacafarm_core.methods import METHODS, AnyMethod
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.setup import Setup
from flows.evaluate import evaluated
from flows.prepare import FARM, started
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
    start = started(setup, farm)
    rows: dict[str, Evaluation] = {"base": evaluated(start.base, setup, farm)}
    for method in methods:
        policy = method.seeded(setup.seed).optimise(farm, start)
        rows[method.name] = evaluated(policy, setup, farm)
    board = farm.tally(rows)
    publish(board, rows)
    return board


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
