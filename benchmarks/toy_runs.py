"""One method on the toy: how it is set there, and what came of it in each world."""

from typing import Any, NamedTuple

from torch import Tensor

from alpacafarm_core.method import Method
from alpacafarm_core.methods import METHODS
from alpacafarm_core.settings import Sampling
from benchmarks.toy_farm import Toy, ToyFarm
from benchmarks.toy_training import Stage

SHARES = {
    **dict.fromkeys(("iterative_dpo", "sppo", "curry_dpo"), 1 / 3),
    **dict.fromkeys(("drift", "spin", "selfie"), 1 / 5),
}
"""Share of the toy's steps that each training of a method of several rounds takes."""


class Run(NamedTuple):
    """True reward of the start and of the result in each world, [S], and each training."""

    start: Tensor
    gold: Tensor
    stages: list[Stage]

    @property
    def gain(self) -> Tensor:
        """What was gained in each world, [S]."""
        return self.gold - self.start


def in_toy(name: str, **settings: Any) -> Method:
    """A method as in the built-in world, but for draws, which are at temperature 1 in the toy."""
    method = METHODS[name].at("small")
    fields = {field: getattr(method, field) for field in type(method).model_fields}
    draws = {
        field: held.replace(temperature=1.0, top_p=1.0)
        for field, held in fields.items()
        if isinstance(held, Sampling)
    }
    return method.replace(**(draws | settings))


def aiming(name: str, **changes: Any) -> Method:
    """The same, with changes to its objective."""
    method: Any = in_toy(name)
    aimed: Method = method.replace(objective=method.objective.replace(**changes))
    return aimed


def paced(name: str, toy: Toy) -> Toy:
    """The toy with the steps that each training of this method takes."""
    return toy.replace(steps=round(toy.steps * SHARES.get(name, 1.0)))


def run(method: Method, toy: Toy) -> Run:
    """The method's own file, on worlds that begin alike for every method."""
    farm = ToyFarm(toy)
    start, policy = farm.start, method.optimise(farm, farm.start)
    return Run(farm.gold_of(start.policy), farm.gold_of(policy), farm.stages)
