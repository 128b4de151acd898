"""Whether an engine that samples holds the weights that were trained: sums, and one fixed prompt.

Sums of parameters are compared wherever both sides have a parameter of that name; what an engine
keeps as one matrix (queries, keys and values; gate and up) is compared as one. Then both read the
same short prompt, which also sees what no sum can: a stale cache, another place for a matrix.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isclose, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alpacafarm_core.errors import WeightSyncFailed

PROBE = 24  # tokens of the prompt that both read
STRIDE = 7919  # between two ids of it; a prime, so that they are all over the vocabulary
ROUNDING = 5e-7  # of a float32 sum, for each unit of its absolute values
GAP = {torch.float32: 2e-4}  # nats a token that rounding explains; half precision explains more
COARSE_GAP = 0.2


class Sum(NamedTuple):
    """What a parameter should add up to, and by how much rounding may miss it."""

    total: float
    slack: float


def sums(
    weights: Mapping[str, Tensor], joined: Mapping[str, Sequence[str]], dtype: torch.dtype
) -> dict[str, Sum]:
    """Sums of weights as `dtype`, those of the parts of a joined matrix as one.

    `joined` maps the last name of such a matrix to those of its parts.
    """
    whole = {part: name for name, parts in joined.items() for part in parts}
    held: dict[str, list[Tensor]] = defaultdict(list)
    for name, weight in weights.items():
        path, _, last = name.rpartition(".")
        path, _, layer = path.rpartition(".")
        held[".".join(filter(None, (path, whole.get(layer, layer), last)))].append(weight)
    return {name: _sum(parts, dtype) for name, parts in held.items()}


def differing(found: Sequence[Mapping[str, float]], expected: Mapping[str, Sum]) -> str | None:
    """The first parameter whose sum is another, with both sums; None when all agree.

    `found` has the sums of each worker of an engine: parts of a matrix, or the same one each.
    """
    for name, (total, slack) in expected.items():
        held = [worker[name] for worker in found if name in worker]
        copies = all(isclose(each, total, abs_tol=slack) for each in held)
        if held and not copies and not isclose(sum(held), total, abs_tol=slack):
            return f"{name} sums to {sum(held):.6g}, the policy's to {total:.6g}"
    return None


def probe(vocabulary: int, longest: int) -> list[int]:
    """Ids of the prompt that both read, at most `longest`."""
    return [(13 + STRIDE * i) % vocabulary for i in range(min(PROBE, longest))]


@torch.no_grad()
def reading(model: Any, ids: Sequence[int]) -> Tensor:
    """Log-probability of each id but the first after those before it, [L - 1] in float32."""
    was_training = model.training
    model.eval()
    row = torch.tensor([list(ids)], device=model.device)
    logprobs = model(input_ids=row, use_cache=False).logits[0, :-1].float().log_softmax(-1)
    model.train(was_training)
    found: Tensor = logprobs.gather(1, row[0, 1:, None])[:, 0].cpu()
    return found


def check(difference: str | None, gap: float, dtype: torch.dtype) -> None:
    """Raise WeightSyncFailed for a parameter that differs, or a gap beyond rounding in `dtype`."""
    allowed = GAP.get(dtype, COARSE_GAP)
    if difference is None and not gap <= allowed:
        difference = (
            f"log-probabilities of a fixed prompt are {gap:.2g} nats a token from the policy's, "
            f"more than {allowed:g}"
        )
    if difference is not None:
        raise WeightSyncFailed(
            f"after a weight sync vLLM does not hold the policy: {difference}; "
            "set ALPACAFARM_ENGINE=transformers and run again"
        )


def _sum(parts: Sequence[Tensor], dtype: torch.dtype) -> Sum:
    rows = sum(len(part) for part in parts)
    held = [part.detach().to(dtype) for part in parts]
    size = sum(float(part.norm(1, dtype=torch.float32)) for part in held)
    total = sum(float(part.sum(dtype=torch.float64)) for part in held)
    return Sum(total, ROUNDING * size / sqrt(rows))
