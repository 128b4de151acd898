"""How the judges of the built-in world compare with its people, beside the figures of the paper.

Run `python benchmarks/judge_pool.py`. Pairs are two answers of a writer to one instruction, at
about the skill of the demonstrator; what counts as right is true utility, what counts as human is
four people a pair. Definitions are those of AlpacaEval's evaluator leaderboard (agreement of one
label with the mode of the others, longer by more than 30 characters).
"""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from alpacafarm_core import panel
from alpacafarm_core.annotate import annotate, pair
from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.endpoints import ask_for
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.world.instructions import instructions
from alpacafarm_core.world.tastes import has_list
from alpacafarm_core.world.writers import write

SKILL = 0.6
COLUMNS = ("people", "truth", "itself", "longer", "list", "first")
Labels = np.ndarray[Any, Any]


def drawn_pairs(size: int, seed: int) -> pl.DataFrame:
    """Pairs of different answers by one writer."""
    rows: list[tuple[object, ...]] = []
    for row in instructions("preference", size, seed):
        texts = [write(row["instruction"], row["input"], SKILL, 2 * seed + k) for k in (0, 1)]
        if texts[0] == texts[1]:
            continue
        for index, text in enumerate(texts):
            asked = row["instruction"], row["input"], row["dataset"]
            rows.append((*asked, text, [], "", "stop", "writer", index, 1.0, 1.0, 300, seed))
    table = pl.DataFrame(rows, schema=pl.Schema(Candidates.columns), orient="row")
    return pair(table, table)


def labels(pairs: pl.DataFrame, name: str, seed: int, flip: float = 0.0) -> Labels:
    """Preferences of a panel in {1, 2}, one a pair."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        chosen = panel.load(name, flip, seed)
        found = annotate(pairs, chosen, ask_for("world://"), ledger)["preference"].to_numpy()
        ledger.close()
    return np.asarray(found)


def mode(votes: list[Labels]) -> Labels:
    """The most frequent label of each pair; 1.5 where votes are even."""
    ahead = np.sign(np.mean(votes, axis=0) - 1.5)
    return np.asarray(1.5 + ahead / 2)


def agreement(some: Labels, others: Labels) -> float:
    """Share in percent on which two labels agree; against a tie it is one half."""
    return float(100 * np.mean(1 - np.abs(some - others)))


def leave_one_out(votes: list[Labels]) -> float:
    """Agreement of each with the mode of the others."""
    rest = [votes[:k] + votes[k + 1 :] for k in range(len(votes))]
    return float(np.mean([agreement(v, mode(r)) for v, r in zip(votes, rest, strict=True)]))


def preferring(label: Labels, first_has: Labels, second_has: Labels) -> float:
    """Share in percent on which the output that alone has something is preferred."""
    one = first_has != second_has
    return float(100 * np.mean((label[one] == 1) == first_has[one]))


class Pairs(NamedTuple):
    """What is measured on: pairs, what people say of them, what utility says."""

    table: pl.DataFrame
    people: list[Labels]
    truth: Labels

    def line(self, name: str, votes: list[Labels]) -> str:
        """One row of the table: agreements and shares in percent."""
        human = mode(self.people)
        lists = [
            self.table[column].map_elements(has_list, pl.Boolean).to_numpy()
            for column in ("output_1", "output_2")
        ]
        lengths = [
            self.table[column].str.len_chars().cast(pl.Int64).to_numpy()
            for column in ("output_1", "output_2")
        ]
        gap = lengths[0] - lengths[1]
        figures = (
            leave_one_out(votes)
            if votes is self.people
            else np.mean([agreement(vote, human) for vote in votes]),
            np.mean([agreement(vote, self.truth) for vote in votes]),
            leave_one_out(votes),
            preferring(votes[0], gap > 30, gap < -30),
            preferring(votes[0], *lists),
            100 * np.mean(votes[0] == 1),
        )
        return f"{name:24}" + "".join(f"{figure:9.1f}" for figure in figures)


def measured(size: int) -> Pairs:
    """Pairs of writers with four people and the oracle asked about each."""
    pairs = drawn_pairs(size, seed=0)
    people = [labels(pairs, "people", seed) for seed in range(4)]
    return Pairs(pairs, people, labels(pairs, "world_clean", 0))


def main() -> None:
    """Print the table."""
    pairs = measured(3000)
    print(f"{pairs.table.height} pairs")
    print(" " * 24 + "".join(f"{name:>9}" for name in COLUMNS))
    print(pairs.line("people", pairs.people))
    for name, flip in (
        ("world", 0.0),
        ("world", 0.25),
        ("world_greedy", 0.0),
        ("world_clean", 0.0),
    ):
        votes = [labels(pairs.table, name, seed, flip) for seed in range(4)]
        print(pairs.line(f"{name} flip {flip}" if flip else name, votes))
    print("paper: people 66, pool 65, greedy 66.4; longer 60 to 64; lists 60 to 65")


if __name__ == "__main__":
    main()
