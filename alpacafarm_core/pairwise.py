"""The pairwise judge: reads a prompt and two answers, gives the log-odds that the first is better.

After PairRM (Jiang et al. 2023, arXiv 2306.02561), on the policy's own backbone. It can hold
preferences that go in circles, which no reward per answer can. Every pair is learned, tested and
asked in both orders, since nothing in such a model makes it forget which answer came first; how
much it minds is measured. What is too long is left out of training and refused when judging: an
answer that was cut is another answer. vLLM is not used.
"""

import logging
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alpacafarm_core import parts
from alpacafarm_core.artifacts import Comparisons
from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import NO_PAST, Past
from alpacafarm_core.select import PROMPT
from alpacafarm_core.settings import Fitting
from alpacafarm_core.train.batches import Padded, Room, alike, batch_of, encode
from alpacafarm_core.train.checkpoint import Checkpoints, origin
from alpacafarm_core.train.contracts import Origin, above_length, sound
from alpacafarm_core.train.corpus import Corpus
from alpacafarm_core.train.descent import descended
from alpacafarm_core.train.engine import Learn, together
from alpacafarm_core.train.forward import response_scores
from alpacafarm_core.train.lora import take_up
from alpacafarm_core.train.models import Loaded, autocast, begin, load_scorer, save, sharing
from alpacafarm_core.train.readable import longest
from alpacafarm_core.train.reading import Instructions, Reader, Source, held_out
from alpacafarm_core.train.tokens import Pair, Tokens, each_pair
from alpacafarm_core.train.trial import Trial

BETWEEN, AFTER = "\n\n### Other response:", "\n\n### Is the first one better?"
"""What stands between two answers, and after both."""

PROMPTS = 32  # prompts whose pairs are judged together

log = logging.getLogger("alpacafarm.training")


class Split(NamedTuple):
    """Pairs in both orders, to learn from and to be tested on; they share no prompt.

    A Pair's `chosen` is prompt, better and worse answer, its `rejected` the other order. `longer`
    says by how many tokens the better answer of a tested pair is the longer one.
    """

    learned: Sequence[Pair]
    held_out: Sequence[Pair]
    longer: Sequence[int]
    counts: dict[str, int]


class Course(NamedTuple):
    """A judge on its way: the model, its pairs, how it is fitted and on what."""

    judge: Loaded
    split: Split
    fitting: Fitting
    machine: Machine


def pairwise_loss(first: Tensor, second: Tensor) -> Tensor:
    """-(log sigmoid(l(w, l)) + log sigmoid(-l(l, w))) / 2, the cross-entropy of both orders.

    Log-odds that the answer shown first is better, where that is the better one, [B], and where it
    is the worse one, [B]; one loss per pair, [B].
    """
    return -(logsigmoid(first) + logsigmoid(-second)) / 2


def fit(
    start: Path, out: Path, preferences: Source, fitting: Fitting, machine: Machine
) -> dict[str, Any]:
    """Fit a pairwise judge to Preferences, from the weights of the policy in `start`.

    Saves it in `out` and returns its figures on held-out pairs, counts, and `steps`. Goes on from a
    checkpoint beside `out`; raises BadInput where that is of something else, a setting is of reward
    models only or no pair is short enough, ContractBroken where pairs or result are no good.
    """
    _refuse_terms(fitting)
    with together(machine), torch.random.fork_rng():
        torch.manual_seed(fitting.training.seed)
        judge = load_scorer(start, machine)
        take_up(judge.model, fitting.training)
        judge.tokenizer.model_max_length = fitting.training.max_length
        course = Course(judge, split_of(preferences, judge, fitting), fitting, machine)
        examples = chain(course.split.learned, course.split.held_out)
        recipe = origin([start], examples, fitting, machine)
        steps, tested = _descended(course, Checkpoints(out, recipe, machine), out)
    figures = course.split.counts | told(tested, course.split.longer)
    log.info("pairwise judge %s", figures)
    if fitting.above_length:
        above_length(figures["accuracy"], figures["length_accuracy"], len(tested))
    return {**figures, "steps": steps}


