"""Drawing instructions from a policy, remembered draw by draw: one more wanted is one more drawn.

A draw is known by the policy's weights, the ids before the turn, how it is sampled and ended, its
seed and its number; how many are wanted is no part of it, so a higher count keeps all earlier ones.
Shards that decode differently have seeds of their own, or one would be the echo of the other.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import polars as pl

from alpacafarm_core import parts
from alpacafarm_core.generate import (
    Draw,
    Written,
    check_lengths,
    open_sampler,
    seed_of,
    weights_digest,
    written,
)
from alpacafarm_core.interactions import conversation
from alpacafarm_core.inventing import (
    Found,
    Turn,
    found_in,
    never_first,
    prompt_of,
    special_texts,
    stop_ids,
    turn_of,
)
from alpacafarm_core.ledger import Ledger, digest
from alpacafarm_core.machine import Machine
from alpacafarm_core.prompts import merged
from alpacafarm_core.sampler import Batch, Sample, Sampler
from alpacafarm_core.settings import Sampling
from alpacafarm_core.synthesis import Drafts, Following, Inventing, Shard
from alpacafarm_core.train.models import load_tokenizer
from alpacafarm_core.train.tokens import prompt_ids

DATASET = "invented"


class Asked(NamedTuple):
    """One draw to be had: which of which shard, in which wording, after which turns."""

    turn: Turn
    shard: int
    number: int
    history: str = "[]"


Group = tuple[Shard, list[Asked]]


def write(policy: Path, inventing: Inventing, ledger: Ledger, out: Path, machine: Machine) -> int:
    """Draws of all shards as Drafts in the file `out`; how many there are."""
    return parts.lay(drafts(policy, inventing, ledger, machine), Drafts.columns, out)


def write_on(
    policy: Path,
    rows: pl.DataFrame,
    asked: tuple[Inventing, Following],
    ledger: Ledger,
    out: Path,
    machine: Machine,
) -> int:
    """A next question for each row of Synthetic as Drafts in the file `out`; how many."""
    return parts.lay(followed(policy, rows, asked, ledger, machine), Drafts.columns, out)


def drafts(
    policy: Path, inventing: Inventing, ledger: Ledger, machine: Machine
) -> Iterator[pl.DataFrame]:
    """Drafts of each shard in turn, those without an input before those with one."""
    with closing(_Desk(policy, inventing, ledger, machine)) as desk:
        yield from desk.drawn(list(_groups(desk.tokenizer, inventing)))


def followed(
    policy: Path,
    rows: pl.DataFrame,
    asked: tuple[Inventing, Following],
    ledger: Ledger,
    machine: Machine,
) -> Iterator[pl.DataFrame]:
    """Drafts of a next question, one a row of Synthetic; the policy sees all the turns before.

    The text that asks for a question stands in front of what is drawn from, and nowhere else.
    """
    inventing, following = asked
    shard = Shard(temperature=following.temperature, top_p=following.top_p, count=rows.height or 1)
    with closing(_Desk(policy, inventing, ledger, machine)) as desk:
        wanted = []
        for talk in _talks(rows):
            turn = turn_of(desk.tokenizer, inventing.layout, following.system, talk)
            wanted.append(Asked(turn, 0, 0, talk))
        yield from desk.drawn([(shard, wanted)])


def _groups(tokenizer: Any, inventing: Inventing) -> Iterator[Group]:
    """The draws of each shard, those in one wording together."""
    for number, shard in enumerate(inventing.shards):
        for has_input in (False, True) if inventing.inputs else (False,):
            turn = turn_of(tokenizer, inventing.layout, inventing.system, has_input=has_input)
            yield (
                shard,
                [
                    Asked(turn, number, at)
                    for at in range(shard.count)
                    if has_input == bool(inventing.inputs and at % inventing.inputs == 0)
                ],
            )


def _talks(rows: pl.DataFrame) -> Iterator[str]:
    """Of each row all that was said, JSON of messages."""
    for row in rows.select("history", "asked", "input", "output").iter_rows():
        history, asked, given, answer = row
        said = [("user", merged(asked, given)), ("assistant", answer)]
        told = [{"role": role, "content": text} for role, text in said]
        yield json.dumps([*json.loads(history), *told], ensure_ascii=False)


class _Desk:
    """One policy and how it is asked; its engine is opened when a draw is not known."""

    def __init__(
        self, policy: Path, inventing: Inventing, ledger: Ledger, machine: Machine
    ) -> None:
        self.policy, self.inventing, self.ledger = policy, inventing, ledger
        self.machine, self.longest = machine, 0
        self.tokenizer = load_tokenizer(policy)
        self.special = special_texts(self.tokenizer)
        self.never_first = never_first(self.tokenizer, inventing)
        self.weights = weights_digest(policy)
        self.ends = {kind: stop_ids(self.tokenizer, inventing, kind) for kind in (False, True)}

    @cached_property
    def engine(self) -> Sampler:
        """The engine, for the longest of all prompts."""
        return open_sampler(self.policy, self.longest, self.machine)

    def close(self) -> None:
        """Close the engine where one was opened."""
        if "engine" in self.__dict__:
            self.engine.close()

    def drawn(self, groups: Sequence[Group]) -> Iterator[pl.DataFrame]:
        """Drafts of these draws, a group after the other, in parts."""
        texts = list(dict.fromkeys(each.turn.before for _, some in groups for each in some))
        ids = dict(zip(texts, prompt_ids(self.tokenizer, texts), strict=True))
        lengths = [len(prompt) for prompt in ids.values()]
        check_lengths(self.policy, enumerate(lengths), self.inventing.max_tokens)
        self.longest = max(lengths, default=0) + self.inventing.max_tokens
        for shard, wanted in groups:
            ends = self.ends[any(each.turn.between for each in wanted)]
            sampling = self._sampling(shard)
            draws = self._draws(wanted, [ids[each.turn.before] for each in wanted], sampling, ends)
            for some in written(draws, sampling, self.ledger, partial(self._opened, ends)):
                yield self._table(some, wanted, shard, ends)

    def _sampling(self, shard: Shard) -> Sampling:
        return Sampling(
            temperature=shard.temperature,
            top_p=shard.top_p,
            max_tokens=self.inventing.max_tokens,
            seed=self.inventing.seed,
        )

    def _draws(
        self,
        wanted: Sequence[Asked],
        prompts: Sequence[list[int]],
        sampling: Sampling,
        ends: Iterable[int],
    ) -> Iterator[Draw]:
        first = [self.inventing.first_temperature, self.never_first]
        how = json.dumps([sampling.model_dump(mode="json"), first, sorted(ends)], sort_keys=True)
        same = digest("invented", self.weights, how)
        decoding = f"{sampling.temperature} {sampling.top_p}"
        for row, (each, prompt) in enumerate(zip(wanted, prompts, strict=True)):
            seed = seed_of(sampling.seed, f"{decoding} {each.turn.before}", each.number)
            key = digest(same, json.dumps(prompt), each.number)
            yield Draw(row, 0, prompt, seed, key)

    def _opened(self, ends: frozenset[int]) -> Sampler:
        engine = self.engine
        engine.ends = set(ends)
        lent = _Lent(engine, self.inventing.first_temperature, self.never_first)
        return cast("Sampler", lent)

    def _table(
        self, some: Written, wanted: Sequence[Asked], shard: Shard, ends: Iterable[int]
    ) -> pl.DataFrame:
        special = set(self.tokenizer.all_special_ids)
        rows = []
        for draw, sample in zip(some.draws, some.samples, strict=True):
            asked, ids = wanted[draw.row], sample.ids
            text = self.tokenizer.decode(
                ids[:-1] if ids[-1] in special else ids, clean_up_tokenization_spaces=False
            )
            found = found_in(text, asked.turn, self.inventing, self.special, ids[-1] in ends)
            rows.append(self._row(asked, found) | {"seed": draw.seed, "raw": text})
        return pl.DataFrame(rows).with_columns(
            temperature=pl.lit(shard.temperature), top_p=pl.lit(shard.top_p)
        )

    def _row(self, asked: Asked, found: Found) -> dict[str, Any]:
        texts = (found.instruction, found.input)
        return {
            "instruction": conversation(asked.history, found.instruction),
            "input": found.input,
            "dataset": DATASET,
            "asked": found.instruction,
            "prompt": prompt_of(self.tokenizer, self.inventing.layout, asked.history, texts),
            "history": asked.history,
            "shard": asked.shard,
            "number": asked.number,
            "rule": found.rule,
            "status": found.status,
        }


class _Lent:
    """An engine whose first tokens are drawn in a way of their own; to close it leaves it open."""

    def __init__(self, engine: Sampler, warmth: float, never_first: Sequence[int]) -> None:
        self.engine, self.warmth, self.never_first = engine, warmth, list(never_first)

    def stream(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[list[Sample]]:
        """The responses of each batch in turn."""
        if self.warmth == 1 and not self.never_first:
            return self.engine.stream(batches, sampling)
        return (self._begun(batch, sampling) for batch in batches)

    def close(self) -> None:
        """Somebody else closes it."""

    def _begun(self, batch: Batch, sampling: Sampling) -> list[Sample]:
        """First tokens by themselves, then the rest after those that are no end."""
        warmer = sampling.replace(temperature=sampling.temperature * self.warmth, max_tokens=1)
        never, seeds = self.engine.never, [seed_of(seed, "first", 0) for seed in batch.seeds]
        self.engine.never = [*never, *self.never_first]
        firsts = self.engine.sample(batch.prompts, warmer, seeds)
        self.engine.never = never
        going = [at for at, one in enumerate(firsts) if one.ids[-1] not in self.engine.ends]
        if not going or sampling.max_tokens == 1:
            return firsts
        shorter = sampling.replace(max_tokens=sampling.max_tokens - 1)
        prompts = [[*batch.prompts[at], *firsts[at].ids] for at in going]
        rest = self.engine.sample(prompts, shorter, [batch.seeds[at] for at in going])
        for at, more in zip(going, rest, strict=True):
            firsts[at] = Sample(firsts[at].ids + more.ids, more.finish_reason)
        return firsts
