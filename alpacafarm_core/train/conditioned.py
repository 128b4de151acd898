"""Quark's loop: sample, sort by reward, learn the best, or all behind a token that says how good.

AlpacaFarm's recipe (Dubois et al. 2023) with what went wrong in its code put right: the sampled
ids are learned, the end token with them; responses are padded on the right, and padding counts for
nothing; quantiles are taken over the rollouts of all processes. The reference never sees a reward
token, and none is ever sampled. Dropout is off throughout.
"""

import logging
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor

from alpacafarm_core.conditioning import ConditionedLogps, ConditionedObjective
from alpacafarm_core.generate import seed_of, wants_vllm
from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import NO_PAST, Past
from alpacafarm_core.quantiles import quantiles, quantiles_within
from alpacafarm_core.sampler import Sampler
from alpacafarm_core.train import rl
from alpacafarm_core.train.batches import Room, alike, padded
from alpacafarm_core.train.checkpoint import Checkpoints, State
from alpacafarm_core.train.contracts import finite, near
from alpacafarm_core.train.course import (
    Course,
    Folders,
    check_fit,
    checkpoints_of,
    keep,
    met,
    prompts_of,
    sampled,
    sampler_of,
    share_of,
)
from alpacafarm_core.train.descent import Lesson, step
from alpacafarm_core.train.engine import Learn, accumulate, engaged, gathered, together
from alpacafarm_core.train.forward import response_divergences
from alpacafarm_core.train.logbook import Logbook, means
from alpacafarm_core.train.lora import take_up
from alpacafarm_core.train.models import Loaded, autocast, begin, grow, load_policy, save
from alpacafarm_core.train.pool import Pool, held, joined, restored
from alpacafarm_core.train.prompting import asked, endless
from alpacafarm_core.train.tokens import Tokens, reward_ids, tagged

log = logging.getLogger("alpacafarm.training")

SortedCourse = Course[ConditionedObjective]


class Taught(NamedTuple):
    """A response that is learned: after its prompt, and after what the policy is told before."""

    plain: Tokens
    told: Tokens


def roll_out(
    models: Folders,
    out: Path,
    instructions: pl.DataFrame,
    objective: ConditionedObjective,
    machine: Machine,
) -> dict[str, Any]:
    """Train a policy on its own sorted samples and save it in `out`.

    `models` are the folders of the start, the reward models and the reference (None: the start).
    Returns prompts used and left out as too long, and `steps`, the figures of each step. Goes on
    from a checkpoint beside `out`. Raises TrainingFailed when a contract is broken, BadInput when
    no prompt is short enough or the checkpoint is of something else.
    """
    with together(machine), torch.random.fork_rng():
        torch.manual_seed(objective.training.seed)
        course = enrol(models, objective, machine)
        with closing(course.sampler):
            prompts = prompts_of(course, instructions, before=int(objective.is_tagged))
            check_fit(course, max(prompts, key=len), partial(_first_lesson, course))
            steps = _run(course, prompts, checkpoints_of(course, models, prompts, out))
        keep(course, out)
    return {"rows": len(prompts), "too_long": instructions.height - len(prompts), "steps": steps}


def _first_lesson(course: SortedCourse, rows: list[Tokens]) -> Lesson:
    """A lesson on rows before which nothing is told."""
    return partial(lesson, course, [Taught(row, row) for row in rows])


def enrol(models: Folders, objective: ConditionedObjective, machine: Machine) -> SortedCourse:
    """Load everybody; the policy gets its reward tokens, where it learns behind them.

    Raises what `met` does.
    """
    start, _, reference = models
    policy, scorer = met(models, objective, machine)
    if objective.is_tagged:
        grow(policy, objective.sorting.quantiles, objective.training.seed)
    sampler = _sampler(start, policy, objective, machine)
    take_up(policy.model, objective.training)
    policy.model.eval()
    return Course(
        engine=engaged([policy.model], objective.training, machine),
        policy=policy,
        critic=None,
        scorer=scorer,
        reference=load_policy(reference or start, machine).model,
        sampler=sampler,
        objective=objective,
        machine=machine,
    )


def experience(course: SortedCourse, prompts: Sequence[list[int]], at: int) -> Pool:
    """Sample the responses of a step, each prompt given as often as it is answered, and score them.

    After the first step a policy that learns behind reward tokens answers behind the best one. Each
    process takes its share; all of them get all responses.
    """
    tokenizer, mine = course.policy.tokenizer, share_of(course, prompts)
    some = told = [list(prompts[row]) for row in mine]
    if course.objective.is_tagged and at > 0:
        best = reward_ids(tokenizer)[0]
        told = [tagged(prompt, best, tokenizer) for prompt in some]
    with course.engine.whole():
        samples = sampled(course, told, mine, at)
        rows = [Tokens(prompt, one.ids) for prompt, one in zip(some, samples, strict=True)]
        part = Pool(
            rows=rows,
            scores=torch.tensor(course.scorer.scores(rows, course.machine)),
            finished=torch.tensor([one.finish_reason == "stop" for one in samples]),
        )
    return joined(gathered(part))


def graded(pool: Pool, objective: ConditionedObjective) -> list[int]:
    """The quantile of each response of a pool, 0 being the best."""
    found = rl.finished_scores(pool.scores, pool.finished, objective.sorting.missing_eos).tolist()
    if objective.sorting.scope == "pool":
        return quantiles(found, objective.sorting.quantiles)
    prompts = [tuple(row.prompt) for row in pool.rows]
    return quantiles_within(found, prompts, objective.sorting.quantiles)


