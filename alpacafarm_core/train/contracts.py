"""Contracts: what must hold of data and figures, or training ends with the rows and the mend.

Each is a function of plain values that raises ContractBroken in one line, up to five rows by number
and first words. What is odd but harmless in small numbers is counted and returned instead: a pair
of equal responses has no gradient, an unfinished sample teaches all but the end. B is responses, R
tokens of a response.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from alpacafarm_core.errors import ContractBroken
from alpacafarm_core.train.tokens import Example, Pair

if TYPE_CHECKING:
    from torch import Tensor

SHOWN, WORDS = 5, 6

IDENTICAL, FEW = 0.01, 4
"""Share of pairs that may be of equal responses, ties that a coin decided, and how many always."""

UNENDED = 0.9
"""Share of responses that may lack the end token; a short limit cuts most samples of a policy."""

STEPS, NEAR, SURE = 20, 0.002, 2.0
"""Steps before a loss can be stuck, how near ln 2 that is, and standard errors to be sure."""

PAIRS = 200
"""Held-out pairs from which a reward model is compared with the length of responses."""

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Mean absolute gap in nats a token between sampler and trainer, by precision."""


class Origin(NamedTuple):
    """Where examples stand: row number and instruction of each; without them, they are counted."""

    numbers: Sequence[int] = ()
    instructions: Sequence[str] = ()

    def named(self, example: int) -> str:
        """One example, as people can find it."""
        number = self.numbers[example] if len(self.numbers) else example
        if not len(self.instructions):
            return f"row {number}"
        return f"row {number} ({_begun(self.instructions[example])})"


NOWHERE = Origin()


def sound(
    examples: Iterable[Example], end: int | None = None, origin: Origin = NOWHERE
) -> dict[str, int]:
    """Data that can be learned from: counts of what is odd, `identical` and `without_end`.

    Raises ContractBroken where a response has no token left to learn from, where more than
    IDENTICAL of the pairs have the same ids on both sides, and where more than UNENDED of the
    responses to imitate (demonstrations, chosen ones) lack the end token, id `end`; who learns from
    those never stops. None says that nothing is imitated. Examples are taken one at a time.
    """
    count, empty, same, open_ended = 0, [], [], []
    for at, example in enumerate(examples):
        sides = [example.chosen, example.rejected] if isinstance(example, Pair) else [example]
        count += 1
        if not all(side.response for side in sides):
            empty.append(at)
        if len(sides) == 2 and sides[0] == sides[1]:
            same.append(at)
        if end is not None and sides[0].response[-1:] != [end]:
            open_ended.append(at)
    _refuse_empty(empty, count, origin)
    _refuse_identical(same, count, origin)
    _refuse_endless(open_ended, count, origin)
    return {"identical": len(same), "without_end": len(open_ended)}


def apart(trained: Iterable[tuple[str, str]], evaluated: Iterable[tuple[str, str]]) -> None:
    """No prompt, as (instruction, input), is both trained on and evaluated."""
    rows, known = list(evaluated), set(trained)
    both = [at for at, prompt in enumerate(rows) if prompt in known]
    if both:
        origin = Origin(instructions=[instruction for instruction, _ in rows])
        raise ContractBroken(
            f"{len(both)} of {len(rows)} evaluation prompts are trained on: "
            f"{_rows(both, origin)}; take them out of one of the two"
        )


