"""PPO: sample, score, improve, again; the one loop in which the data is the policy's own.

AlpacaFarm's recipe (Dubois et al. 2023, appendix), with what went wrong in its code put right: the
sampled ids are scored, not their text; an unfinished response is noticed on its ids; statistics
leave padding out; old log-probabilities are those of the trainer, not of the sampler; gradients of
a minibatch do not depend on the micro-batch. Dropout is off throughout. Left out: going on from a
checkpoint; only the last state is saved.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor

from alpacafarm_core.errors import BadInput, TrainingFailed
from alpacafarm_core.generate import seed_of, wants_vllm
from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import ProximalObjective
from alpacafarm_core.reward import scores
from alpacafarm_core.sampler import Sampler
from alpacafarm_core.train import rl
from alpacafarm_core.train.batches import (
    Tokens,
    alike,
    padded,
    prompt_ids,
    prompt_texts,
    tokenizer_digest,
)
from alpacafarm_core.train.descent import Descent, MicroBatches
from alpacafarm_core.train.forward import judged, response_logprobs, response_values
from alpacafarm_core.train.models import Loaded, autocast, begin, load_policy, load_scorer, save

log = logging.getLogger("alpacafarm.training")

PER_TOKEN = ("logprobs", "ref_logprobs", "entropies", "values")


class Course(NamedTuple):
    """Who takes part, and by which rules: policy and critic learn, scorer and reference do not."""

    policy: Loaded
    critic: Any
    scorer: Loaded
    reference: Any
    sampler: Sampler
    objective: ProximalObjective
    machine: Machine


class Rollouts(NamedTuple):
    """One step's responses, and what the models say of them before they learn from them.

    `scores` and `finished` are [B]; the rest is [B, R], zero on padding.
    """

    rows: list[Tokens]
    scores: Tensor
    finished: Tensor
    mask: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    entropies: Tensor
    values: Tensor


def roll_out(
    models: tuple[Path, Path, Path | None],
    out: Path,
    instructions: pl.DataFrame,
    objective: ProximalObjective,
    machine: Machine,
) -> dict[str, Any]:
    """Train a policy on its own samples and save it in `out`.

    `models` are the folders of the start, the reward model and the reference (None: the start).
    Returns prompts used and left out as too long, and `steps`, the figures of each step. Raises
    TrainingFailed when a figure is not a number or no prompt is short enough.
    """
    with torch.random.fork_rng():
        torch.manual_seed(objective.training.seed)
        course = enrol(models, objective, machine)
        prompts = _prompts(instructions, course)
        steps = _run(course, prompts)
    course.sampler.close()
    save(course.policy, out)
    return {"rows": len(prompts), "too_long": instructions.height - len(prompts), "steps": steps}


def enrol(
    models: tuple[Path, Path, Path | None], objective: ProximalObjective, machine: Machine
) -> Course:
    """Load everybody; the critic is the reward model's or the policy's backbone, its head zero."""
    start, reward, reference = models
    policy, scorer = load_policy(start, machine), load_scorer(reward, machine)
    if tokenizer_digest(policy.tokenizer) != tokenizer_digest(scorer.tokenizer):
        raise BadInput(f"{start} and {reward} have different tokenizers; fit the reward on {start}")
    critic = load_scorer(reward if objective.critic.init == "reward" else start, machine).model
    torch.nn.init.zeros_(critic.score.weight)
    return Course(
        policy=policy,
        critic=critic,
        scorer=scorer,
        reference=load_policy(reference or start, machine).model,
        sampler=_sampler(start, policy, objective, machine),
        objective=objective,
        machine=machine,
    )


def experience(course: Course, prompts: Sequence[list[int]], at: int) -> Rollouts:
    """Sample a response to each prompt and have everybody look at it."""
    sampling = course.objective.sampling
    seeds = [seed_of(sampling.seed, f"rollout {at}", row) for row in range(len(prompts))]
    course.sampler.sync(course.policy.model)
    samples = course.sampler.sample(prompts, sampling, seeds)
    rows = [Tokens(list(p), sample.ids) for p, sample in zip(prompts, samples, strict=True)]
    return Rollouts(
        rows=rows,
        scores=torch.tensor(scores(course.scorer, rows, course.machine)),
        finished=torch.tensor([sample.finish_reason == "stop" for sample in samples]),
        **_looked_at(course, rows),
    )


def learned(rollouts: Rollouts, kl_coef: float, objective: ProximalObjective) -> rl.Advantages:
    """Scores and KL penalties to whitened advantages, and the returns for the critic."""
    shaping, mask = objective.shaping, rollouts.mask
    penalties = rl.kl(rollouts.logprobs, rollouts.ref_logprobs, objective.kl.estimator)
    ends = rl.finished_scores(rollouts.scores, rollouts.finished, shaping.missing_eos)
    rewards = rl.place_rewards(ends, penalties, mask, kl_coef)
    if shaping.whiten:
        rewards = rl.whiten(rewards, mask, keep_mean=True)
    found = rl.estimate_advantages(rewards, rollouts.values, mask, objective.gamma, objective.lam)
    return found._replace(advantages=rl.whiten(found.advantages, mask, keep_mean=False))


def accumulate(
    course: Course, rollouts: Rollouts, lesson: rl.Advantages, minibatch: MicroBatches
) -> dict[str, float]:
    """Add the gradients of one minibatch to policy and critic; its mean losses and clip fraction.

    Means are over the response tokens of the whole minibatch.
    """
    objective = course.objective
    rows = torch.tensor([row for micro in minibatch for row in micro])
    tokens = float(rollouts.mask[rows].sum())
    totals = torch.zeros(3)
    for micro in minibatch:
        logprobs, values, mask = _now(course, rollouts, micro)
        old, old_values, advantages, returns = (
            known[micro, : mask.shape[1]].to(mask.device)
            for known in (rollouts.logprobs, rollouts.values, *lesson)
        )
        policy = rl.policy_loss(logprobs, old, advantages, objective.clip) * mask
        value = rl.value_loss(values, old_values, returns, objective.critic.clip) * mask
        loss = (policy.sum() + objective.critic.coef * value.sum()) / tokens
        loss.backward()  # type: ignore[no-untyped-call]
        away = rl.clip_fraction(logprobs.detach(), old, mask, objective.clip) * mask.sum()
        totals += torch.stack([policy.detach().sum(), value.detach().sum(), away]).cpu() / tokens
    return dict(zip(("policy_loss", "value_loss", "clip_fraction"), totals.tolist(), strict=True))


def described(rollouts: Rollouts) -> dict[str, float]:
    """What a step's responses are like; KL in nats a response, entropy in nats a token."""
    mask = rollouts.mask
    signed = rl.kl(rollouts.logprobs, rollouts.ref_logprobs, "k1") * mask
    positive = rl.kl(rollouts.logprobs, rollouts.ref_logprobs, "k3") * mask
    return {
        "reward": float(rollouts.scores.mean()),
        "kl": float(signed.sum(1).mean()),
        "kl_k3": float(positive.sum(1).mean()),
        "entropy": float(rl.masked_mean(rollouts.entropies, mask)),
        "length": float(mask.sum(1).mean()),
        "eos_rate": float(rollouts.finished.float().mean()),
    }


