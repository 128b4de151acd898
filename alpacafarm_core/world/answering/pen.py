"""The hand that writes: chance, skill, and the slips that come of too little of it."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple, TypeVar

from alpacafarm_core.world.tasks import Task

T = TypeVar("T")


class Pen(NamedTuple):
    """A source of chance and a skill in [0, 1]; the higher the skill, the fewer the slips."""

    rng: Random
    skill: float

    def slips(self, rate: float) -> bool:
        """Whether an error of this rate (its chance at skill 0) is made."""
        return self.rng.random() < rate * (1.0 - self.skill)

    def pick(self, options: Sequence[T]) -> T:
        """Any of some equally good options."""
        return self.rng.choice(options)

    def some(self, options: Sequence[T], size: int) -> list[T]:
        """Some of the options, as many as there are at most."""
        return self.rng.sample(options, max(0, min(size, len(options))))

    def right(self, right: T, others: Sequence[T], rate: float = 0.35) -> T:
        """The right one, or by a slip any of the others."""
        return self.rng.choice(others) if others and self.slips(rate) else right

    def effort(self, wish: str, most: int = 3) -> int:
        """How much detail to give: what the wish asks for, else more at a higher skill."""
        if wish in ("short", "one", "two", "full"):
            return {"short": 0, "one": 1, "two": 2, "full": most}[wish]
        return sum(self.rng.random() < 0.15 + 0.65 * self.skill for _ in range(most))

    def heeded(self, task: Task) -> str:
        """The wish of a task, unless it is overlooked."""
        return "" if self.slips(0.7) else task.wish

    def amount(self, asked: int) -> int:
        """The number asked for, or by a slip one or two more or less."""
        return max(1, asked + self.rng.choice((-2, -1, -1, 1, 2))) if self.slips(0.45) else asked


def joined(parts: Sequence[str]) -> str:
    """Some words in a row: "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def sentence(text: str, mark: str = ".") -> str:
    """A text with a capital letter and its final mark."""
    return text[:1].upper() + text[1:] + mark


def lines(parts: Sequence[str]) -> list[str]:
    """Some parts as the lines of a list."""
    return [f"- {part}" for part in parts]
