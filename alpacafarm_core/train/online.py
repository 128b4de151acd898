"""PPO and its siblings: sample, score, improve, again; the data is the policy's own.

AlpacaFarm's recipe (Dubois et al. 2023, appendix), with what went wrong in its code put right: the
sampled ids are scored, not their text; an unfinished response is noticed on its ids; statistics
leave padding out; old log-probabilities are those of the trainer, not of the sampler; gradients of
a minibatch do not depend on the micro-batch, nor on how many processes share the work. Dropout is
off throughout.
"""

import logging
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alpacafarm_core.generate import seed_of
from alpacafarm_core.machine import Machine
from alpacafarm_core.proximal import OnlineObjective
from alpacafarm_core.sampler import Sample
from alpacafarm_core.train import rl
from alpacafarm_core.train.batches import Room, Tokens, alike, padded
from alpacafarm_core.train.checkpoint import Checkpoints, State
from alpacafarm_core.train.contracts import agreeing, finite, near
from alpacafarm_core.train.course import (
    Folders,
    OnlineCourse,
    check_fit,
    checkpoints_of,
    enrol,
    keep,
    prompts_of,
    sampled,
    share_of,
)
from alpacafarm_core.train.descent import Lesson, step
from alpacafarm_core.train.engine import accumulate, gathered, together
from alpacafarm_core.train.forward import judged
from alpacafarm_core.train.lessons import lesson, values_of
from alpacafarm_core.train.logbook import Logbook, means
from alpacafarm_core.train.lora import base_of
from alpacafarm_core.train.models import autocast, begin, precision
from alpacafarm_core.train.prompting import asked, endless
from alpacafarm_core.train.rewarding import (
    References,
    earned,
    penalised,
    references_of,
    rewarded,
)
from alpacafarm_core.train.rollouts import (
    Rollouts,
    agreement,
    below_reference,
    described,
    held,
    imagined,
    joined,
    restored,
)
from alpacafarm_core.train.shaping import Running

log = logging.getLogger("alpacafarm.training")

LOOKS = ("mask", "logprobs", "ref_logprobs", "entropies", "values")


def roll_out(
    models: Folders,
    out: Path,
    instructions: pl.DataFrame,
    objective: OnlineObjective,
    machine: Machine,
) -> dict[str, Any]:
    """Train a policy on its own samples and save it in `out`.

    `models` are the folders of the start, the reward models and the reference (None: the start).
    Returns prompts used and left out as too long, and `steps`, the figures of each step. Goes on
    from a checkpoint beside `out`. Raises TrainingFailed when a contract is broken, BadInput when
    no prompt is short enough, the checkpoint is of something else, or `instructions` have no column
    `ref_rewards` where the reshaping reads it.
    """
    with together(machine), torch.random.fork_rng():
        torch.manual_seed(objective.training.seed)
        course = enrol(models, objective, machine)
        with closing(course.sampler):
            prompts = prompts_of(course, instructions)
            refs = references_of(instructions, course.policy.tokenizer, objective.shaping)
            check_fit(course, max(prompts, key=len), partial(_first_lesson, course))
            checkpoints = checkpoints_of(course, models, prompts, out, refs)
            steps = _run(course, prompts, refs, checkpoints)
        keep(course, out)
    return {"rows": len(prompts), "too_long": instructions.height - len(prompts), "steps": steps}


def _first_lesson(course: OnlineCourse, rows: list[Tokens]) -> Lesson:
    """A lesson on rows of which nothing is known."""
    rollouts = imagined(rows)
    return partial(lesson, course, rollouts, rl.Advantages(rollouts.values, rollouts.values))


def experience(course: OnlineCourse, prompts: Sequence[list[int]], at: int) -> Rollouts:
    """Sample a response to each prompt and have everybody look at it.

    Each process takes its share of the prompts; all of them get all rollouts, so that whatever is
    computed over a step's rollouts is computed over the whole of them.
    """
    mine = share_of(course, prompts)
    some = [list(prompts[row]) for row in mine]
    with course.engine.whole():
        samples = sampled(course, some, mine, at)
        rows = [Tokens(prompt, one.ids) for prompt, one in zip(some, samples, strict=True)]
        part = Rollouts(
            rows=rows,
            scores=torch.tensor(course.scorer.scores(rows, course.machine)),
            finished=torch.tensor([sample.finish_reason == "stop" for sample in samples]),
            sampled=_told(samples),
            **_looked_at(course, rows),
        )
    return joined(gathered(part))


def learned(
    rollouts: Rollouts, kl_coef: float, objective: OnlineObjective, rewards: Tensor | None = None
) -> rl.Advantages:
    """What the tokens of a step's rollouts were worth, as the objective has it.

    `rewards` [B] are what the responses earn; None: their scores less penalties. Where the sampler
    and the trainer differ, an advantage counts by how much likelier its token is to the trainer, up
    to a cap.
    """
    worth = penalised(rollouts, objective.shaping) if rewards is None else rewards
    found = objective.advantages(rollouts._replace(scores=worth), kl_coef)
    cap = objective.shaping.importance_cap
    trust = 1.0 if cap is None else rl.importance(rollouts.logprobs, rollouts.sampled, cap)
    return found._replace(advantages=found.advantages * trust)


