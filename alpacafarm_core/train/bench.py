"""The bench: one reward model or the members of a committee, loaded, and the one number they give.

On a bench every member is a model of its own, so memory grows with their number; vLLM, which takes
a GPU to itself, is not used for more than one.
"""

from collections.abc import Sequence
from typing import NamedTuple

from alpacafarm_core.committees import Judges, Seats, Verdict, folders_of
from alpacafarm_core.machine import Machine
from alpacafarm_core.train.models import Loaded, load_scorer
from alpacafarm_core.train.readable import scores
from alpacafarm_core.train.tokens import Tokens


class Bench(NamedTuple):
    """Reward models in memory."""

    members: tuple[Loaded, ...]
    verdict: Verdict

    def scores(self, rows: Sequence[Tokens], machine: Machine) -> list[float]:
        """One number for each response."""
        each = [scores(member, rows, machine) for member in self.members]
        if len(each) == 1:
            return each[0]
        return [self.verdict.of(given).score for given in zip(*each, strict=True)]


def seated(judges: Judges, machine: Machine) -> Bench:
    """Load all of them."""
    verdict = judges.verdict if isinstance(judges, Seats) else Verdict()
    return Bench(tuple(load_scorer(each, machine) for each in folders_of(judges)), verdict)
