"""Do the comparisons err as often as they say? Simulated evaluations of 805 prompts.

    python -m benchmarks.error_rates [--repetitions 2000] [--out docs/comparisons-table.md]

Every row of the tables is drawn anew in each repetition: the values of 805 prompts from the shares
given, or several seeds of them. `peeking` is Student's test looked at as often as the sequential
one is, which nobody should do; it stands there to show why the sequential one is needed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alpacafarm_core.comparison import (
    Numbers,
    bootstrap,
    sign_flip,
    standard_error,
    student,
    two_level,
)
from alpacafarm_core.deciding import next_look
from alpacafarm_core.sequential import decision_points
from benchmarks.world_effects import markdown

ALPHA, PROMPTS = 0.05, 805


class Case(NamedTuple):
    """Values of a prompt, -1 to 1, and how often each comes."""

    name: str
    values: Sequence[float]
    shares: Sequence[float]

    def drawn(self, repetitions: int) -> Numbers:
        """Values [repetitions, prompts]."""
        generator = np.random.default_rng(sum(self.name.encode()))
        shape = (repetitions, PROMPTS)
        return generator.choice(np.array(self.values, dtype=float), shape, p=self.shares)

    def mean(self) -> float:
        return round(float(np.dot(self.values, self.shares)), 9)


WIN_OR_LOSS, WITH_TIES, LEAD = (1, -1), (1, 0, -1), (1, 0.5, 0, -0.5, -1)
GRADES = tuple(grade / 10 for grade in range(-10, 11))
NULL = (
    Case("wins and losses, 50%", WIN_OR_LOSS, (0.5, 0.5)),
    Case("wins, losses, 40% ties, 50%", WITH_TIES, (0.3, 0.4, 0.3)),
    Case("two equal models, ties", LEAD, (0.15, 0.05, 0.6, 0.05, 0.15)),
    Case("two equal models that differ on 1%", WITH_TIES, (0.005, 0.99, 0.005)),
    Case("graded, 50%", GRADES, (1 / 21,) * 21),
    Case("small losses, rarer large wins, 50%", (1, 0, -0.5), (0.15, 0.55, 0.3)),
)
CLEAR = (
    Case("win rate 60%", WIN_OR_LOSS, (0.6, 0.4)),
    Case("win rate 65%, 20% ties", WITH_TIES, (0.55, 0.2, 0.25)),
    Case("10 points between two models", LEAD, (0.2, 0.1, 0.5, 0.1, 0.1)),
    Case(
        "win rate 60%, graded", GRADES, (0.0485 - 1 / 55,) * 10 + (0.03,) + (0.0485 + 1 / 55,) * 10
    ),
)
SUBTLE = (
    Case("win rate 52.5%", WIN_OR_LOSS, (0.525, 0.475)),
    Case("win rate 55%", WIN_OR_LOSS, (0.55, 0.45)),
    Case("5 points between two models", LEAD, (0.175, 0.1, 0.5, 0.1, 0.125)),
)
SEEDED = ((3, 0.0), (3, 2.0), (3, 5.0), (5, 2.0))
"""How many seeds, and the standard deviation between them in points."""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    cases = [row(case, chosen.repetitions) for case in (*NULL, *CLEAR, *SUBTLE)]
    seeded = [seeded_row(k, spread, chosen.repetitions) for k, spread in SEEDED]
    text = (
        f"{chosen.repetitions} repetitions, {PROMPTS} prompts, stated error rate "
        f"{100 * ALPHA:.0f}%.\n\n{markdown(cases)}\n\n{markdown(seeded)}"
    )
    print(text)
    if chosen.out:
        chosen.out.write_text(f"<!-- made by benchmarks/error_rates.py -->\n\n{text}\n")


def row(case: Case, repetitions: int) -> dict[str, object]:
    """One case: how often each test says "different", and each interval leaves the truth out."""
    values, truth = case.drawn(repetitions), case.mean()
    intervals = [bootstrap(each, ALPHA, seed) for seed, each in enumerate(values)]
    points_needed = decision_points(values, ALPHA)
    wrong = points_needed != 0 if truth == 0 else points_needed * truth < 0
    asked = asked_at(np.where(points_needed == 0, PROMPTS, np.abs(points_needed)))
    return {
        "case": case.name,
        "paired differs %": percent(
            [sign_flip(each, seed) <= ALPHA for seed, each in enumerate(values)]
        ),
        "interval misses %": percent(np.abs(studentised(values, truth)) > width(PROMPTS)),
        "bootstrap misses %": percent([not low <= truth <= high for low, high in intervals]),
        "sequential decides %": percent(points_needed != 0),
        "sequential wrong %": percent(wrong),
        "peeking differs %": percent(peeking(values)),
        "calls saved, median %": f"{100 * (1 - np.median(asked) / PROMPTS):.0f}",
    }


def seeded_row(seeds: int, spread: float, repetitions: int) -> dict[str, object]:
    """Equal models over seeds of training: intervals of two levels, and as if rows were all."""
    generator = np.random.default_rng(seeds)
    prompts, rows = 30.0, 50.0  # points; what a prompt adds for every seed, and what is its own
    missed, naive = [], []
    for _ in range(repetitions):
        table = generator.normal(0, spread, (seeds, 1)) + generator.normal(0, prompts, PROMPTS)
        table = table + generator.normal(0, rows, (seeds, PROMPTS))
        found = two_level(table, ALPHA)
        missed.append(not found.interval.low <= 0 <= found.interval.high)
        error = standard_error(table.ravel())
        naive.append(abs(table.mean()) > width(table.size) * error)
    return {
        "seeds": seeds,
        "between seeds, points": spread,
        "two levels miss %": percent(missed),
        "all rows as one miss %": percent(naive),
    }


def studentised(values: Numbers, truth: float) -> Numbers:
    """Mean minus truth over its standard error, along the last axis."""
    errors = values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])
    return np.divide(
        values.mean(axis=-1) - truth, errors, out=np.zeros(len(values)), where=errors > 0
    )


def width(n: int) -> float:
    return student(n - 1, ALPHA)


def looks() -> list[int]:
    """After how many rows a stopping evaluation looks."""
    found = [next_look(0, PROMPTS)]
    while found[-1] < PROMPTS:
        found.append(next_look(found[-1], PROMPTS))
    return found


def asked_at(counts: Numbers) -> Numbers:
    """Rows that are asked when so many decide: up to the next look."""
    at = np.array(looks())
    return at[np.searchsorted(at, counts)]


def peeking(values: Numbers) -> Numbers:
    """Whether Student's test differs at any look."""
    differs = [np.abs(studentised(values[:, :n], 0.0)) > width(n) for n in looks()]
    return np.any(differs, axis=0)


def percent(flags: object) -> str:
    return f"{100 * np.mean(flags):.1f}"


if __name__ == "__main__":
    main()
