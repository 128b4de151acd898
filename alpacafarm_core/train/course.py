"""Who takes part in PPO: policy and critic learn, scorer and reference do not.

With LoRA policy, critic and a reference that is the start stand on one base: the policy's.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from alpacafarm_core.errors import BadInput
from alpacafarm_core.generate import wants_vllm
from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import ProximalObjective
from alpacafarm_core.sampler import Sampler
from alpacafarm_core.train.batches import tokenizer_digest
from alpacafarm_core.train.engine import Engine, engaged
from alpacafarm_core.train.lora import SharedCritic, take_up
from alpacafarm_core.train.models import Loaded, fits, load_policy, load_scorer
from alpacafarm_core.train.team import Team


class Course(NamedTuple):
    """Who takes part, and by which rules: policy and critic learn, scorer and reference do not."""

    engine: Engine
    policy: Loaded
    critic: Any
    scorer: Loaded
    reference: Any
    sampler: Sampler
    objective: ProximalObjective
    machine: Machine


def enrol(
    models: tuple[Path, Path, Path | None], objective: ProximalObjective, machine: Machine
) -> Course:
    """Load everybody: `models` are the folders of the start, the reward model and the reference.

    Raises BadInput when the reward model has another tokenizer, or the model sees too little.
    """
    start, reward, reference = models
    policy, scorer = load_policy(start, machine), load_scorer(reward, machine)
    if tokenizer_digest(policy.tokenizer) != tokenizer_digest(scorer.tokenizer):
        raise BadInput(f"{start} and {reward} have different tokenizers; fit the reward on {start}")
    fits(policy, start, objective.training.max_length)
    if objective.rollouts < (size := Team.here().size):
        raise BadInput(f"{objective.rollouts} rollouts for {size} processes; ask for more of them")
    critic = _critic(models, policy.model, objective, machine)
    # Adapters come with dropout that is on; everything is looked at and learned without.
    policy.model.eval()
    critic.eval()
    is_base = objective.training.lora is not None and reference in (None, start)
    return Course(
        engine=engaged([policy.model, critic], objective.training, machine),
        policy=policy,
        critic=critic,
        scorer=scorer,
        reference=policy.model if is_base else load_policy(reference or start, machine).model,
        sampler=_sampler(start, policy, objective, machine),
        objective=objective,
        machine=machine,
    )


def _critic(
    models: tuple[Path, Path, Path | None],
    policy: Any,
    objective: ProximalObjective,
    machine: Machine,
) -> Any:
    """The reward model's or the policy's backbone, or an adapter on the latter; its head zero."""
    training, init = objective.training, objective.critic.init
    if training.lora is not None:
        take_up(policy, training)
        return SharedCritic(policy, training.lora, training.seed)
    critic = load_scorer(models[1] if init == "reward" else models[0], machine).model
    torch.nn.init.zeros_(critic.score.weight)
    return critic


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