def told(tested: Tensor, longer: Sequence[int]) -> dict[str, Any]:
    """What log-odds of held-out pairs, [B, 2], better answer first and second, say of the judge.

    `accuracy` is of both orders together, `agreement` the share of pairs that both orders decide
    alike, `position_bias` the mean log-odds of being shown first; `longer` is by how many tokens
    the better answer is the longer one. None without pairs.
    """
    names = ("accuracy", "length_accuracy", "agreement", "position_bias", "asymmetry")
    if not len(tested):
        return dict.fromkeys(names)
    first, second = tested.double().unbind(1)
    by_length = sum(1.0 if gap > 0 else 0.5 * (gap == 0) for gap in longer) / len(longer)
    found = (
        float((first > second).double().mean()),
        by_length,
        float(((first > 0) == (second < 0)).double().mean()),
        float((first + second).mean() / 2),
        float((first + second).abs().mean() / 2),
    )
    return dict(zip(names, found, strict=True))


class Form(NamedTuple):
    """How a judge with these words reads two answers: what stands between and after, as ids."""

    between: list[int]
    after: list[int]
    end: int

    @classmethod
    def of(cls, tokenizer: Any) -> "Form":
        """In the words of a tokenizer."""
        between, after = (
            list(tokenizer(text, add_special_tokens=False).input_ids) for text in (BETWEEN, AFTER)
        )
        return cls(between, after, tokenizer.eos_token_id)

    def both(self, prompt: list[int], one: list[int], other: list[int]) -> Pair:
        """Two answers to one prompt, `one` first and `other` first."""
        sides = self._body(one), self._body(other)
        return Pair(
            *(Tokens(prompt, [*a, *self.between, *b, *self.after]) for a, b in (sides, sides[::-1]))
        )

    def _body(self, answer: Sequence[int]) -> list[int]:
        """An answer without its end token, which would end the row for a reader."""
        ids = list(answer)
        while ids and ids[-1] == self.end:
            ids.pop()
        return ids


def split_of(preferences: Source, judge: Loaded, fitting: Fitting) -> Split:
    """All pairs of a prompt go to one side; those longer than the judge reads are left out."""
    rows, longer = Reader(preferences, of_pairs=True), array("i")
    form = Form.of(judge.tokenizer)

    def made() -> Iterator[Pair]:
        for chosen, rejected in each_pair(rows, judge.tokenizer):
            longer.append(len(chosen.response) - len(rejected.response))
            yield form.both(chosen.prompt, chosen.response, rejected.response)

    whole = Corpus.of(made())
    if not whole:
        raise BadInput("no pair has a decision; label pairs 1 or 2")
    fits = {at for at, length in enumerate(whole.lengths) if length <= longest(judge)}
    if not fits:
        raise BadInput(
            f"none of {len(whole)} pairs fits in {longest(judge)} tokens with its prompt; raise "
            "training.max_length"
        )
    odd = sound(whole, None, Origin(rows.numbers, Instructions(preferences, rows.numbers)))
    tested = [at for at in held_out(preferences, fitting.held_out, fitting.seed) if at in fits]
    learned = sorted(fits - set(tested))
    counts = {
        "rows": len(learned),
        "undecided": rows.undecided,
        "held_out_rows": len(tested),
        "too_long": len(whole) - len(fits),
        "identical": odd["identical"],
    }
    return Split(whole.take(learned), whole.take(tested), [longer[at] for at in tested], counts)


