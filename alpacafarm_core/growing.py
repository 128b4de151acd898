"""A layer of search trees drawn: roots from prompts, children from the ids of their parents.

A draw is remembered by the ledger as any sample is, under the tokens it goes on from and a seed of
its own, made from its parent's; so equal prefixes still grow differently. Roots are drawn with the
seeds and under the keys of a plain `generate`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core import parts
from alpacafarm_core.artifacts import Branches
from alpacafarm_core.branches import STOP
from alpacafarm_core.generate import (
    Draw,
    Written,
    check_lengths,
    draws_of,
    open_sampler,
    said,
    seed_of,
    table,
    weights_digest,
    written,
)
from alpacafarm_core.ledger import Ledger, digest
from alpacafarm_core.machine import Machine
from alpacafarm_core.sampler import Sample
from alpacafarm_core.settings import Sampling
from alpacafarm_core.train.batches import prompt_texts
from alpacafarm_core.train.models import load_tokenizer
from alpacafarm_core.train.tokens import asked

OPEN = ("survives", "children")
"""What is not known of a layer that has just grown, not even of what was carried on."""


class Prompts(NamedTuple):
    """The prompts of a call: numbers of their rows, rendered texts, ids."""

    numbers: list[int]
    texts: list[str]
    ids: list[list[int]]


class Stem(NamedTuple):
    """What a branch grows from: a prompt, its parent, the ids before it, and its draw."""

    place: int
    parent: int | None
    root: int
    child: int
    before: list[int]
    draw: Draw


def write(
    policy: Path,
    since: tuple[pl.DataFrame, pl.DataFrame | None],
    sampling: Sampling,
    ledger: Ledger,
    out: Path,
    machine: Machine,
) -> int:
    """A layer of Branches as Parquet in the file `out`; how many there are.

    `since` are the prompts, with the number of each in column `row`, and the survivors of the layer
    before; without a layer before, `sampling.n` roots grow from each prompt. Each child grows by at
    most `sampling.max_tokens`; survivors that have ended are carried on as they are.
    """
    return parts.lay([grown(policy, since, sampling, ledger, machine)], Branches.columns, out)


def grown(
    policy: Path,
    since: tuple[pl.DataFrame, pl.DataFrame | None],
    sampling: Sampling,
    ledger: Ledger,
    machine: Machine,
) -> pl.DataFrame:
    """The same as rows, in the order of prompts and, within one, of parents."""
    rows, parents = since
    tokenizer = load_tokenizer(policy)
    texts = prompt_texts(rows, tokenizer)
    prompts = Prompts(rows["row"].to_list(), texts, asked(rows, tokenizer))
    layer, so_far = _level(parents)
    lengths = [len(prompt) for prompt in prompts.ids]
    most = so_far + sampling.max_tokens
    check_lengths(policy, zip(prompts.numbers, lengths, strict=True), most)
    stems = (
        _roots(policy, prompts, sampling)
        if parents is None
        else list(_shoots(policy, prompts, parents, sampling))
    )
    longest = max(lengths, default=0) + most
    samples = [
        sample
        for some in written(
            (stem.draw for stem in stems),
            sampling,
            ledger,
            lambda: open_sampler(policy, longest, machine),
        )
        for sample in some.samples
    ]
    same = said(policy, tokenizer, sampling) | {"max_tokens": most}
    fresh = _fresh(rows, stems, samples, tokenizer, same).with_columns(layer=pl.lit(layer))
    return _in_order(fresh, parents, layer, most)


def _level(parents: pl.DataFrame | None) -> tuple[int, int]:
    """The number of this layer, and the tokens that its branches may have already."""
    if parents is None or parents.is_empty():
        return 1, 0
    return parents["layer"][0] + 1, parents["max_tokens"][0]


def _roots(policy: Path, prompts: Prompts, sampling: Sampling) -> list[Stem]:
    draws = draws_of(policy, prompts.texts, prompts.ids, sampling)
    return [Stem(draw.row, None, draw.sample_index, draw.sample_index, [], draw) for draw in draws]


def _shoots(
    policy: Path, prompts: Prompts, parents: pl.DataFrame, sampling: Sampling
) -> Iterator[Stem]:
    """The children of every survivor, each after its parent's ids."""
    weights, drawn = weights_digest(policy), sampling.model_dump_json()
    places = {number: place for place, number in enumerate(prompts.numbers)}
    columns = ("row", "sample_index", "root", "output_ids", "own_seed", "children")
    for row, index, root, before, seed, children in parents.select(columns).iter_rows():
        place = places[row]
        prompt = [*prompts.ids[place], *before]
        ids = json.dumps(prompt)
        for child in range(children):
            own = seed_of(seed, prompts.texts[place], child)
            draw = Draw(place, child, prompt, own, digest("branch", weights, ids, drawn, own))
            yield Stem(place, index, root, child, before, draw)


def _fresh(
    rows: pl.DataFrame,
    stems: list[Stem],
    samples: list[Sample],
    tokenizer: Any,
    same: dict[str, Any],
) -> pl.DataFrame:
    """What has grown, each branch from its first token on."""
    whole = [
        sample._replace(ids=stem.before + sample.ids)
        for stem, sample in zip(stems, samples, strict=True)
    ]
    found = table(rows, Written([stem.draw for stem in stems], whole), tokenizer, same)
    numbers = rows["row"].to_list()
    told: dict[str, list[Any]] = {
        "row": [numbers[stem.place] for stem in stems],
        "root": [stem.root for stem in stems],
        "parent": [stem.parent for stem in stems],
        "own_seed": [stem.draw.seed for stem in stems],
        "sampled": [len(sample.ids) for sample in samples],
        "child": [stem.child for stem in stems],
    }
    numbered = (pl.Series(name, held, dtype=pl.Int64) for name, held in told.items())
    return found.with_columns(*numbered, score=pl.lit(None), judge=pl.lit(None))


def _in_order(
    fresh: pl.DataFrame, parents: pl.DataFrame | None, layer: int, most: int
) -> pl.DataFrame:
    """What has grown and what is carried on, numbered within each prompt."""
    frames = [fresh]
    if parents is not None:
        ended = parents.filter(pl.col("finish_reason") == STOP).with_columns(
            parent=pl.col("sample_index"),
            layer=pl.lit(layer),
            max_tokens=pl.lit(most),
            sampled=pl.lit(0),
            child=pl.lit(0),
        )
        frames.append(ended)
    known = [name for name in Branches.columns if name not in OPEN]
    columns = [
        *(pl.col(name).cast(Branches.columns[name]) for name in known),
        pl.col("child").cast(pl.Int64),
    ]
    return (
        pl.concat([frame.select(columns) for frame in frames])
        .sort("row", "parent", "child")
        .with_columns(
            sample_index=pl.int_range(pl.len()).over("row"),
            **{name: pl.lit(None, dtype=Branches.columns[name]) for name in OPEN},
        )
        .select(list(Branches.columns))
    )
