"""Sampling with a transformers model: its own small loop, exact and quick for small models.

Rows of one batch share the forward pass of equal prompts, finished rows leave the batch, and each
row draws from numbers of its own: a hash of its seed and the position, so that no row's sample
depends on another's. B is rows still running, V vocabulary, L tokens so far.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from alpacafarm_core.sampler import Batch, Sample
from alpacafarm_core.settings import Sampling

BATCH = 256
LEAST = torch.finfo(torch.bfloat16).min
ROOM = 16  # tokens of room in a cache when it grows
CARRIED = 0.7  # share of a batch still running at which the rest is dropped


class TransformersSampler:
    """Samples from a module that others may go on training."""

    def __init__(self, model: Any, eos: int, never: Sequence[int] = ()) -> None:
        """`never` are ids that are not drawn: reward tokens, which only ever stand in a prompt."""
        self.model, self.ends, self.never = model, {eos}, list(never)

    def sample(
        self, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Sample]:
        """One response to each prompt; prompts of similar length go together."""
        return self._sampled(Batch(prompts, seeds), sampling, with_logprobs=True)

    def stream(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[list[Sample]]:
        """The responses of each batch when it is asked for."""
        return (self._sampled(batch, sampling, with_logprobs=False) for batch in batches)

    def sync(self, model: Any) -> None:
        """Sample from this module itself: what changes in it changes what is sampled."""
        self.model = model

    def rest(self) -> None:
        """Nothing is held between calls."""

    def close(self) -> None:
        """Let go of the module."""
        self.model = None

    def _sampled(self, batch: Batch, sampling: Sampling, with_logprobs: bool) -> list[Sample]:
        prompts, seeds = batch
        order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), prompts[row]))
        drawn: dict[int, _Drawn] = {}
        was_training = self.model.training
        self.model.eval()
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            some = Batch([prompts[i] for i in rows], [seeds[i] for i in rows])
            drawn.update(zip(rows, self._drawn(some, sampling, with_logprobs), strict=True))
        self.model.train(was_training)
        return [self._sample(drawn[row], with_logprobs) for row in range(len(prompts))]

    def _sample(self, drawn: "_Drawn", with_logprobs: bool) -> Sample:
        reason = "stop" if drawn.ids[-1] in self.ends else "length"
        return Sample(drawn.ids, reason, drawn.logprobs if with_logprobs else None)

    @torch.inference_mode()
    def _drawn(self, batch: Batch, sampling: Sampling, with_logprobs: bool) -> "list[_Drawn]":
        running = _Running(self.model, batch.prompts)
        states = np.array(batch.seeds, dtype=np.uint64)
        drawn = [_Drawn([], []) for _ in batch.prompts]
        for step in range(sampling.max_tokens):
            chances = uniforms(states[running.rows], step)
            tokens = choose(without(running.logits, self.never), sampling, chances)
            asked = logprobs(running.logits, tokens, sampling) if with_logprobs else tokens
            self._append(drawn, running.rows, tokens.tolist(), asked.tolist())
            going = [i for i, row in enumerate(running.rows) if drawn[row].ids[-1] not in self.ends]
            if not going or step + 1 == sampling.max_tokens:
                break
            # Leaving rows out copies the cache, so a few finished ones are carried along.
            tokens = running.only(going, tokens) if len(going) <= CARRIED * len(tokens) else tokens
            running.take(tokens)
        return drawn

    def _append(
        self,
        drawn: "Sequence[_Drawn]",
        rows: Sequence[int],
        tokens: list[int],
        asked: list[float],
    ) -> None:
        for row, token, logprob in zip(rows, tokens, asked, strict=True):
            if not drawn[row].ids or drawn[row].ids[-1] not in self.ends:
                drawn[row].ids.append(token)
                drawn[row].logprobs.append(logprob)


class _Drawn(NamedTuple):
    """What one row has so far."""

    ids: list[int]
    logprobs: list[float]


class _Running:
    """Rows that have not ended: which they are, their cache, and logits [B, V] for the next token.

    Prompts are padded on the left; `seen` [B, L] is true on real tokens.
    """

    def __init__(self, model: Any, prompts: Sequence[list[int]]) -> None:
        self.model = model
        self.rows = list(range(len(prompts)))
        unique = list(dict.fromkeys(map(tuple, prompts)))
        longest, device = max(map(len, unique)), model.device
        ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in unique], device=device)
        lengths = torch.tensor([len(p) for p in unique], device=device)
        self.seen = torch.arange(longest, device=device) >= longest - lengths[:, None]
        self.cache = Cache(layer_class_to_replicate=_RoomyLayer)
        self.logits = self._forward(ids, _causal(self.seen))
        where = {prompt: i for i, prompt in enumerate(unique)}
        self._keep(torch.tensor([where[tuple(p)] for p in prompts], device=device))

    def only(self, going: list[int], tokens: Tensor) -> Tensor:
        """Leave out all rows but `going`; returns their part of `tokens` [B]."""
        kept = torch.tensor(going, device=tokens.device)
        self.rows = [self.rows[i] for i in going]
        self._keep(kept)
        return tokens[kept]

    def take(self, tokens: Tensor) -> None:
        """Take in one token a row, [B]."""
        self.seen = torch.cat([self.seen, self.seen.new_ones(len(tokens), 1)], dim=1)
        self.logits = self._forward(tokens[:, None], self.seen[:, None, None, :])

    def _forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        positions = (self.seen.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if self.model.config._attn_implementation == "eager":
            # Plain attention adds its mask to the scores, where a true would be a one.
            mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, LEAST)
        out = self.model(
            input_ids=ids,
            attention_mask=None if bool(self.seen.all()) else mask,
            position_ids=positions,
            past_key_values=self.cache,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits

    def _keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.seen, self.logits = self.seen[rows], self.logits[rows]


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer that writes into room it has reserved instead of copying itself every step."""

    def __init__(self) -> None:
        super().__init__()
        self.used = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, each [B, heads, new, width]; returns all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        end = self.used + key_states.shape[-2]
        if end > self.keys.shape[-2]:
            self.keys, self.values = self._roomier(self.keys, end), self._roomier(self.values, end)
        self.keys[:, :, self.used : end] = key_states
        self.values[:, :, self.used : end] = value_states
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows; whole rows are copied at a time, which indexing does not."""
        self.keys, self.values = (
            torch.index_select(held, 0, indices) for held in (self.keys, self.values)
        )

    def _roomier(self, held: Tensor, end: int) -> Tensor:
        rows, heads, _, width = held.shape
        room = held.new_empty(rows, heads, end + ROOM, width)
        room[:, :, : self.used] = held[:, :, : self.used]
        return room

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.used


def uniforms(seeds: np.ndarray[Any, np.dtype[np.uint64]], step: int) -> Tensor:
    """A number in [0, 1) for each seed at this step, [B] in float64: splitmix64 of both."""
    with np.errstate(over="ignore"):
        z = _mixed(seeds) + np.uint64(step + 1) * np.uint64(0x9E3779B97F4A7C15)
        return torch.from_numpy((_mixed(z) >> np.uint64(11)) * 2.0**-53)


def without(logits: Tensor, never: Sequence[int]) -> Tensor:
    """Logits [B, V] with no chance for the ids in `never`."""
    if not never:
        return logits
    left = logits.clone()
    left[:, never] = -torch.inf
    return left


def choose(logits: Tensor, sampling: Sampling, chances: Tensor) -> Tensor:
    """The token of each row, [B], at quantile `chances` [B] of what its logits [B, V] allow.

    Temperature 0 takes the likeliest; a nucleus keeps the fewest tokens that hold `top_p`.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probs = (logits / sampling.temperature).softmax(-1, dtype=torch.float64)
    ids = None
    if sampling.top_p < 1:
        probs, ids = probs.sort(stable=True, dim=-1, descending=True)
        probs = probs * (probs.cumsum(-1) - probs < sampling.top_p)
    ladder = probs.cumsum(-1)
    wanted = chances.to(ladder.device)[:, None] * ladder[:, -1:]
    picked = torch.searchsorted(ladder, wanted, right=True).clamp(max=ladder.shape[-1] - 1)
    return (picked if ids is None else ids.gather(1, picked))[:, 0]


def logprobs(logits: Tensor, tokens: Tensor, sampling: Sampling) -> Tensor:
    """Log-probability of each token [B] under its whole distribution at the temperature, [B]."""
    if sampling.temperature not in (0, 1):
        logits = logits / sampling.temperature
    return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


def _mixed(z: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _causal(seen: Tensor) -> Tensor:
    """Who attends to whom in the prompt, [B, 1, L, L]; padding attends to itself."""
    length = seen.shape[1]
    whole = torch.ones(length, length, dtype=torch.bool, device=seen.device)
    return (whole.tril() & seen[:, None, None, :]) | torch.eye(length, device=seen.device).bool()