def _run(
    course: OnlineCourse,
    prompts: Sequence[list[int]],
    references: References,
    checkpoints: Checkpoints,
) -> list[dict[str, float]]:
    """All steps, or those that a checkpoint leaves; rollouts in hand are learned from first."""
    objective, engine = course.objective, course.engine
    begun = checkpoints.latest(engine) or State(0, numbers={"kl_coef": objective.kl.coef})
    feed = checkpoints.feed if engine.team.leads else None
    coef, running = begun.numbers["kl_coef"], Running.of(begun.numbers)
    book = Logbook(feed, begun.history)
    drawn = endless(prompts, objective.training.seed)
    in_hand = restored(begun.tensors) if begun.tensors else None
    for at in range(objective.steps):
        some = asked(drawn, objective.rollouts, objective.sampling.n)
        if at < begun.step:
            continue
        rollouts, in_hand = in_hand or experience(course, some, at), None
        numbers = {"kl_coef": coef} | running.numbers()
        checkpoints.save(engine, State(at, book.history, numbers, held(rollouts)))
        rewards, running = rewarded(rollouts, objective.shaping, references, running)
        taught = learned(rollouts, coef, objective, rewards)
        figures = {"kl_coef": coef} | _sound(course, rollouts, at)
        figures |= earned(rewards, objective.shaping)
        if course.critic is not None:
            fit = rl.explained_variance(rollouts.values, taught.returns, rollouts.mask)
            figures["explained_variance"] = float(fit)
        figures |= _improve(course, rollouts, taught, at)
        finite(figures, at, objective.steps)
        book.note(at, objective.steps, figures)
        coef = rl.adapted(coef, _nats(rollouts, objective), objective.kl.target)
        numbers = {"kl_coef": coef} | running.numbers()
        state, is_last = State(at + 1, book.history, numbers), at + 1 == objective.steps
        checkpoints.save(engine, state, is_last)
    return book.history


def _improve(
    course: OnlineCourse, rollouts: Rollouts, taught: rl.Advantages, at: int
) -> dict[str, float]:
    """Every gradient step of one PPO step, all at one learning rate; the means of their figures."""
    objective, count = course.objective, len(rollouts.rows)
    shuffle = torch.Generator().manual_seed(seed_of(objective.training.seed, "minibatches", at))
    history: list[dict[str, float]] = []
    for _ in range(objective.inner_epochs):
        order: list[int] = torch.randperm(count, generator=shuffle).tolist()
        for start in range(0, len(order), objective.minibatch):
            rows = order[start : start + objective.minibatch]
            minibatch = alike(rollouts.rows, rows, Room.of(course.machine))
            learn = lesson(course, rollouts, taught, rows)
            figures = accumulate(course.engine, minibatch, learn)
            history.append(figures | step(course.engine, objective.training, at, objective.steps))
    return means(history)


def _told(samples: Sequence[Sample]) -> Tensor:
    """The sampler's log-probabilities, [B, R]; not a number where it gave none."""
    nothing = float("nan")
    return pad_sequence(
        [torch.tensor(s.logprobs or [nothing] * len(s.ids)) for s in samples], batch_first=True
    )


@torch.no_grad()
def _looked_at(course: OnlineCourse, rows: Sequence[Tokens]) -> dict[str, Tensor]:
    """Mask, log-probabilities, entropies and values of all responses, each [B, R]."""
    shape = (len(rows), max(len(row.response) for row in rows))
    found = {name: torch.zeros(shape) for name in LOOKS}
    temperature = course.objective.sampling.temperature
    for micro in alike(rows, range(len(rows)), Room.of(course.machine)):
        batch = padded([rows[row] for row in micro]).to(begin(course.machine))
        with autocast(course.machine):
            ours = judged(course.policy.model, batch, temperature)
            with base_of(course.reference):
                theirs = judged(course.reference, batch, temperature)
            values = values_of(course, batch)
        absent = torch.zeros_like(ours.logprobs) if values is None else values
        seen = (batch.mask.float(), ours.logprobs, theirs.logprobs, ours.entropies, absent)
        for name, tensor in zip(LOOKS, seen, strict=True):
            found[name][micro, : tensor.shape[1]] = tensor.cpu()
    return found


def _nats(rollouts: Rollouts, objective: OnlineObjective) -> float:
    """Mean KL of a response under the estimator that is penalised."""
    found = rl.kl(rollouts.logprobs, rollouts.ref_logprobs, objective.kl.estimator)
    return float((found * rollouts.mask).sum(1).mean())


def _sound(course: OnlineCourse, rollouts: Rollouts, at: int) -> dict[str, float]:
    """What rollouts are like, found fit to learn from; raises ContractBroken where they are not."""
    gap, figures = agreement(rollouts), described(rollouts)
    if gap:
        agreeing(gap, precision(course.machine), at)
    finite(figures, at, course.objective.steps)
    near(figures["kl"], course.objective.kl.limit, at)
    if below_reference(rollouts):
        log.warning(
            "step %d: the signed KL is %.3f nats a response, and no distance is negative; set "
            "kl.estimator k3 or lower kl.coef",
            at + 1,
            figures["kl"],
        )
    return figures | gap
