"""Method, Setup -> Policy."""

from prefect import flow

from alpacafarm_core.farm import Farm
from alpacafarm_core.methods import AnyMethod
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.setup import Setup
from alpacafarm_core.weights import Policy
from flows.approval import admit
from flows.endings import named_endings
from flows.prepare import FARM, admitted, plan_of, started


def optimised(method: AnyMethod, setup: Setup, farm: Farm = FARM) -> Policy:
    """A policy from one method; steps done before come from the store."""
    return method.seeded(setup.seed).optimise(farm, started(setup, farm))


@flow(log_prints=True)
@named_endings
def optimise(method: AnyMethod = SFT.at("small"), setup: Setup = Setup()) -> Policy:  # noqa: B008
    """Train a policy with one method; stages done before come from the store.

    Args:
        method: The method and its settings.
        setup: What it begins from, and who labels.
    """
    pinned = admitted(setup)
    admit(None, None, lambda: plan_of(pinned, lambda farm: optimised(method, pinned, farm)))
    return optimised(method, pinned)