def _run(course: Course, prompts: Sequence[list[int]]) -> list[dict[str, float]]:
    objective = course.objective
    models = [course.policy.model, course.critic]
    descent = Descent(models, objective.training, objective.steps)
    drawn, coef = _endless(prompts, objective.training.seed), objective.kl.coef
    history: list[dict[str, float]] = []
    for at in range(objective.steps):
        rollouts = experience(course, [next(drawn) for _ in range(objective.rollouts)], at)
        lesson = learned(rollouts, coef, objective)
        fit = rl.explained_variance(rollouts.values, lesson.returns, rollouts.mask)
        figures = {"kl_coef": coef, **described(rollouts), "explained_variance": float(fit)}
        figures |= _improve(course, rollouts, lesson, descent, at)
        history.append(_checked(figures, at))
        log.info("step %d/%d %s", at + 1, objective.steps, figures)
        coef = rl.adapted(coef, _nats(rollouts, objective), objective.kl.target)
    return history


def _improve(
    course: Course, rollouts: Rollouts, lesson: rl.Advantages, descent: Descent, at: int
) -> dict[str, float]:
    """Every gradient step of one PPO step, all at one learning rate; the means of their figures."""
    objective, count = course.objective, len(rollouts.rows)
    shuffle = torch.Generator().manual_seed(seed_of(objective.training.seed, "minibatches", at))
    history: list[dict[str, float]] = []
    for _ in range(objective.inner_epochs):
        order: list[int] = torch.randperm(count, generator=shuffle).tolist()
        for start in range(0, len(order), objective.minibatch):
            rows = order[start : start + objective.minibatch]
            minibatch = alike(rollouts.rows, rows, course.machine.micro_batch)
            figures = accumulate(course, rollouts, lesson, minibatch)
            history.append(figures | descent.step(at))
    return {name: sum(one[name] for one in history) / len(history) for name in history[0]}


