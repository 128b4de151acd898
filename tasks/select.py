"""Rows worth training on."""

import polars as pl

from alpacafarm_core import select as core
from alpacafarm_core.agreeing import acceptance, agreed
from alpacafarm_core.artifacts import (
    Candidates,
    Comparisons,
    Demonstrations,
    Graded,
    Instructions,
    Preferences,
    Ranked,
    Scores,
)
from alpacafarm_core.binarise import Binarisation, binarised, unpaired
from alpacafarm_core.clustering import Agreement
from alpacafarm_core.criticism import imitable
from alpacafarm_core.opposing import Opposing, opposed
from alpacafarm_core.pairs import paired, repeated
from alpacafarm_core.ratings import Critiques, Ratings
from alpacafarm_core.settings import Pairing, Rule
from alpacafarm_core.store import Made
from tasks.stage import stage, store


@stage(Instructions, version=1)
def share(instructions: Instructions, number: int, of: int) -> pl.DataFrame:
    """One of `of` parts of the prompts, none of them in two."""
    return core.shared(store().read(instructions), number, of)


@stage(Preferences, version=1)
def labels(preferences: Preferences, number: int, of: int) -> pl.DataFrame:
    """The labels of one of `of` parts of the prompts, none of them in two."""
    return core.shared(store().read(preferences), number, of)


@stage(Demonstrations, version=1)
def select(scored: Scores | Preferences | Critiques | Ratings, rule: Rule) -> pl.DataFrame:
    """Keep the best answer of each prompt, the preferred one of each pair, or each critique."""
    if rule.keep == "critiques":
        return imitable(store().read(scored))
    return core.select(store().read(scored), rule)


@stage(Graded, version=1)
def grade(preferences: Preferences) -> pl.DataFrame:
    """Tag both answers of each decided pair as the better or the worse one."""
    return core.graded(store().read(preferences))


@stage(Ranked, version=1)
def rank(
    scored: Scores | Comparisons | Ratings,
    ranking: Pairing | Agreement | Binarisation | Opposing,
) -> Made:
    """Pairs of answers to one prompt, by their numbers; pairs in two places are noted.

    Of pairs by agreement are noted, for each dataset, how many prompts gave one, and of pairs by
    ratings how many gave none.
    """
    rows = store().read(scored)
    if isinstance(ranking, Agreement):
        made = agreed(rows, ranking)
        return Made(made, acceptance(rows, made))
    if isinstance(ranking, Opposing):
        return Made(opposed(rows, ranking))
    if isinstance(ranking, Binarisation):
        made = binarised(rows, ranking)
        return Made(made, {"prompts_without_pair": unpaired(rows, made)})
    pairs, twice = paired(rows, ranking), repeated(rows, ranking)
    return Made(pairs, {"repeated": twice} if twice else {})


@stage(Preferences, version=1)
def prefer(chosen: Demonstrations, rejected: Candidates) -> Made:
    """Pair demonstrations with a policy's own answers to the same prompts."""
    return Made(core.prefer_in_parts(store().scan(chosen), store().scan(rejected)))


@stage(Preferences, version=1)
def unite(tables: tuple[Preferences, ...]) -> pl.DataFrame:
    """Tables of pairs one below the other, no label twice."""
    return core.united([store().read(each) for each in tables])
