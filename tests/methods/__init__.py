"""What the test of every method asks: its steps, its defaults and where they are from."""

from collections.abc import Mapping
from typing import Any

from alpacafarm_core.methods import METHODS
from alpacafarm_core.pages import leaves, source_of
from alpacafarm_core.weights import Policy
from tests.paper_farm import START, PaperFarm


def steps_of(name: str, scale: str = "small", **settings: Any) -> list[str]:
    """What a method asks of the farm, in order."""
    farm = PaperFarm()
    method = METHODS[name].at(scale).replace(**settings)
    assert isinstance(method.optimise(farm, START), Policy)
    return farm.asked


def defaults_of(name: str) -> Mapping[str, tuple[Any, str]]:
    """Every setting with a default of the method's own: its value and its source."""
    method = METHODS[name]
    return {
        where: (value, source_of(method, where))
        for where, value, _ in leaves(method.model_validate({}))
    }
