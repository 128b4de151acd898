"""Team: the processes that train as one.

A cluster may set the variables of a launcher for its own ends, so they count only in a job that was
started for several processes.
"""

import os
from typing import NamedTuple

TOGETHER = "ALPACAFARM_TOGETHER"


class Team(NamedTuple):
    """Which of the processes this one is, from 0, how many there are, and its place on its host."""

    rank: int
    size: int
    local: int = 0

    @classmethod
    def here(cls) -> "Team":
        """As the launcher says; one alone without a launcher."""
        if TOGETHER not in os.environ:
            return cls(0, 1)
        names = ("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")
        return cls(*(int(os.environ.get(name, other)) for name, other in names))

    @property
    def leads(self) -> bool:
        """Whether this process writes what all of them made."""
        return self.rank == 0
