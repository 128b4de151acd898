"""The seam to a policy that samples: prompts as ids in, sampled ids out, in the same order."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from alpacafarm_core.settings import Sampling


class Sample(NamedTuple):
    """Sampled ids, the end token included when it was sampled; finish_reason stop or length."""

    ids: list[int]
    finish_reason: str


class Sampler(Protocol):
    """An engine with one policy in it."""

    def sample(
        self, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Sample]:
        """One response to each prompt.

        A response depends on its prompt, its seed and the sampling, not on its neighbours or their
        order (but for rounding in the last bit). `sampling.n` and `sampling.seed` are not read.
        """

    def sync(self, model: Any) -> None:
        """Sample from the weights of this transformers model from now on."""

    def close(self) -> None:
        """Give back the memory."""