def unstuck(history: Sequence[Mapping[str, float]], batch: int) -> None:
    """The loss of pairs has left ln 2, where a logistic loss of no margin stands.

    `history` has `loss` and `accuracy` of each step, and `rows`, else `batch`, pairs a step. Broken
    after STEPS steps when those of the last quarter are on average within NEAR of ln 2 each and
    their accuracy is not above one half by SURE standard errors. A loss that swings about ln 2 is
    not stuck: its margins grow, if on labels that are mostly noise.
    """
    if len(history) < STEPS or not all({"loss", "accuracy"} <= one.keys() for one in history):
        return
    last = history[-(len(history) // 4) :]
    pairs = sum(one.get("rows", batch) for one in last)
    away = _mean([abs(one["loss"] - math.log(2)) for one in last])
    accuracy = _mean([one["accuracy"] for one in last])
    if away <= NEAR and accuracy <= 0.5 + SURE * 0.5 / math.sqrt(pairs):
        first = len(history) - len(last) + 1
        raise ContractBroken(
            f"steps {first} to {len(history)}: the loss is stuck at ln 2 (within {away:.4f}) and "
            f"{100 * accuracy:.1f}% of {pairs:.0f} pairs are in order; raise the learning rate, or "
            "look at the labels with `alpacafarm card`"
        )


def above_length(accuracy: float | None, length_accuracy: float | None, pairs: int) -> bool:
    """Whether a reward model orders held-out pairs better than the length of responses does.

    Both accuracies are shares of `pairs`; without any there is no telling, and it does. Raises
    ContractBroken when it does so worse by SURE standard errors of the difference, on at least
    PAIRS pairs: on fewer, or where labels are mostly noise, a worse figure may be chance.
    """
    if accuracy is None or length_accuracy is None:
        return True
    spread = accuracy * (1 - accuracy) + length_accuracy * (1 - length_accuracy)
    doubt = SURE * math.sqrt(spread / pairs)
    if pairs >= PAIRS and accuracy <= length_accuracy - doubt:
        raise ContractBroken(
            f"the reward model orders {100 * accuracy:.1f}% of {pairs} held-out pairs, preferring "
            f"the longer response {100 * length_accuracy:.1f}%; give more pairs or epochs, or "
            "waive this with above_length false"
        )
    return accuracy > length_accuracy


def gap(sampler: Tensor, trainer: Tensor, mask: Tensor) -> dict[str, float]:
    """How far log-probabilities of sampler and trainer are apart, all [B, R].

    In nats a token: `gap_mean` and `gap_max` of the absolute difference, and `gap_ratio`, the mean
    probability ratio, 1 where they agree.
    """
    away = (trainer - sampler)[mask.bool()].float()
    if not away.numel():
        return {"gap_mean": 0.0, "gap_max": 0.0, "gap_ratio": 1.0}
    return {
        "gap_mean": float(away.abs().mean()),
        "gap_max": float(away.abs().max()),
        "gap_ratio": float(away.exp().mean()),
    }


def agreeing(figures: Mapping[str, float], precision: str, step: int) -> None:
    """The `gap_mean` of `gap` is within TOLERANCE of this precision; `step` counts from 0."""
    tolerance = TOLERANCE[precision]
    # Not the other way round: a gap that is not a number is no agreement.
    if not figures["gap_mean"] <= tolerance:
        raise ContractBroken(
            f"step {step + 1}: sampler and trainer are {figures['gap_mean']:.2g} nats a token "
            f"apart (at most {tolerance:g} in {precision}); sample in the precision and at the "
            "temperature of training, or set ALPACAFARM_ENGINE=transformers"
        )


def finite(figures: Mapping[str, float], step: int, steps: int) -> None:
    """Every figure is a number; `step` counts from 0."""
    wrong = [name for name, figure in figures.items() if not math.isfinite(figure)]
    if wrong:
        said = ", ".join(f"{name} is {figures[name]}" for name in wrong)
        raise ContractBroken(
            f"step {step + 1} of {steps}: {said}; lower the learning rate or use float32"
        )


def near(kl: float, limit: float, step: int) -> None:
    """The policy is within `limit` nats a response of its reference; `step` counts from 0."""
    if not abs(kl) <= limit:
        raise ContractBroken(
            f"step {step + 1}: a response is {kl:.1f} nats from the reference, at most {limit:g} "
            "are allowed; raise kl.coef, lower the learning rate, or raise kl.limit"
        )


def _refuse_empty(empty: Sequence[int], count: int, origin: Origin) -> None:
    if empty:
        raise ContractBroken(
            f"{len(empty)} of {count} rows have a response without one token to learn from: "
            f"{_rows(empty, origin)}; leave them out or give their output"
        )


def _refuse_identical(same: Sequence[int], count: int, origin: Origin) -> None:
    if len(same) > max(FEW, IDENTICAL * count):
        raise ContractBroken(
            f"{len(same)} of {count} pairs are the same on both sides, once cut to what the model "
            f"reads: {_rows(same, origin)}; leave them out, or call them ties (1.5)"
        )


def _refuse_endless(open_ended: Sequence[int], count: int, origin: Origin) -> None:
    if len(open_ended) > UNENDED * count:
        raise ContractBroken(
            f"{len(open_ended)} of {count} responses to imitate do not end with the end token: "
            f"{_rows(open_ended, origin)}; raise max_tokens where they were sampled, or set the "
            "eos_token that they were written with"
        )


def _mean(figures: Sequence[float]) -> float:
    return sum(figures) / len(figures)


def _rows(examples: Sequence[int], origin: Origin) -> str:
    shown = ", ".join(origin.named(at) for at in examples[:SHOWN])
    return shown + (f" and {len(examples) - SHOWN} more" if len(examples) > SHOWN else "")


def _begun(text: str) -> str:
    words = text.split()
    return " ".join(words[:WORDS]) + (" ..." if len(words) > WORDS else "")
