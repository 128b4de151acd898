"""What a reward model learns from: pairs with their margins, and samples of a policy.

Pairs that are held out share no prompt with those that are learned from. All of it lies in files
without a name; memory holds lengths, places and margins.
"""

from __future__ import annotations

import logging
import random
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from alpacafarm_core.errors import BadInput, TrainingFailed
from alpacafarm_core.settings import Fitting
from alpacafarm_core.train.bradley_terry import margins
from alpacafarm_core.train.contracts import Origin, sound
from alpacafarm_core.train.corpus import Corpus
from alpacafarm_core.train.models import Loaded
from alpacafarm_core.train.readable import longest, scorable
from alpacafarm_core.train.reading import (
    ANSWERS,
    PROMPT,
    Instructions,
    Reader,
    Source,
    held_out,
    in_parts,
    scanned,
)
from alpacafarm_core.train.tokens import Pair, Tokens, each_encoded, each_pair

log = logging.getLogger("alpacafarm.training")

GAP = "gap"  # the column with the difference of a pair's numbers


class Split(NamedTuple):
    """Pairs to learn from and pairs to be tested on; they share no instruction.

    `undecided` counts the rows left out, `cut` the responses whose row was longer than the model
    reads, `identical` the pairs whose responses are equal; `margins` are those of the learned pairs
    and `gaps` how many pairs came with one.
    """

    learned: Sequence[Pair]
    held_out: Sequence[Pair]
    undecided: int
    cut: int
    identical: int
    margins: Sequence[float]
    gaps: int


class Sampled(NamedTuple):
    """Samples of a policy; `prompts` has the places of each prompt's, at least two."""

    samples: Sequence[Tokens]
    prompts: Sequence[Sequence[int]]

    def views(self, seed: int, step: int, prompts: int) -> list[Pair]:
        """Two samples of each of so many prompts; the same ones whenever a step is taken."""
        coins = random.Random(f"{seed} {step}")
        drawn = coins.sample(range(len(self.prompts)), prompts)
        both = [coins.sample(self.prompts[prompt], 2) for prompt in drawn]
        return [Pair(self.samples[one], self.samples[other]) for one, other in both]


def split_of(preferences: Source, scorer: Loaded, fitting: Fitting) -> Split:
    """All pairs of an instruction go to one side, instructions in an order fixed by the seed."""
    rows, most, cut = Reader(preferences, of_pairs=True), longest(scorer), 0

    def made() -> Iterator[Pair]:
        nonlocal cut
        for pair in each_pair(rows, scorer.tokenizer):
            cut += (pair.chosen.length > most) + (pair.rejected.length > most)
            yield Pair(*(scorable(side, scorer) for side in pair))

    whole = Corpus.of(made())
    if not whole:
        raise TrainingFailed("no pair has a decision; label pairs 1 or 2")
    odd = sound(whole, None, Origin(rows.numbers, Instructions(preferences, rows.numbers)))
    tested = held_out(preferences, fitting.held_out, fitting.seed)
    others = set(tested)
    learned = _share([at for at in range(len(whole)) if at not in others], fitting)
    gaps = _gaps(preferences, rows.numbers, fitting)
    asked = margins(gaps, fitting.margin, rows.numbers)
    return Split(
        learned=whole.take(learned),
        held_out=whole.take(tested),
        undecided=rows.undecided,
        cut=cut,
        identical=odd["identical"],
        margins=array("d", (asked[at] for at in learned)),
        gaps=sum(gap is not None for gap in gaps),
    )


def _share(pairs: Sequence[int], fitting: Fitting) -> Sequence[int]:
    """The share of the pairs that is learned from, in their order, drawn with the training's seed.

    The held-out ones are not among them, so that models of other shares are tested alike.
    """
    count = max(1, round(fitting.share * len(pairs)))
    if count >= len(pairs):
        return pairs
    return sorted(random.Random(f"share {fitting.training.seed}").sample(pairs, count))


def _gaps(preferences: Source, rows: Sequence[int], fitting: Fitting) -> list[float | None]:
    """The gap of each of these rows; None where nobody asks for it or the table has none."""
    if fitting.margin is None:
        return [None] * len(rows)
    if GAP not in scanned(preferences).collect_schema():
        log.warning("these pairs were labelled without a gap: every margin is 0")
        return [None] * len(rows)
    column = scanned(preferences).select(GAP).collect().to_series()
    return column.gather(list(rows)).to_list()


def sampled_of(candidates: Source, scorer: Loaded, fitting: Fitting) -> Sampled:
    """Samples as views; prompts with a single one are left out.

    Raises BadInput where there are too few prompts for a step, or a step of one pair has no others.
    """

    def made() -> Iterator[Tokens]:
        parts = in_parts(candidates, ANSWERS)
        for row in each_encoded(parts, "output", scorer.tokenizer):
            yield scorable(row, scorer)

    prompts = defaultdict[tuple[str, str], list[int]](list)
    asked = scanned(candidates).select(PROMPT).collect().iter_rows()
    for at, (instruction, text) in enumerate(asked):
        prompts[instruction, text].append(at)
    several = [places for places in prompts.values() if len(places) > 1]
    batch = fitting.training.batch
    if len(several) < batch:
        raise BadInput(
            f"{len(several)} of {len(prompts)} prompts have two samples or more, and a step of "
            f"{batch} pairs looks at as many; draw more samples, or lower training.batch to "
            f"{max(2, len(several))}"
        )
    return Sampled(Corpus.of(made()), several)


def several_a_step(pairs: int, batch: int) -> None:
    """Raise BadInput where some step has one pair only, and so one prompt without negatives."""
    if batch == 1 or pairs % batch == 1:
        raise BadInput(
            f"{pairs} pairs in steps of {batch} leave a step with one pair, whose views have no "
            "others to be told from; change training.batch or held_out"
        )


def is_with_views(fitting: Fitting) -> bool:
    """Whether samples, where there are some, are learned from."""
    return fitting.views.weight > 0