def lesson(course: Course, rows: Sequence[int], _: Past = NO_PAST) -> Learn:
    """What one micro-batch adds to a batch of these rows: loss with gradient, and the figures."""

    def learn(micro: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        some = [course.split.learned[row] for row in micro]
        first, second = _log_odds(course.judge.model, some, course.machine)
        loss = pairwise_loss(first, second).sum() / len(rows)
        return loss, {
            "tokens": float(sum(side.length for pair in some for side in pair)),
            "loss": float(loss.detach()),
            "accuracy": float((first > second).sum()) / len(rows),
            "position_bias": float((first + second).detach().sum()) / 2 / len(rows),
        }

    return learn


def write(
    folder: Path, candidates: Path, share: tuple[int, int], judge: str, out: Path, machine: Machine
) -> int:
    """Comparisons of all answers to each prompt, in both orders, as Parquet in `out`; how many.

    `share` is the first prompt to judge and the number of prompts, `judge` what the judge is
    called. Raises BadInput where two answers are more than the judge reads.
    """
    loaded = load_scorer(folder, machine)
    rows = pl.read_parquet(candidates).with_row_index("row")
    tables = rows.partition_by(PROMPT, maintain_order=True)[share[0] : sum(share)]
    found = (
        compared(loaded, tables[start : start + PROMPTS], judge, machine)
        for start in range(0, len(tables), PROMPTS)
    )
    return parts.lay(found, Comparisons.columns, out)


def compared(
    judge: Loaded, prompts: Sequence[pl.DataFrame], name: str, machine: Machine
) -> pl.DataFrame:
    """Every answer to a prompt against every answer to it, with the columns of Comparisons.

    An answer is not asked about against itself: that is a tie, 0.
    """
    form, pairs = Form.of(judge.tokenizer), list[Pair]()
    for rows in prompts:
        answers = encode(rows, "output", judge.tokenizer)
        for at, one in enumerate(answers):
            for number, other in enumerate(answers[:at]):
                pair = form.both(one.prompt, one.response, other.response)
                _check_length(pair, (rows["row"][at], rows["row"][number]), judge, name)
                pairs.append(pair)
    judged = iter(log_odds(judge, pairs, machine).tolist())
    tables = [_table(rows, judged) for rows in prompts]
    return pl.concat(tables).with_columns(judge=pl.lit(name)).select(list(Comparisons.columns))


@torch.no_grad()
def log_odds(judge: Loaded, pairs: Sequence[Pair], machine: Machine) -> Tensor:
    """Log-odds that the answer shown first is better, in both orders of each pair, [B, 2]."""
    found = torch.zeros(len(pairs), 2)
    for micro in alike(pairs, range(len(pairs)), Room.of(machine)):
        both = _log_odds(judge.model, [pairs[row] for row in micro], machine)
        found[micro] = torch.stack(both, 1).cpu()
    return found


def _table(rows: pl.DataFrame, judged: Iterator[list[float]]) -> pl.DataFrame:
    """One prompt's answers against each other, K * K rows; takes what was judged in its order."""
    size = rows.height
    logits = [[0.0] * size for _ in range(size)]
    for at in range(size):
        for number in range(at):
            logits[at][number], logits[number][at] = next(judged)
    index = [at for at in range(size) for _ in range(size)]
    return rows[index].with_columns(
        index=pl.Series(index, dtype=pl.Int64),
        rival=pl.Series(list(range(size)) * size, dtype=pl.Int64),
        logit=pl.Series(list(chain.from_iterable(logits)), dtype=pl.Float64),
    )


def _log_odds(model: Any, pairs: Sequence[Pair], machine: Machine) -> tuple[Tensor, Tensor]:
    """As `log_odds`, with gradient: the first order's and the second's, each [B]."""
    batch = _batch(model, pairs, machine).to(begin(machine))
    with autocast(machine):
        first, second = response_scores(model, batch).chunk(2)
    return first, second


def _batch(model: Any, pairs: Sequence[Pair], machine: Machine) -> Padded:
    return batch_of(pairs, sharing(model), machine.packs())


def _descended(
    course: Course, checkpoints: Checkpoints, out: Path
) -> tuple[list[dict[str, float]], Tensor]:
    """All steps, then the judge is saved by one process; its log-odds of held-out pairs, [B, 2]."""
    judge, machine, learned = course.judge, course.machine, course.split.learned
    training = course.fitting.training

    def batch(rows: Sequence[int]) -> Padded:
        return _batch(judge.model, [learned[row] for row in rows], machine)

    trial = Trial([judge.model], learned, training.batch, partial(lesson, course), batch)
    engine, steps = descended(trial, training, checkpoints, machine)
    with engine.whole():
        if engine.team.leads:
            save(judge, out)
        return steps, log_odds(judge, course.split.held_out, machine)


def _check_length(pair: Pair, rows: tuple[int, int], judge: Loaded, name: str) -> None:
    if pair.length > longest(judge):
        raise BadInput(
            f"rows {rows[1]} and {rows[0]}: prompt and both answers are {pair.length} tokens, and "
            f"{name} reads {longest(judge)}; fit it with a larger training.max_length, or sample "
            "with a lower max_tokens"
        )


def _refuse_terms(fitting: Fitting) -> None:
    """A pairwise judge has one loss; raises BadInput where another is asked for."""
    usual = Fitting()
    for name in ("margin", "penalty", "odin", "committee", "head", "share"):
        if getattr(fitting, name) != getattr(usual, name):
            raise BadInput(f"fitting.{name} is for reward models; a pairwise judge goes without it")
