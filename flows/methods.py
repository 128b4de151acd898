"""A flow for each method, whose form has that method's settings and no other's.

They all are `run`: a form of every method at once is forty tabs wide, and the UI opens it on the
first tab that could hold the values it is given, which need not be theirs.
"""

from typing import Any

from prefect import Flow, flow

from alpacafarm_core.artifacts import Leaderboard
from alpacafarm_core.method import Method
from alpacafarm_core.methods import METHODS
from alpacafarm_core.setup import Setup
from flows.approval import AskAbove
from flows.leaderboard import Dollars, run


def flow_of(kind: type[Method]) -> "Flow[..., Leaderboard]":
    """The flow of one method."""

    def alone(
        method: kind = kind.at("small"),  # type: ignore[valid-type]  # noqa: B008
        setup: Setup = Setup(),  # noqa: B008
        budget: Dollars = None,
        ask_above: AskAbove = None,
    ) -> Leaderboard:
        """Train with one method and rank the policy beside base and SFT.

        Args:
            method: The method's settings, filled in for the built-in world.
            setup: What it begins from. Another scale changes rows and lengths, not the method.
            budget: Judges may cost so many US dollars; the run stops before it would spend more.
            ask_above: Above so many US dollars the run waits for a person who approves its price.
        """
        return run.fn(method, setup, budget, ask_above)

    name: Any = kind.model_fields["name"].default
    alone.__name__ = alone.__qualname__ = name
    return flow(name=run.name, log_prints=True)(alone)


globals().update({name: flow_of(kind) for name, kind in METHODS.items()})
