"""What an answer says, without how it says it: a form in which answers of one meaning are equal.

Nothing in it tells right from wrong; two answers with the same mistake mean the same.
"""

from functools import lru_cache
from typing import NamedTuple

from alpacafarm_core.world.reading import read
from alpacafarm_core.world.understanding import understand
from alpacafarm_core.world.utility import findings


class Meaning(NamedTuple):
    """The points left out, the items named (in their order where that was asked), and the claims.

    `words` are all words of the answer where it says nothing that the task knows, else empty.
    """

    unsaid: frozenset[frozenset[str]]
    items: tuple[str, ...]
    claims: frozenset[str]
    false: frozenset[tuple[str, str]]
    wrong: frozenset[str]
    words: tuple[str, ...] = ()


NONE = Meaning(frozenset(), (), frozenset(), frozenset(), frozenset())


@lru_cache(maxsize=8192)
def meaning(instruction: str, input: str, output: str) -> Meaning:
    """What an answer to an instruction says; of an instruction not understood, its words."""
    task, found = understand(instruction, input), findings(instruction, input, output)
    if task is None or found is None:
        return NONE._replace(words=read(output).words)
    ordered = found.items if task.needs.sequence else tuple(sorted(found.items))
    claims = found.useful & task.needs.claimable
    said = Meaning(frozenset(found.unsaid), ordered, claims, found.false, found.wrong)
    is_silent = len(found.unsaid) == len(task.needs.points)
    if is_silent and not (said.items or said.claims or said.false or said.wrong):
        return said._replace(words=read(output).words)
    return said