@torch.no_grad()
def _looked_at(course: Course, rows: Sequence[Tokens]) -> dict[str, Tensor]:
    """Mask, log-probabilities, entropies and values of all responses, each [B, R]."""
    shape = (len(rows), max(len(row.response) for row in rows))
    found = {name: torch.zeros(shape) for name in ("mask", *PER_TOKEN)}
    for micro in alike(rows, range(len(rows)), course.machine.micro_batch):
        batch = padded([rows[row] for row in micro]).to(begin(course.machine))
        with autocast(course.machine):
            ours, theirs = judged(course.policy.model, batch), judged(course.reference, batch)
            values = response_values(course.critic, batch)
        seen = (batch.mask.float(), ours.logprobs, theirs.logprobs, ours.entropies, values)
        for name, tensor in zip(("mask", *PER_TOKEN), seen, strict=True):
            found[name][micro, : tensor.shape[1]] = tensor.cpu()
    return found


def _now(course: Course, rollouts: Rollouts, micro: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities and values of today's policy and critic, with gradient, and the mask."""
    batch = padded([rollouts.rows[row] for row in micro]).to(begin(course.machine))
    with autocast(course.machine):
        logprobs = response_logprobs(course.policy.model, batch)
        values = response_values(course.critic, batch)
    return logprobs, values, batch.mask.float()


def _nats(rollouts: Rollouts, objective: ProximalObjective) -> float:
    """Mean KL of a response under the estimator that is penalised."""
    found = rl.kl(rollouts.logprobs, rollouts.ref_logprobs, objective.kl.estimator)
    return float((found * rollouts.mask).sum(1).mean())


def _checked(figures: dict[str, float], at: int) -> dict[str, float]:
    wrong = [name for name, figure in figures.items() if not math.isfinite(figure)]
    if wrong:
        raise TrainingFailed(
            f"step {at + 1}: {', '.join(wrong)} not a number; lower the learning rate"
        )
    return figures


def _prompts(instructions: pl.DataFrame, course: Course) -> list[list[int]]:
    """Ids of the prompts that leave room for an answer within `max_length`."""
    objective = course.objective
    room = objective.training.max_length - objective.sampling.max_tokens
    every = prompt_ids(course.policy.tokenizer, prompt_texts(instructions))
    kept = [prompt for prompt in every if len(prompt) <= room]
    if len(kept) < len(every):
        log.warning("%d of %d prompts left out: too_long", len(every) - len(kept), len(every))
    if not kept:
        raise TrainingFailed(
            f"no prompt has at most {room} tokens (max_length less max_tokens); raise max_length"
        )
    return kept


def _endless(prompts: Sequence[list[int]], seed: int) -> Iterator[list[int]]:
    """The prompts over and over, in a new order each time."""
    shuffle = torch.Generator().manual_seed(seed)
    while True:
        for row in torch.randperm(len(prompts), generator=shuffle).tolist():
            yield prompts[row]


def _sampler(
    start: Path, policy: Loaded, objective: ProximalObjective, machine: Machine
) -> Sampler:
    """An engine that follows the policy: vLLM with a copy of the weights, or the module itself."""
    eos = policy.tokenizer.eos_token_id
    if wants_vllm(machine):
        from alpacafarm_core.vllm_engine import VLLMSampler

        return VLLMSampler(start, objective.training.max_length, eos, machine)
    from alpacafarm_core.decoding import TransformersSampler

    return TransformersSampler(policy.model, eos)
