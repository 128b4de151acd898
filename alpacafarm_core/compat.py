"""AlpacaFarm's own choices, for methods with the setting `compat="alpacafarm"`.

Only where its code differs from this project's defaults by choice. What is a plain bug there is not
reproduced; `docs/compat.md` has the list of both.
"""

from typing import Literal, TypeVar

from alpacafarm_core.conditioning import ConditionedObjective
from alpacafarm_core.proximal import ProximalObjective

Sorted = TypeVar("Sorted", bound=ConditionedObjective)
Compat = Literal["none", "alpacafarm"]

NUCLEUS = 0.9  # the helper that decodes for best-of-n and expert iteration never says otherwise
PER_PROCESS = 64  # rollouts of each of its eight processes, which whiten their own


def nucleus(top_p: float, compat: Compat) -> float:
    """The nucleus of the draws that a reward model chooses among."""
    return top_p if compat == "none" else NUCLEUS


def proximal(objective: ProximalObjective, compat: Compat) -> ProximalObjective:
    """PPO with a clamped KL, no price for unfinished answers, and padding in every mean."""
    if compat == "none":
        return objective
    shaping = objective.shaping.replace(missing_eos=None, over="positions", together=PER_PROCESS)
    return objective.replace(kl=objective.kl.replace(estimator="clamped"), shaping=shaping)


def conditioned(objective: Sorted, compat: Compat) -> Sorted:
    """Quark with no price for unfinished answers, and padding in every mean."""
    if compat == "none":
        return objective
    sorting = objective.sorting.replace(missing_eos=None)
    return objective.replace(sorting=sorting, mean_over="positions")
