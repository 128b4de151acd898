"""The seam to a policy that samples: prompts as ids in, sampled ids out, in the same order."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from alpacafarm_core.settings import Sampling


class Sample(NamedTuple):
    """Sampled ids, the end token included when it was sampled; finish_reason stop or length.

    `logprobs` has the log-probability of each id, in nats, under softmax(logits / temperature): of
    all tokens, also those a nucleus left out, so that a trainer finds the same number. Greedy
    decoding has no temperature to divide by; its numbers are those of temperature 1. None where
    nobody asked for them.
    """

    ids: list[int]
    finish_reason: str
    logprobs: list[float] | None = None


class Batch(NamedTuple):
    """Prompts and the seed of each one's response."""

    prompts: Sequence[list[int]]
    seeds: Sequence[int]


class Sampler(Protocol):
    """An engine with one policy in it.

    A response ends with one of the ids in `ends`, at first the end token alone; those in `never`
    are not drawn. Both may be changed between two calls.
    """

    ends: set[int]
    never: list[int]

    def sample(
        self, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Sample]:
        """One response to each prompt, with log-probabilities.

        A response depends on its prompt, its seed and the sampling, not on its neighbours or their
        order (but for rounding in the last bit). `sampling.n` and `sampling.seed` are not read.
        """

    def stream(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[list[Sample]]:
        """The responses of each batch in turn, without log-probabilities.

        An engine may take in batches ahead of the one it hands over, so as never to run dry; it
        holds a few of them at a time, however many there are.
        """

    def sync(self, model: Any) -> None:
        """Sample from the weights of this transformers model from now on.

        Raises WeightSyncFailed where the engine turns out not to hold them.
        """

    def rest(self) -> None:
        """Give memory back until something is asked for again."""

    def close(self) -> None:
        """Give back all memory; nothing can be asked for any more."""
