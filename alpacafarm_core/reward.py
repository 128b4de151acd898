"""The reward model: a scalar read at the last token of a response; fit it, score with it.

Bradley-Terry on pairs, as in AlpacaFarm: the policy's backbone with a new linear head, no end
token, no margin, no centring. Unlike there, sampled ids are scored as they are, and what is too
long loses the left of its prompt, never the end of its response. The head has no bias: the loss
cannot see one.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alpacafarm_core.errors import TrainingFailed
from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import NO_PAST, Past
from alpacafarm_core.scoring import scorer
from alpacafarm_core.settings import Fitting
from alpacafarm_core.train.batches import Padded, Room, alike, batch_of, padded
from alpacafarm_core.train.checkpoint import Checkpoints, origin
from alpacafarm_core.train.contracts import Origin, above_length, sound
from alpacafarm_core.train.corpus import Corpus
from alpacafarm_core.train.descent import descended
from alpacafarm_core.train.engine import Learn, together
from alpacafarm_core.train.forward import response_scores
from alpacafarm_core.train.lora import take_up
from alpacafarm_core.train.models import Loaded, autocast, begin, load_scorer, save, sharing
from alpacafarm_core.train.reading import Instructions, Reader, Source, held_out
from alpacafarm_core.train.tokens import Pair, Tokens, each_pair
from alpacafarm_core.train.trial import Trial

log = logging.getLogger("alpacafarm.training")


class Split(NamedTuple):
    """Pairs to learn from and pairs to be tested on; they share no instruction.

    `undecided` counts the rows left out, `cut` the responses whose row was longer than the model
    reads, `identical` the pairs whose responses are equal.
    """

    learned: Sequence[Pair]
    held_out: Sequence[Pair]
    undecided: int
    cut: int
    identical: int


class Course(NamedTuple):
    """A reward model on its way: the model, its pairs, how it is fitted and on what."""

    scorer: Loaded
    split: Split
    fitting: Fitting
    machine: Machine


def fit(
    start: Path, out: Path, preferences: Source, fitting: Fitting, machine: Machine
) -> dict[str, Any]:
    """Fit a reward model to Preferences, from the weights of the policy in `start`; save in `out`.

    Returns accuracies on held-out pairs (the model's, and of preferring the longer response),
    counts, and `steps`, the figures of each optimiser step. Goes on from a checkpoint beside `out`;
    raises BadInput when that is of something else, ContractBroken where the pairs or the result are
    no good.
    """
    with together(machine), torch.random.fork_rng():
        torch.manual_seed(fitting.training.seed)
        scorer = load_scorer(start, machine)
        take_up(scorer.model, fitting.training)
        scorer.tokenizer.model_max_length = fitting.training.max_length
        split = _split(preferences, scorer, fitting)
        recipe = origin([start], chain(split.learned, split.held_out), fitting, machine)
        course = Course(scorer, split, fitting, machine)
        steps, accuracy = _descended(course, Checkpoints(out, recipe, machine), out)
    figures = {
        "rows": len(split.learned),
        "undecided": split.undecided,
        "held_out_rows": len(split.held_out),
        "cut": split.cut,
        "identical": split.identical,
        "accuracy": accuracy,
        "length_accuracy": _length_accuracy(split.held_out),
    }
    log.info("reward model %s", figures)
    if fitting.above_length:
        _compare_with_length(accuracy, _length_accuracy(split.held_out), len(split.held_out))
    return {**figures, "steps": steps}


def _compare_with_length(accuracy: float | None, length: float | None, pairs: int) -> None:
    if not above_length(accuracy, length, pairs):
        log.info(
            "the reward model orders %.1f%% of %d held-out pairs, the longer response %.1f%%",
            100 * (accuracy or 0),
            pairs,
            100 * (length or 0),
        )


def _descended(
    course: Course, checkpoints: Checkpoints, out: Path
) -> tuple[list[dict[str, float]], float | None]:
    """All steps, then the model is saved by one process; its accuracy on the held-out pairs."""
    scorer, training = course.scorer, course.fitting.training
    learned, machine = course.split.learned, course.machine

    def batch(rows: Sequence[int]) -> Padded:
        return _batch(scorer.model, [learned[row] for row in rows], machine)

    trial = Trial([scorer.model], learned, training.batch, partial(lesson, course), batch)
    engine, steps = descended(trial, training, checkpoints, machine)
    with engine.whole():
        if engine.team.leads:
            save(scorer, out)
        return steps, _accuracy(scorer, course.split.held_out, course.machine)


def score(folder: Path, rows: pl.DataFrame, machine: Machine) -> list[float]:
    """The reward of each row's `output` (its sampled ids where they are ours)."""
    with scorer(folder, machine) as opened:
        return opened.score(rows)


@torch.no_grad()
def scores(scorer: Loaded, rows: Sequence[Tokens], machine: Machine) -> list[float]:
    """The reward of each response, read at its last token before the end token."""
    fitted = [scorable(row, scorer) for row in rows]
    found = torch.zeros(len(rows))
    for micro in alike(fitted, range(len(rows)), Room.of(machine)):
        batch = padded([fitted[row] for row in micro]).to(begin(machine))
        with autocast(machine):
            found[micro] = response_scores(scorer.model, batch).cpu()
    return [float(reward) for reward in found]


def scorable(row: Tokens, scorer: Loaded) -> Tokens:
    """The row without its end token, cut on the left so that it fits the model.

    The prompt is cut first, a begin token and one token of it stay; only a response longer than
    the model loses its own beginning. An empty response is read at the end of the prompt.
    """
    tokenizer = scorer.tokenizer
    prompt, response = list(row.prompt), list(row.response)
    while response and response[-1] == tokenizer.eos_token_id:
        response.pop()
    if not response:
        prompt, response = prompt[:-1], prompt[-1:]
    begins = prompt[:1] if prompt[:1] == [tokenizer.bos_token_id] else []
    response = response[-(longest(scorer) - len(begins) - 1) :]
    room = longest(scorer) - len(response)
    if len(prompt) > room:
        prompt = begins + prompt[len(prompt) - room + len(begins) :]
    return Tokens(prompt, response)


def longest(scorer: Loaded) -> int:
    """Tokens of prompt and response that the model reads at once."""
    positions = scorer.model.config.max_position_embeddings
    return int(min(scorer.tokenizer.model_max_length, positions))


def _split(preferences: Source, scorer: Loaded, fitting: Fitting) -> Split:
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
    return Split(
        learned=whole.take(at for at in range(len(whole)) if at not in others),
        held_out=whole.take(tested),
        undecided=rows.undecided,
        cut=cut,
        identical=odd["identical"],
    )


def lesson(course: Course, rows: Sequence[int], _: Past = NO_PAST) -> Learn:
    """What one micro-batch adds to a batch of these rows: loss with gradient, and the figures."""

    def learn(micro: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        some = [course.split.learned[row] for row in micro]
        margin = _margins(course.scorer.model, some, course.machine)
        loss = -logsigmoid(margin).sum() / len(rows)
        return loss, {
            "tokens": float(sum(side.length for pair in some for side in pair)),
            "loss": float(loss.detach()),
            "accuracy": float((margin > 0).sum()) / len(rows),
            "margin": float(margin.detach().sum()) / len(rows),
        }

    return learn


def _margins(model: Any, of: Sequence[Pair], machine: Machine) -> Tensor:
    """Reward of the chosen minus that of the rejected response, [B]."""
    batch = _batch(model, of, machine).to(begin(machine))
    with autocast(machine):
        chosen, rejected = response_scores(model, batch).chunk(2)
    return chosen - rejected


def _batch(model: Any, of: Sequence[Pair], machine: Machine) -> Padded:
    return batch_of(of, sharing(model), machine.packs())


@torch.no_grad()
def _accuracy(scorer: Loaded, of: Sequence[Pair], machine: Machine) -> float | None:
    """Share of pairs whose chosen response scores higher; None without pairs."""
    if not of:
        return None
    right = 0
    for micro in alike(of, range(len(of)), Room.of(machine)):
        right += int((_margins(scorer.model, [of[row] for row in micro], machine) > 0).sum())
    return right / len(of)


def _length_accuracy(of: Sequence[Pair]) -> float | None:
    """The same for preferring the response with more tokens; equal lengths count half."""
    if not of:
        return None
    gaps = [len(pair.chosen.response) - len(pair.rejected.response) for pair in of]
    return sum(1.0 if gap > 0 else 0.5 * (gap == 0) for gap in gaps) / len(of)
