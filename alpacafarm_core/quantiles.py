"""Quantiles of rewards: who is among the best, over all or within each prompt. Pure."""

from collections.abc import Hashable, Sequence


def quantiles(scores: Sequence[float], number: int) -> list[int]:
    """The quantile of each score, 0 being the best; the earlier of equals is the better one.

    All have equally many, and the worst has what is left over besides. AlpacaFarm's Quark.
    """
    size = len(scores) // number
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    found = [number - 1] * len(scores)
    for place, row in enumerate(order[: size * number]):
        found[row] = place // size
    return found


def quantiles_within(
    scores: Sequence[float], prompts: Sequence[Hashable], number: int
) -> list[int]:
    """The same among the answers to each prompt, so that easy prompts do not fill the best one."""
    rows: dict[Hashable, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    found = [0] * len(scores)
    for some in rows.values():
        for row, place in zip(some, quantiles([scores[row] for row in some], number), strict=True):
            found[row] = place
    return found
