"""What vLLM's own processes do for us, beside the model they hold.

vLLM mixes the class into its worker and calls it by name, in this process or in others where a
model is spread over several devices. No tensor ever travels, only numbers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

PACKED = "cpu_linear"  # where vLLM keeps a matrix that it has packed for a CPU


class Worker:
    """Mixed into vLLM's worker, which holds part of the model as `get_model()`."""

    get_model: Callable[[], Any]

    def repack_tied_head(self) -> None:
        """Pack a tied head anew: on a CPU reloading leaves it a copy of the old embeddings."""
        model = self.get_model()
        if getattr(model.config, "tie_word_embeddings", False) and hasattr(model.lm_head, PACKED):
            from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

            model.lm_head.weight = model.model.embed_tokens.weight
            dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)

    def parameter_sums(self) -> dict[str, float]:
        """The sum of every parameter that this worker computes with, by vLLM's name for it."""
        return {
            f"{name}.{part}": _packed_sum(module) if _is_packed(module, part) else _sum(parameter)
            for name, module in self.get_model().named_modules()
            for part, parameter in module.named_parameters(recurse=False)
        }

    def joined_matrices(self) -> dict[str, list[str]]:
        """Which matrices of a checkpoint vLLM keeps as one, by the last part of their names."""
        return dict(getattr(self.get_model(), "packed_modules_mapping", {}))

    def divide_logits(self, temperature: float) -> None:
        """From now on logits are those of the model divided by this temperature."""
        model = self.get_model()
        plain = model.__dict__.pop("plain_logits", model.compute_logits)
        model.__dict__["plain_logits"] = plain
        cooled = plain if temperature == 1 else partial(_divided, plain, temperature)
        model.__dict__["compute_logits"] = cooled


def _divided(plain: Callable[..., Tensor | None], temperature: float, *args: Any) -> Tensor | None:
    logits = plain(*args)
    return None if logits is None else logits.float() / temperature


def _is_packed(module: Any, part: str) -> bool:
    """Whether a matrix is multiplied with in its packed form; embeddings are only looked up."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    if part != "weight" or not hasattr(module, PACKED):
        return False
    return not module.weight.numel() or isinstance(module, ParallelLMHead)


def _sum(parameter: Tensor) -> float:
    return float(parameter.detach().sum(dtype=torch.float64))


@torch.no_grad()
def _packed_sum(module: Any) -> float:
    """The sum of a matrix that can only be multiplied with: that of its product with ones."""
    ones = torch.ones(1, _inputs(module), dtype=module.weight.dtype)
    product = getattr(module, PACKED)(ones, module.weight, None)
    return float(product.double().sum())


def _inputs(module: Any) -> int:
    for name in ("input_size_per_partition", "embedding_dim"):
        if hasattr(module, name):
            return int(getattr(module, name))
    return int(module.weight.shape[1])
