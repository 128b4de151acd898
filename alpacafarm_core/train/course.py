"""Who takes part in a loop that samples: a policy learns, scorer and reference look on.

And what such loops, PPO's and Quark's, do alike. With LoRA policy, critic and a reference that is
the start stand on one base: the policy's.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import polars as pl
import torch

from alpacafarm_core.committees import Judges, folders_of
from alpacafarm_core.conditioning import ConditionedObjective
from alpacafarm_core.errors import BadInput
from alpacafarm_core.generate import seed_of, wants_vllm
from alpacafarm_core.machine import Machine
from alpacafarm_core.proximal import OnlineObjective
from alpacafarm_core.sampler import Sample, Sampler
from alpacafarm_core.train.batches import padded, tokenizer_digest
from alpacafarm_core.train.bench import Bench, seated
from alpacafarm_core.train.checkpoint import Checkpoints, origin
from alpacafarm_core.train.descent import Lesson
from alpacafarm_core.train.engine import Engine, engaged
from alpacafarm_core.train.lora import SharedCritic, take_up
from alpacafarm_core.train.models import Loaded, fits, load_policy, load_scorer, save
from alpacafarm_core.train.prompting import that_fit
from alpacafarm_core.train.rewarding import References, digest_of
from alpacafarm_core.train.team import Team
from alpacafarm_core.train.tokens import Tokens
from alpacafarm_core.train.trial import Trial, check_on, frozen_of

Folders = tuple[Path, Judges, Path | None]
"""Of the start, the reward model (or those of a committee) and the reference; none: the start."""

Aim = TypeVar("Aim", bound=OnlineObjective | ConditionedObjective)


class Course(NamedTuple, Generic[Aim]):
    """Who takes part, and by which rules; `critic` is None where nobody estimates values."""

    engine: Engine
    policy: Loaded
    critic: Any
    scorer: Bench
    reference: Any
    sampler: Sampler
    objective: Aim
    machine: Machine

    @property
    def learners(self) -> list[Any]:
        """The models that learn."""
        return _learners(self.policy, self.critic)


OnlineCourse = Course[OnlineObjective]
AnyCourse = Course[OnlineObjective] | Course[ConditionedObjective]


def enrol(models: Folders, objective: OnlineObjective, machine: Machine) -> OnlineCourse:
    """Load everybody for PPO or a sibling of it; raises what `met` does."""
    start, _, reference = models
    policy, scorer = met(models, objective, machine)
    critic = _critic(models, policy.model, objective, machine)
    learners = _learners(policy, critic)
    for model in learners:
        # Adapters come with dropout that is on; everything is looked at and learned without.
        model.eval()
    is_base = objective.training.lora is not None and reference in (None, start)
    return Course(
        engine=engaged(learners, objective.training, machine),
        policy=policy,
        critic=critic,
        scorer=scorer,
        reference=policy.model if is_base else load_policy(reference or start, machine).model,
        sampler=sampler_of(start, policy, objective.training.max_length, machine),
        objective=objective,
        machine=machine,
    )


def met(
    models: Folders, objective: OnlineObjective | ConditionedObjective, machine: Machine
) -> tuple[Loaded, Bench]:
    """The policy as it starts, and the scorer.

    Raises BadInput when a reward model has another tokenizer, the model sees too little, or
    there are fewer rollouts than processes.
    """
    start, reward, _ = models
    policy, scorer = load_policy(start, machine), seated(reward, machine)
    for folder, member in zip(folders_of(reward), scorer.members, strict=True):
        if tokenizer_digest(policy.tokenizer) != tokenizer_digest(member.tokenizer):
            raise BadInput(
                f"{start} and {folder} have different tokenizers; fit the reward on {start}"
            )
    fits(policy, start, objective.training.max_length)
    if objective.rollouts < (size := Team.here().size):
        raise BadInput(f"{objective.rollouts} rollouts for {size} processes; ask for more of them")
    return policy, scorer


def sampler_of(
    start: Path, policy: Loaded, longest: int, machine: Machine, never: Sequence[int] = ()
) -> Sampler:
    """An engine that follows the policy: vLLM with a copy of the weights, or the module itself.

    It samples no token of `never`.
    """
    eos = policy.tokenizer.eos_token_id
    if wants_vllm(machine):
        from alpacafarm_core.vllm_engine import VLLMSampler

        return VLLMSampler(start, longest, eos, machine, never)
    from alpacafarm_core.decoding import TransformersSampler

    return TransformersSampler(policy.model, eos, never)


def prompts_of(course: AnyCourse, rows: pl.DataFrame, before: int = 0) -> list[list[int]]:
    """Prompts that leave room for the longest answer, and for `before` tokens ahead of them."""
    settings = course.objective
    room = settings.training.max_length - settings.sampling.max_tokens - before
    return that_fit(rows, course.policy.tokenizer, room)


def check_fit(
    course: AnyCourse, prompt: list[int], lesson: Callable[[list[Tokens]], Lesson]
) -> None:
    """Try the longest minibatch there could be; `lesson` says what is learned from its rows."""
    answer = [course.policy.tokenizer.eos_token_id] * course.objective.sampling.max_tokens
    rows = [Tokens(prompt, answer)] * course.objective.minibatch
    looks_on = [] if course.reference is course.policy.model else [course.reference]
    trial = Trial(
        models=course.learners,
        examples=rows,
        size=len(rows),
        lesson=lesson(rows),
        batch=lambda micro: padded([rows[row] for row in micro]),
        frozen=frozen_of(looks_on, [member.model for member in course.scorer.members]),
    )
    check_on(trial, course.machine)


def checkpoints_of(
    course: AnyCourse,
    models: Folders,
    prompts: Sequence[list[int]],
    out: Path,
    references: References | None = None,
) -> Checkpoints:
    """Where this training goes on from, if it was stopped; raises BadInput where it was another."""
    start, judges, reference = models
    recipe = origin(
        (start, *folders_of(judges), reference), prompts, course.objective, course.machine
    )
    recipe["machine"]["sampler"] = type(course.sampler).__name__
    if references:
        recipe["ref_rewards"] = digest_of(references)
    return Checkpoints(out, recipe, course.machine)


def share_of(course: AnyCourse, prompts: Sequence[list[int]]) -> range:
    """The places of those of a step's prompts that this process answers."""
    rank, size, _ = course.engine.team
    return range(rank * len(prompts) // size, (rank + 1) * len(prompts) // size)


def sampled(
    course: AnyCourse, prompts: Sequence[list[int]], places: range, at: int
) -> list[Sample]:
    """What the policy of step `at` answers to prompts that stand at these places of the step."""
    sampling = course.objective.sampling
    seeds = [seed_of(sampling.seed, f"rollout {at}", place) for place in places]
    course.sampler.sync(course.policy.model)
    samples = course.sampler.sample(prompts, sampling, seeds)
    course.sampler.rest()
    return samples


def keep(course: AnyCourse, out: Path) -> None:
    """Save the policy, once for all processes."""
    with course.engine.whole():
        if course.engine.team.leads:
            save(course.policy, out)


def _learners(policy: Loaded, critic: Any) -> list[Any]:
    return [policy.model] if critic is None else [policy.model, critic]


def _critic(models: Folders, policy: Any, objective: OnlineObjective, machine: Machine) -> Any:
    """The reward model's or the policy's backbone, or an adapter on the latter; its head zero.

    Of a committee it is the first member's. None where the objective has no use for one; the
    policy takes up its own adapter all the same.
    """
    training, settings = objective.training, objective.value_model
    take_up(policy, training)
    if settings is None:
        return None
    if training.lora is not None:
        return SharedCritic(policy, training.lora, training.seed)
    begins = folders_of(models[1])[0] if settings.init == "reward" else models[0]
    critic = load_scorer(begins, machine).model
    torch.nn.init.zeros_(critic.score.weight)
    return critic
