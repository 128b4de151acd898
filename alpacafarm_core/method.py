"""Method: frozen settings with one verb."""

from collections.abc import Mapping
from typing import ClassVar, Self

from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.settings import Scale
from alpacafarm_core.values import Value
from alpacafarm_core.weights import Policy


class Method(Value):
    """A way from the start to a policy; the defaults of a subclass are its paper's."""

    name: str

    sources: ClassVar[Mapping[str, str]] = {}
    """Where each default is from, by setting; a group of settings may stand for all of its own."""

    @classmethod
    def at(cls, scale: Scale) -> Self:
        """The settings for a scale: the paper's at "paper", the world's tiny model below it."""
        raise NotImplementedError

    def optimise(self, farm: Farm, start: Start) -> Policy:
        """The algorithm, with the farm's verbs for steps."""
        raise NotImplementedError
