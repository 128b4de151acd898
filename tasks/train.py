"""Weights."""

from alpacafarm_core.artifacts import Demonstrations, Instructions, Preferences
from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import Objective, ProximalObjective
from alpacafarm_core.settings import Fitting
from alpacafarm_core.store import Made
from alpacafarm_core.weights import Policy, RewardModel
from tasks.stage import stage, store


@stage(RewardModel, version=1)
def fit_reward(policy: Policy, preferences: Preferences, fitting: Fitting) -> Made:
    """Fit a Bradley-Terry reward model to labelled pairs."""
    from alpacafarm_core.reward import fit

    out = store().scratch()
    rows = store().read(preferences)
    return Made(out, fit(store().path(policy), out, rows, fitting, Machine.here()))


@stage(Policy, version=1)
def train(
    policy: Policy,
    data: Demonstrations | Preferences,
    objective: Objective,
    reference: Policy | None = None,
) -> Made:
    """Train a policy on fixed data."""
    from alpacafarm_core.train.offline import train as core

    out = store().scratch()
    against = store().path(reference or policy)
    notes = core(
        (store().path(policy), against), out, store().read(data), objective, Machine.here()
    )
    return Made(out, notes)


@stage(Policy, version=1)
def roll_out(
    policy: Policy,
    reward: RewardModel,
    instructions: Instructions,
    objective: ProximalObjective,
    reference: Policy | None = None,
) -> Made:
    """Train a policy on its own samples."""
    from alpacafarm_core.train.online import roll_out as core

    out = store().scratch()
    raise NotImplementedError
