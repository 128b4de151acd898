"""The reward model: a scalar read at the last token of a response; fit it, score with it.

Bradley-Terry on pairs, as in AlpacaFarm: the policy's backbone with a new linear head, no end
token, no margin, no centring. Unlike there, sampled ids are scored as they are, and what is too
long loses the left of its prompt, never the end of its response. The head has no bias: the loss
cannot see one. Margins, a penalty, a head for length and a policy's samples can be asked for; what
is saved is an ordinary scorer all the same.
"""

import logging
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from alpacafarm_core.machine import Machine
from alpacafarm_core.scoring import scorer
from alpacafarm_core.settings import Fitting
from alpacafarm_core.train.batches import Padded
from alpacafarm_core.train.bradley_terry import correlation
from alpacafarm_core.train.checkpoint import Checkpoints, origin
from alpacafarm_core.train.contracts import above_length
from alpacafarm_core.train.descent import descended
from alpacafarm_core.train.engine import together
from alpacafarm_core.train.judged import is_with_views, sampled_of, several_a_step, split_of
from alpacafarm_core.train.judging import Course, attach, batch_for, detach, gaps, lesson
from alpacafarm_core.train.lora import take_up
from alpacafarm_core.train.models import Loaded, load_scorer, save
from alpacafarm_core.train.readable import scores
from alpacafarm_core.train.reading import Source
from alpacafarm_core.train.tokens import Pair
from alpacafarm_core.train.trial import Trial

__all__ = ["fit", "score", "scores"]

log = logging.getLogger("alpacafarm.training")


def fit(
    start: Path,
    out: Path,
    preferences: Source | tuple[Source, Source | None],
    fitting: Fitting,
    machine: Machine,
) -> dict[str, Any]:
    """Fit a reward model to Preferences, from the weights of the policy in `start`; save in `out`.

    With `preferences` may come Candidates, samples to be learned from as `fitting.views` says.
    Returns accuracies on held-out pairs (the model's, and of preferring the longer response),
    counts, and `steps`, the figures of each optimiser step. Goes on from a checkpoint beside `out`;
    raises BadInput when that is of something else or a setting does not suit the data,
    ContractBroken where the pairs or the result are no good.
    """
    labels, samples = preferences if isinstance(preferences, tuple) else (preferences, None)
    with together(machine), torch.random.fork_rng():
        scorer = _begun(start, fitting, machine)
        take_up(scorer.model, fitting.training)
        scorer.tokenizer.model_max_length = fitting.training.max_length
        course = _enrolled(scorer, labels, samples, fitting, machine)
        steps, tested = _descended(course, _checkpoints(course, start, out), out)
    split = course.split
    accuracy, length = _accuracy(tested), _length_accuracy(split.held_out)
    figures = {
        "rows": len(split.learned),
        "undecided": split.undecided,
        "held_out_rows": len(split.held_out),
        "cut": split.cut,
        "identical": split.identical,
        "accuracy": accuracy,
        "length_accuracy": length,
        **_spread(tested, split.held_out),
        **_noted(course),
    }
    log.info("reward model %s", figures)
    if fitting.above_length:
        _compare_with_length(accuracy, length, len(split.held_out))
    return {**figures, "steps": steps}


def _begun(start: Path, fitting: Fitting, machine: Machine) -> Loaded:
    """The policy's backbone with a new head, drawn with its own seed where it has one."""
    seed = fitting.training.seed
    torch.manual_seed(seed if fitting.head is None else fitting.head)
    scorer = load_scorer(start, machine)
    if fitting.head is not None:
        torch.manual_seed(seed)
    return scorer


def _enrolled(
    scorer: Loaded, labels: Source, samples: Source | None, fitting: Fitting, machine: Machine
) -> Course:
    """The model with its heads, and what it learns from."""
    split = split_of(labels, scorer, fitting)
    course = Course(scorer, split, fitting, machine)
    if samples is not None and is_with_views(fitting):
        several_a_step(len(split.learned), fitting.training.batch)
        course = course._replace(sampled=sampled_of(samples, scorer, fitting))
    attach(scorer, fitting, course.sampled is not None)
    return course


def _checkpoints(course: Course, start: Path, out: Path) -> Checkpoints:
    """Those of this training, which is told by all that it learns from."""
    split, sampled = course.split, course.sampled
    examples = chain(split.learned, split.held_out, sampled.samples if sampled else ())
    recipe = origin([start], examples, course.fitting, course.machine)
    if course.fitting.margin is not None:
        recipe["margins"] = sum(at * margin for at, margin in enumerate(split.margins, 1))
    return Checkpoints(out, recipe, course.machine)


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
) -> tuple[list[dict[str, float]], Tensor]:
    """All steps, then the model is saved by one process; rewards of the held-out pairs, [B, 2].

    The heads that only the training needed are gone by then.
    """
    scorer, training = course.scorer, course.fitting.training
    learned, machine = course.split.learned, course.machine

    def batch(rows: Sequence[int]) -> Padded:
        return batch_for(scorer.model, [learned[row] for row in rows], machine)

    trial = Trial([scorer.model], learned, training.batch, partial(lesson, course), batch)
    engine, steps = descended(trial, training, checkpoints, machine)
    with engine.whole():
        detach(scorer)
        if engine.team.leads:
            save(scorer, out)
        return steps, gaps(scorer, course.split.held_out, course.machine)


def score(folder: Path, rows: pl.DataFrame, machine: Machine) -> list[float]:
    """The reward of each row's `output` (its sampled ids where they are ours)."""
    with scorer(folder, machine) as opened:
        return opened.score(rows)


def _accuracy(tested: Tensor) -> float | None:
    """Share of pairs whose chosen response scores higher; None without pairs."""
    if not len(tested):
        return None
    return int((tested[:, 0] > tested[:, 1]).sum()) / len(tested)


def _length_accuracy(of: Sequence[Pair]) -> float | None:
    """The same for preferring the response with more tokens; equal lengths count half."""
    if not of:
        return None
    gaps = [len(pair.chosen.response) - len(pair.rejected.response) for pair in of]
    return sum(1.0 if gap > 0 else 0.5 * (gap == 0) for gap in gaps) / len(of)


def _spread(tested: Tensor, of: Sequence[Pair]) -> dict[str, float | None]:
    """Of held-out rewards [B, 2]: their gap's mean and deviation, and how they go with length."""
    if len(of) < 2:
        return {"margin": None, "margin_deviation": None, "length_correlation": None}
    gap = tested[:, 0] - tested[:, 1]
    tokens = torch.tensor([[float(len(side.response)) for side in pair] for pair in of])
    return {
        "margin": float(gap.mean()),
        "margin_deviation": float(gap.std(correction=0)),
        "length_correlation": float(correlation(tested.flatten(), tokens.flatten())),
    }


def _noted(course: Course) -> dict[str, Any]:
    """What settings beyond the order of pairs came to, and what of the training is not kept."""
    fitting, split, noted = course.fitting, course.split, dict[str, Any]()
    if fitting.margin is not None:
        noted["gaps"] = split.gaps
        noted["mean_margin"] = sum(split.margins) / max(1, len(split.margins))
    if fitting.odin is not None:
        noted["left_out"] = "length head"
    if course.sampled is not None:
        noted["samples"] = len(course.sampled.samples)
        noted["sampled_prompts"] = len(course.sampled.prompts)
    return noted