def chosen(pool: Pool, tokenizer: Any, objective: ConditionedObjective) -> list[Taught]:
    """What is learned of a pool: its best quantile, or all of it behind reward tokens."""
    grades, tokens = graded(pool, objective), reward_ids(tokenizer)
    if not objective.is_tagged:
        return [Taught(row, row) for row, grade in zip(pool.rows, grades, strict=True) if not grade]
    return [
        Taught(row, row._replace(prompt=tagged(row.prompt, tokens[grade], tokenizer)))
        for row, grade in zip(pool.rows, grades, strict=True)
    ]


def lesson(
    course: SortedCourse, taught: Sequence[Taught], rows: Sequence[int], _: Past = NO_PAST
) -> Learn:
    """What one micro-batch adds to a gradient step on these rows: its part of the mean loss.

    Means are over the response tokens of all the rows, or over their places up to `max_tokens`. The
    figures are the parts of the loss, of the KL in nats a response and of the entropy a token.
    """
    objective = course.objective
    tokens = sum(len(taught[row].plain.response) for row in rows)
    is_real = objective.mean_over == "tokens"
    places = tokens if is_real else len(rows) * objective.sampling.max_tokens

    def learn(micro: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        view = _seen(course, [taught[row] for row in micro])
        loss = (objective.loss(view) * view.mask).sum() / places
        sums = (view.kl.detach().sum() / len(rows), view.entropies.detach().sum() / tokens)
        found = torch.stack([loss.detach(), *sums]).tolist()
        return loss, dict(zip(("loss", "kl", "entropy"), found, strict=True))

    return learn


def _run(
    course: SortedCourse, prompts: Sequence[list[int]], checkpoints: Checkpoints
) -> list[dict[str, float]]:
    """All steps, or those that a checkpoint leaves; a pool that is kept is in the checkpoint."""
    objective, engine = course.objective, course.engine
    begun = checkpoints.latest(engine) or State(0)
    book = Logbook(checkpoints.feed if engine.team.leads else None, begun.history)
    drawn = endless(prompts, objective.training.seed)
    pool = restored(begun.tensors)
    for at in range(objective.steps):
        some = asked(drawn, objective.rollouts, objective.sampling.n)
        if at < begun.step:
            continue
        fresh = experience(course, some, at)
        pool = joined([pool, fresh]) if objective.sorting.keep_pool else fresh
        figures = _described(fresh) | _improve(course, pool, at)
        finite(figures, at, objective.steps)
        near(figures["kl"], objective.kl_limit, at)
        book.note(at, objective.steps, figures)
        kept = held(pool) if objective.sorting.keep_pool else {}
        state, is_last = State(at + 1, book.history, tensors=kept), at + 1 == objective.steps
        checkpoints.save(engine, state, is_last)
    return book.history


def _improve(course: SortedCourse, pool: Pool, at: int) -> dict[str, float]:
    """The gradient steps of one step, all at one learning rate; the means of their figures."""
    objective = course.objective
    taught = chosen(pool, course.policy.tokenizer, objective)
    told, size = [one.told for one in taught], min(objective.minibatch, len(taught))
    shuffle = torch.Generator().manual_seed(seed_of(objective.training.seed, "quantiles", at))
    history: list[dict[str, float]] = []
    order: list[int] = []
    for _ in range(objective.gradient_steps):
        while len(order) < size:
            order += torch.randperm(len(taught), generator=shuffle).tolist()
        rows, order = order[:size], order[size:]
        minibatch = alike(told, rows, Room.of(course.machine))
        figures = accumulate(course.engine, minibatch, lesson(course, taught, rows))
        history.append(figures | step(course.engine, objective.training, at, objective.steps))
    return means(history) | {"learned": float(len(taught))}


def _seen(course: SortedCourse, some: Sequence[Taught]) -> ConditionedLogps:
    """What the loss asks for, with gradient; the reference reads the prompts without a token."""
    device = begin(course.machine)
    told = padded([one.told for one in some]).to(device)
    plain = padded([one.plain for one in some]).to(device)
    never = reward_ids(course.policy.tokenizer)
    with autocast(course.machine):
        both = (course.policy.model, told), (course.reference, plain)
        found = response_divergences(*both, never)
    return ConditionedLogps(*found, told.mask.float())


def _described(fresh: Pool) -> dict[str, float]:
    """What a step's responses are like."""
    lengths = torch.tensor([float(len(row.response)) for row in fresh.rows])
    return {
        "reward": float(fresh.scores.mean()),
        "length": float(lengths.mean()),
        "tokens": float(lengths.sum()),
        "eos_rate": float(fresh.finished.float().mean()),
    }


def _sampler(
    start: Path, policy: Loaded, objective: ConditionedObjective, machine: Machine
) -> Sampler:
    """An engine that follows the policy and samples no reward token."""
    longest, never = objective.training.max_length, reward_ids(policy.tokenizer)
    if not (objective.is_tagged and wants_vllm(machine)):
        return sampler_of(start, policy, longest, machine, never)
    with TemporaryDirectory(prefix="alpacafarm-") as folder:
        # vLLM makes room for as many tokens as it finds on disk.
        save(policy, Path(folder))
        return sampler_of(Path(folder), policy, longest, machine, never)
