"""Who takes part in PPO and its siblings: policy and critic learn, scorer and reference do not.

With LoRA policy, critic and a reference that is the start stand on one base: the policy's.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from alpacafarm_core.errors import BadInput
from alpacafarm_core.generate import wants_vllm
from alpacafarm_core.machine import Machine
from alpacafarm_core.proximal import OnlineObjective
from alpacafarm_core.sampler import Sampler
from alpacafarm_core.train.batches import tokenizer_digest
from alpacafarm_core.train.engine import Engine, engaged
from alpacafarm_core.train.lora import SharedCritic, take_up
from alpacafarm_core.train.models import Loaded, fits, load_policy, load_scorer
from alpacafarm_core.train.team import Team


class Course(NamedTuple):
    """Who takes part, and by which rules; `critic` is None where nobody estimates values."""

    engine: Engine
    policy: Loaded
    critic: Any
    scorer: Loaded
    reference: Any
    sampler: Sampler
    objective: OnlineObjective
    machine: Machine

    @property
    def learners(self) -> list[Any]:
        """The models that learn."""
        return _learners(self.policy, self.critic)


def enrol(
    models: tuple[Path, Path, Path | None], objective: OnlineObjective, machine: Machine
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
        sampler=_sampler(start, policy, objective, machine),
        objective=objective,
        machine=machine,
    )


def _learners(policy: Loaded, critic: Any) -> list[Any]:
    return [policy.model] if critic is None else [policy.model, critic]


def _critic(
    models: tuple[Path, Path, Path | None],
    policy: Any,
    objective: OnlineObjective,
    machine: Machine,
) -> Any:
    """The reward model's or the policy's backbone, or an adapter on the latter; its head zero.

    None where the objective has no use for one; the policy takes up its own adapter all the same.
    """
    training, settings = objective.training, objective.value_model
    take_up(policy, training)
    if settings is None:
        return None
    if training.lora is not None:
        return SharedCritic(policy, training.lora, training.seed)
    critic = load_scorer(models[1] if settings.init == "reward" else models[0], machine).model
    torch.nn.init.zeros_(critic.score.weight)
    return critic


def _sampler(start: Path, policy: Loaded, objective: OnlineObjective, machine: Machine) -> Sampler:
    """An engine that follows the policy: vLLM with a copy of the weights, or the module itself."""
    eos = policy.tokenizer.eos_token_id
    if wants_vllm(machine):
        from alpacafarm_core.vllm_engine import VLLMSampler

        return VLLMSampler(start, objective.training.max_length, eos, machine)
    from alpacafarm_core.decoding import TransformersSampler

    return TransformersSampler(policy.model, eos)
