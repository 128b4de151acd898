"""LoRA: every weight stays as it is, and beside it two thin ones learn; off, it is the base.

Hu et al. 2021. The adapters of a policy and of its critic, and the reference, which is neither,
stand on one base. peft puts the layers in; which of them count is chosen here, since peft would
stop their gradients when it switches, and those of a loss that waits for its backward pass with
them. What is saved is an ordinary model with the change added in, and the adapter beside it.
Biases, embeddings and the language model's head are left alone.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from alpacafarm_core.errors import BadInput
from alpacafarm_core.settings import Lora, Training

POLICY, CRITIC = "policy", "critic"
FOLDER, WEIGHTS = "adapter", "adapter_model.safetensors"
BASE, OURS = ".base_layer.", ".lora_"


def adapt(model: Any, lora: Lora, seed: int, name: str = POLICY) -> None:
    """Give a model an adapter, which is then the active one; the base learns no more.

    It changes nothing yet: A is drawn with the seed, B is zero. A scorer's head goes on learning.
    Raises BadInput when peft is not installed or no layer's name ends like `targets`.
    """
    if find_spec("peft") is None:
        raise BadInput("LoRA needs peft; install the extra: pip install 'alpacafarm[peft]'")
    from peft import LoraConfig, inject_adapter_in_model

    is_scorer, backbone = hasattr(model, "score"), model.base_model
    before = vars(backbone).pop("peft_config", {})  # peft warns of a second adapter
    configuration = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or "all-linear",
        task_type="SEQ_CLS" if is_scorer else "CAUSAL_LM",
        modules_to_save=["score"] if is_scorer else None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(configuration, backbone, name)
        except ValueError as error:
            raise BadInput(f"lora.targets {lora.targets} cannot be adapted: {error}") from error
    backbone.peft_config = {**before, name: configuration}
    model.requires_grad_(False)
    if is_scorer:
        model.score.requires_grad_(True)
    _choose(_layers(model), name)


def take_up(model: Any, training: Training) -> None:
    """Give a model the adapter that its training asks for, if any."""
    if training.lora is not None:
        adapt(model, training.lora, training.seed)


def is_adapted(model: Any) -> bool:
    """Whether it has any adapter."""
    return hasattr(model.base_model, "peft_config")


def rank_of(model: Any) -> int:
    """The rank of an adapted model's adapters."""
    return int(next(iter(model.base_model.peft_config.values())).r)


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The weights that learn, by name: of an adapted model its adapters and a scorer's head."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def base_of(model: Any) -> AbstractContextManager[None]:
    """Within it the model is its base, bit for bit: the reference without a second model.

    One that has no adapter always is.
    """
    return _chosen(_layers(model), None)


def using(model: Any, name: str) -> AbstractContextManager[None]:
    """Within it this adapter is the active one, and no gradient reaches another."""
    return _chosen(_layers(model), name)


def as_now(module: nn.Module) -> AbstractContextManager[None]:
    """A context, to be entered later, in which the adapter is active that is active now."""
    layers = _layers(module)
    return _chosen(layers, _active(layers))


class SharedCritic(nn.Module):
    """A critic on the base of an adapted policy: an adapter of its own and a head of zeros.

    Its backbone belongs to the policy, and so do the weights of its adapter: of its own it has the
    head alone. `base_model`, `score` and `config` are as those of a scorer.
    """

    def __init__(self, policy: Any, lora: Lora, seed: int) -> None:
        super().__init__()
        learnt = trainable(policy)
        adapt(policy, lora, seed, CRITIC)
        _choose(_layers(policy), POLICY)
        device = next(iter(learnt.values())).device
        self.config = policy.config
        self.score = nn.Linear(policy.config.hidden_size, 1, bias=False, device=device)
        nn.init.zeros_(self.score.weight)
        self.base_model = _Critical(policy.base_model)


class _Critical:
    """The backbone as the critic sees it; no module, so that its weights are not the critic's."""

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        with using(self.backbone, CRITIC):
            return self.backbone(*inputs, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)


@torch.no_grad()
def merged(model: Any, name: str = POLICY) -> dict[str, Tensor]:
    """The weights of the plain model that gives what this one gives with the adapter.

    By a plain model's names; the model itself stays as it is.
    """
    found: dict[str, Tensor] = {}
    changed = {f"{at}{BASE}weight": layer for at, layer in _named(model)}
    for key, weight in model.state_dict().items():
        if OURS in key:
            continue
        layer = changed.get(key)
        change = 0 if layer is None or name not in layer.lora_A else layer.get_delta_weight(name)
        found[key.replace(BASE, ".")] = weight if layer is None else weight + change
    return found


def save_adapter(model: Any, folder: Path, name: str = POLICY) -> None:
    """Write an adapter, with a scorer's head, as peft reads it, into `folder`/adapter."""
    out = folder / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    ours = {
        key.replace(f".{name}.", "."): weight
        for key, weight in model.state_dict().items()
        if (OURS in key and f".{name}." in key) or key == "score.weight"
    }
    save_file({f"base_model.model.{k}": w.contiguous() for k, w in ours.items()}, out / WEIGHTS)
    configuration = model.base_model.peft_config[name]
    # peft keeps a set, whose order would differ from process to process.
    configuration.target_modules = sorted(configuration.target_modules)
    configuration.save_pretrained(out)


def _named(model: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((at, layer) for at, layer in model.named_modules() if hasattr(layer, "lora_A"))


def _layers(model: nn.Module) -> list[Any]:
    return [layer for _, layer in _named(model)]


def _active(layers: list[Any]) -> str | None:
    on = [str(layer.active_adapters[0]) for layer in layers[:1] if not layer.disable_adapters]
    return on[0] if on else None


@contextmanager
def _chosen(layers: list[Any], name: str | None) -> Iterator[None]:
    before = _active(layers)
    _choose(layers, name)
    try:
        yield
    finally:
        _choose(layers, before)


def _choose(layers: list[Any], name: str | None) -> None:
    """Make one adapter count, or none. All may go on learning: what is not used has no gradient."""
    for layer in layers:
        if name is None:
            layer.enable_adapters(False)
        else:
            layer.enable_adapters(True)
            layer.set_adapter(name)
        layer.set_requires_grad(list(layer.lora_A), True)
