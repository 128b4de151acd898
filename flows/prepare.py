"""Setup -> Start: instructions, demonstrations, the SFT policy and labelled pairs."""

from collections.abc import Callable
from typing import Any

from prefect import flow

import tasks
from alpacafarm_core import endpoints, places, sinks
from alpacafarm_core.artifacts import Preferences
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.machine import Machine
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.panel import Panel, load
from alpacafarm_core.settings import Sampling
from alpacafarm_core.setup import Setup
from alpacafarm_core.sources import check, pinned, pretrained
from alpacafarm_core.weights import Policy
from flows.approval import admit
from flows.endings import named_endings

FARM: Farm = tasks


def started(setup: Setup, farm: Farm = FARM) -> Start:
    """What every method begins from."""
    panel = load(setup.panel, flip=setup.flip, seed=setup.seed)
    base = based(setup, farm)
    demonstrations = farm.demonstrations(setup.source, setup.sizes.sft)
    policy = farm.train(base, demonstrations, SFT.at(setup.scale).seeded(setup.seed))
    return Start(
        base=base,
        policy=policy,
        demonstrations=demonstrations,
        instructions=farm.instructions(setup.source, "unlabeled", setup.sizes.unlabeled),
        preferences=preferences(setup, policy, panel, farm),
        source=setup.source,
    )


def admitted(setup: Setup) -> Setup:
    """The setup once all it and the environment name is found, with its source at a commit.

    Each flow calls it once, before anything runs; moved data is other data to every key.
    """
    for panel in (setup.panel, setup.judges):
        endpoints.check(load(panel))
    check(setup.source)
    sinks.check()
    places.check()
    Machine.here().check()
    pretrained(setup.base)
    return setup.replace(source=pinned(setup.source))


def based(setup: Setup, farm: Farm = FARM) -> Policy:
    """The language model everything starts from."""
    return farm.base(pretrained(setup.base))


def preferences(setup: Setup, policy: Policy, panel: Panel, farm: Farm = FARM) -> Preferences:
    """Labels somebody recorded, or the panel's on two samples of the policy a prompt."""
    if setup.recorded:
        return farm.recorded(setup.source)
    prompts = farm.instructions(setup.source, "preference", setup.sizes.preference)
    sampling = Sampling(
        n=2,
        temperature=setup.sizes.temperature,
        max_tokens=setup.sizes.max_tokens,
        seed=setup.seed,
    )
    pairs = farm.generate(policy, prompts, sampling)
    return farm.annotate(pairs, pairs, panel)


@flow(log_prints=True)
@named_endings
def prepare(setup: Setup = Setup()) -> Start:  # noqa: B008 (a Value is immutable)
    """Make what every method begins from: an SFT policy and labelled pairs.

    Args:
        setup: Where instructions come from, the model to start with, and who labels.
    """
    pinned = admitted(setup)
    admit(None, None, lambda: plan_of(pinned, lambda farm: started(pinned, farm)))
    return started(pinned)


def plan_of(setup: Setup, ask: Callable[[Farm], object]) -> dict[str, Any]:
    """The document of `alpacafarm plan` for what is asked of a farm."""
    from flows.planning import planned_by

    return planned_by([(setup, ask)])
