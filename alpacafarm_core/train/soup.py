"""Soups: models of one start, averaged weight by weight, and the test that they can be.

Wortsman et al. 2022 (arXiv 2203.05482) for policies, Rame et al. 2024 (WARM, arXiv 2401.12187) for
reward models. The sum is in float32: in bfloat16 the small differences between runs are lost. Files
are read tensor by tensor, so beside one file's worth of the result no model is ever whole in
memory. Models trained with LoRA are averaged as saved, the adapter added in: averages of A and of B
would not be the average of their products.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from alpacafarm_core.errors import BadInput, ContractBroken
from alpacafarm_core.machine import Machine
from alpacafarm_core.train.material import material_of
from alpacafarm_core.train.models import load_policy, load_tokenizer
from alpacafarm_core.train.reference import reference_logprobs
from alpacafarm_core.train.tokens import tokenizer_digest

WITHOUT_MEANING = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}
"""Entries of a config that say where a model is from, not what it is."""

BARRIER = 0.02
"""Nats a token by which a soup may be worse than its parents are on average."""

LONGEST = 512
"""Tokens of prompt and response that a soup is tested on."""


def average(
    models: tuple[Path, ...],
    out: Path,
    weights: tuple[float, ...],
    held_out: Path | None,
    machine: Machine,
) -> dict[str, Any]:
    """The weighted average of models of one shape, saved in `out`; figures of the test, if any.

    `held_out` are Demonstrations that nobody was trained on. Raises BadInput where weights are not
    shares of one, or models are not of one shape, tokenizer or start; ContractBroken where the soup
    is worse on `held_out` than its parents by more than BARRIER.
    """
    check_weights(weights, len(models))
    for other in models[1:]:
        _check_alike(models[0], other)
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        parents = [stack.enter_context(_opened(folder)) for folder in models]
        _check_names(parents)
        for file, names in parents[0].files.items():
            held = {name: _averaged(name, parents, weights) for name in names}
            save_file(held, out / file, metadata={"format": "pt"})
    load_tokenizer(models[0]).save_pretrained(out)
    for name in ("config.json", "generation_config.json", "model.safetensors.index.json"):
        if (models[0] / name).is_file():
            shutil.copyfile(models[0] / name, out / name)
    return {} if held_out is None else _tested(models, out, held_out, machine)


def check_weights(weights: Sequence[float], models: int) -> None:
    """Raises BadInput unless there is a share for each model and all shares make one."""
    if len(weights) != models or models < 1:
        raise BadInput(f"{len(weights)} weights for {models} models; give each model its weight")
    if min(weights) < 0 or not math.isclose(math.fsum(weights), 1.0, abs_tol=1e-6):
        raise BadInput(
            f"weights {', '.join(f'{w:g}' for w in weights)} make {math.fsum(weights):g}; give "
            "shares from 0 that make 1"
        )


def averaged(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum_i w_i * t_i of tensors of one shape, added in float32, of the first one's type."""
    total = torch.zeros(tensors[0].shape, dtype=torch.float32)
    for tensor, weight in zip(tensors, weights, strict=True):
        total += weight * tensor.float()
    return total.to(tensors[0].dtype)


class _Parent(NamedTuple):
    """A model on disk: which tensors each of its files has, and how to read one."""

    folder: Path
    files: dict[str, list[str]]
    opened: Mapping[str, Any]

    def tensor(self, name: str) -> Tensor:
        """One of its tensors."""
        found: Tensor = self.opened[name].get_tensor(name)
        return found


@contextmanager
def _opened(folder: Path) -> Iterator[_Parent]:
    with ExitStack() as stack:
        files: dict[str, list[str]] = {}
        opened: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            file = stack.enter_context(safe_open(path, framework="pt"))
            files[path.name] = list(file.keys())
            opened |= dict.fromkeys(files[path.name], file)
        if not opened:
            raise BadInput(f"{folder} holds no .safetensors; save the model with safetensors first")
        yield _Parent(folder, files, opened)


def _averaged(name: str, parents: Sequence[_Parent], weights: Sequence[float]) -> Tensor:
    """One tensor of the soup; what is not a real number is copied and must be the same in all."""
    tensors = [parent.tensor(name) for parent in parents]
    first = tensors[0]
    for parent, other in zip(parents[1:], tensors[1:], strict=True):
        both = f"{parents[0].folder} and {parent.folder}"
        if first.shape != other.shape:
            raise BadInput(
                f"{both}: {name} is {list(first.shape)} in one and {list(other.shape)} in the "
                "other; average models of one start"
            )
        if not first.is_floating_point() and not torch.equal(first, other):
            raise BadInput(f"{both}: {name} differs and cannot be averaged; it is no real number")
    return averaged(tensors, weights) if first.is_floating_point() else first


def _check_names(parents: Sequence[_Parent]) -> None:
    """All have the same tensors; one in which two are tied has one name less."""
    first = parents[0]
    for other in parents[1:]:
        if odd := sorted(first.opened.keys() ^ other.opened.keys()):
            raise BadInput(
                f"{first.folder} and {other.folder}: only one of them has {odd[0]}; average models "
                "of one start"
            )


def _check_alike(first: Path, other: Path) -> None:
    """Two folders have one config and one tokenizer; raises BadInput naming both."""
    ours, theirs = (_config(folder) for folder in (first, other))
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise BadInput(
                f"{first} and {other}: {name} is {ours.get(name)} in one and {theirs.get(name)} in "
                "the other; average models of one start"
            )
    if _words(first) != _words(other):
        raise BadInput(
            f"{first} and {other} have different tokenizers; average models of one start"
        )


def _config(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return {name: value for name, value in held.items() if name not in WITHOUT_MEANING}


def _words(folder: Path) -> tuple[str, dict[str, int]]:
    tokenizer = load_tokenizer(folder)
    return tokenizer_digest(tokenizer), tokenizer.get_added_vocab()


def _tested(models: Sequence[Path], out: Path, held_out: Path, machine: Machine) -> dict[str, Any]:
    """Losses of the parents and of the soup, as figures; raises ContractBroken on a barrier."""
    parents = [loss_on(folder, held_out, machine) for folder in models]
    loss = loss_on(out, held_out, machine)
    connected(loss, parents)
    return {"loss": loss, "losses_of_parents": parents, "barrier": BARRIER}


def connected(loss: float, parents: Sequence[float]) -> None:
    """The soup, at `loss` nats a token, is no worse than the mean of its parents, but for BARRIER.

    Raises ContractBroken where it is: the parents do not lie in one valley.
    """
    mean = math.fsum(parents) / len(parents)
    if not loss <= mean + BARRIER:
        raise ContractBroken(
            f"the soup's loss on held-out demonstrations is {loss:.3f} nats a token, its parents' "
            f"{', '.join(f'{each:.3f}' for each in parents)}: they cannot be averaged; train all "
            "from one start, at a lower learning rate"
        )


def loss_on(folder: Path, demonstrations: Path, machine: Machine) -> float:
    """What the answers of Demonstrations cost a policy, in nats a token."""
    with torch.random.fork_rng():
        loaded = load_policy(folder, machine)
        positions = getattr(loaded.model.config, "max_position_embeddings", LONGEST)
        longest = min(LONGEST, positions)
        examples = material_of(demonstrations, loaded.tokenizer, False, longest).examples
        known = reference_logprobs(loaded, examples, machine)
    found = [known.of(at, 0) for at in range(len(examples))]
    return -math.fsum(float(each.sum()) for each in found) / sum(map(len, found))
