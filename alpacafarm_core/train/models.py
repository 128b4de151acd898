"""Models on disk and in memory: load, save, and how this machine computes them.

A folder is what any transformers program loads: `config.json`, safetensors, tokenizer files. No
code from a model folder is ever run. Weights are float32 in memory; bfloat16 is autocast's.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.train import lora
from alpacafarm_core.train.team import Team
from alpacafarm_core.train.tokens import reward_ids, reward_token

SHARING = ("gpt_neox", "llama", "mistral", "olmo2", "qwen2", "qwen3")


class Loaded(NamedTuple):
    """A model and the tokenizer that belongs to it."""

    model: Any
    tokenizer: Any


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, with a [PAD] token when it had none."""
    from transformers import AutoTokenizer

    _quiet()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise BadInput(f"{folder}: its tokenizer has no end token; set eos_token in its config")
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    return tokenizer


def load_policy(folder: Path, machine: Machine) -> Loaded:
    """A causal language model."""
    from transformers import AutoModelForCausalLM

    loaded = _load(AutoModelForCausalLM, folder, machine)
    for scaled in ("logit_scale", "logits_scaling"):
        if getattr(loaded.model.config, scaled, None) is not None:
            raise BadInput(f"{folder}: models with `{scaled}` are not supported; use another base")
    return loaded


def load_scorer(folder: Path, machine: Machine) -> Loaded:
    """A sequence classifier with one label and no bias.

    From the folder of a policy it gets a new head, drawn from torch's global generator.
    """
    from transformers import AutoModelForSequenceClassification

    return _load(AutoModelForSequenceClassification, folder, machine, num_labels=1)


@torch.no_grad()
def grow(loaded: Loaded, tags: int, seed: int) -> None:
    """Give a model so many reward tokens, where it has fewer: new tokens, new rows for each.

    A row is the mean of the old ones and, in each dimension, their spread times a normal number, so
    that no two tokens begin alike; AlpacaFarm's Quark. Each matrix draws from the same seed.
    """
    model, tokenizer = loaded
    had, known = len(reward_ids(tokenizer)), len(tokenizer)
    if had >= tags:
        return
    tokenizer.add_tokens([reward_token(n) for n in range(had, tags)], special_tokens=True)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for weight in {id(each): each for each in _vocabularies(model)}.values():
        normal = torch.randn(tags - had, weight.shape[1], generator=_seeded(seed))
        old = weight[:known]
        weight[known : len(tokenizer)] = old.mean(0) + old.std(0) * normal.to(weight)


def sharing(model: Any) -> bool:
    """Whether two responses may share a row of this model with their prompt.

    True for architectures of which a test shows that it changes nothing: attention that heeds a
    mask of ours everywhere, and no memory beside it.
    """
    configuration = model.config
    heeds = configuration._attn_implementation in ("eager", "sdpa")
    windowed = getattr(configuration, "sliding_window", None) is not None
    return configuration.model_type in SHARING and heeds and not windowed


def save(loaded: Loaded, out: Path) -> None:
    """Write weights (safetensors), config and tokenizer into the folder `out`.

    Of an adapted model, the weights with the adapter added in, and the adapter beside them.
    """
    loaded.model.save_pretrained(out, state_dict=weights(loaded.model))
    loaded.tokenizer.save_pretrained(out)
    if lora.is_adapted(loaded.model):
        lora.save_adapter(loaded.model, out)


def weights(model: Any) -> dict[str, Tensor]:
    """All weights by the names of the plain model; an adapter is added in."""
    found: dict[str, Tensor] = lora.merged(model) if lora.is_adapted(model) else model.state_dict()
    return found


def recompute(model: Any) -> None:
    """Keep no activations inside the model's layers for the backward pass: compute them again.

    Chen et al. 2016. Only where gradients are wanted, so also in a model without dropout, which
    transformers' own switch leaves alone.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.forward = _twice(layer, layer.forward)


def fits(loaded: Loaded, folder: Path, max_length: int) -> None:
    """Raise BadInput where rows may be longer than the model has positions."""
    positions = getattr(loaded.model.config, "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise BadInput(
            f"max_length {max_length} is more than the {positions} tokens that {folder} can see; "
            "lower training.max_length"
        )


def begin(machine: Machine) -> torch.device:
    """Set the number of threads the machine asks for; returns the device to compute on."""
    if machine.threads:
        torch.set_num_threads(machine.threads)
    kind = machine.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        # transformers may import DeepSpeed, which else looks for a GPU and says that there is none.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # A launcher gives each of its processes a GPU of its own.
    team = Team.here()
    return torch.device(f"cuda:{team.local}" if kind == "cuda" and team.size > 1 else kind)


def precision(machine: Machine) -> str:
    """float32, or bfloat16 where the machine asks for it or is quicker with it."""
    if machine.precision != "auto":
        return machine.precision
    is_gpu = begin(machine).type == "cuda"
    fast = torch.cuda.is_bf16_supported() if is_gpu else _cpu_has_bfloat16()
    return "bfloat16" if fast else "float32"


def autocast(machine: Machine) -> AbstractContextManager[Any]:
    """Autocast to the machine's precision; nothing where that is float32."""
    device = begin(machine).type
    if precision(machine) == "float32":
        return nullcontext()
    return torch.autocast(device, torch.bfloat16)


def _twice(layer: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward pass of a layer, computed a second time with the adapter of the first time."""

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), lora.as_now(layer)

    def computed(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)

    return computed


def _load(kind: Any, folder: Path, machine: Machine, **options: Any) -> Loaded:
    tokenizer = load_tokenizer(folder)
    model = kind.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, **options
    )
    _make_room(model, len(tokenizer))
    model.config.pad_token_id = tokenizer.pad_token_id
    device = begin(machine)
    if device.type == "cpu":
        # The backward of torch's fused attention took half of a training step on a CPU.
        model.set_attn_implementation("eager")
    if machine.activation_checkpointing:
        recompute(model)
    return Loaded(model.to(device).eval(), tokenizer)


@torch.no_grad()
def _make_room(model: Any, tokens: int) -> None:
    """Add embedding rows for new tokens, each the mean of the old ones."""
    old = model.get_input_embeddings().weight.shape[0]
    if tokens <= old:
        return
    model.resize_token_embeddings(tokens, mean_resizing=False)
    for weight in _vocabularies(model):
        weight[old:] = weight[:old].mean(0)


def _vocabularies(model: Any) -> list[Tensor]:
    """The matrices with a row for each token; the same one twice where they are tied."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return [layer.weight for layer in layers if layer is not None]


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@cache
def _cpu_has_bfloat16() -> bool:
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and "avx512_bf16" in flags.read_text()
