"""The people of this world: judges with their own weights and their own mistakes."""

from alpacafarm_core.world.tastes import Taste, uniform

_MISTAKES = 0.32


def _person(number: int) -> Taste:
    """A taste around the common one; no two people weigh alike."""

    def around(middle: float, spread: float, what: str) -> float:
        return middle + spread * (2 * uniform("person", str(number), what) - 1)

    return Taste(
        content=around(1.0, 0.3, "content"),
        following=around(1.0, 0.4, "following"),
        form=around(1.0, 0.4, "form"),
        detail=around(1.0, 0.6, "detail"),
        brevity=around(0.9, 0.4, "brevity"),
        first=around(0.01, 0.02, "first"),
        longer=around(0.2, 0.08, "longer"),
        lists=around(0.12, 0.06, "lists"),
        mistakes=around(_MISTAKES, 0.25 * _MISTAKES, "mistakes"),
    )


PEOPLE = {f"world/person-{number}": _person(number) for number in range(1, 17)}
"""Sixteen, as many as annotated for AlpacaFarm."""
