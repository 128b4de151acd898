"""Instructions of the built-in world, in AlpacaFarm's five splits and five sources.

Every content (what is asked, with its input and its wish) belongs to one split by a stable hash,
so that no two splits ask the same thing, whatever the seed, the size and the phrasing. The sources
stand for the five that make up AlpacaFarm's 805 evaluation instructions and differ in the families
they draw from: only `selfinstruct` has inputs, `koala` likes facts, `oasst` tasks, `vicuna` long
texts, `helpful_base` advice. Their shares are those of the 805.
"""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import accumulate
from random import Random

from alpacafarm_core.world.asking import FAMILIES
from alpacafarm_core.world.tasks import Question
from alpacafarm_core.world.understanding import named_in, phrasings, understand, wrapped

SPLITS = ("sft", "preference", "unlabeled", "val", "eval")

# Contents per hundred. `web` is what the base model reads and no split ever asks.
POOLS: Mapping[str, int] = {
    "sft": 12,
    "preference": 22,
    "unlabeled": 22,
    "val": 4,
    "eval": 4,
    "web": 36,
}

SOURCES: Mapping[str, int] = {
    "selfinstruct": 252,
    "oasst": 188,
    "koala": 156,
    "helpful_base": 129,
    "vicuna": 80,
}

MIXES: Mapping[str, Mapping[str, int]] = {
    "selfinstruct": {
        "passage": 26, "summary": 14, "row": 12, "rewrite": 12, "pick": 12,
        "sort": 3, "reverse": 2, "count": 2, "sum": 5, "opposite": 3, "list": 9,
    },
    "oasst": {
        "list": 20, "describe": 20, "steps": 20, "suggest": 15, "choose": 15, "opposite": 5,
        "sum": 5,
    },
    "koala": {"describe": 35, "compare": 30, "list": 15, "choose": 15, "opposite": 5},
    "helpful_base": {"steps": 25, "suggest": 30, "letter": 15, "plan": 15, "list": 15},
    "vicuna": {"story": 30, "plan": 20, "letter": 20, "compare": 20, "describe": 10},
}  # fmt: skip

FAMILY_WEIGHTS: Mapping[str, float] = {
    family: sum(
        SOURCES[source] * mix.get(family, 0) / sum(mix.values()) for source, mix in MIXES.items()
    )
    for family in FAMILIES
}

WISHING = 0.35


def instructions(split: str, size: int, seed: int = 0) -> list[dict[str, str]]:
    """`size` different instructions of a split, the same for the same seed.

    Rows have `instruction`, `input` ("" when none), `dataset` (the source) and `family`. The
    sources come in the proportions of the 805, exactly so up to rounding, and the first rows of a
    larger size are those of a smaller one.
    """
    streams = {
        source: _stream(Random(f"instructions {split} {seed} {source}"), split, source)
        for source in SOURCES
    }
    seen: set[tuple[str, str]] = set()
    return [_unseen(streams[source], seen) for source in turns(size)]


def turns(size: int) -> list[str]:
    """The source of each row: always the one that lags most behind its share of the 805."""
    total, drawn, order = sum(SOURCES.values()), dict.fromkeys(SOURCES, 0), []
    for place in range(1, size + 1):
        lags = {name: place * part - drawn[name] * total for name, part in SOURCES.items()}
        source = max(lags, key=lags.__getitem__)
        drawn[source] += 1
        order.append(source)
    return order


def _unseen(stream: Iterator[dict[str, str]], seen: set[tuple[str, str]]) -> dict[str, str]:
    """The next row whose text has not come yet."""
    while True:
        row = next(stream)
        text = (row["instruction"], row["input"])
        if text not in seen:
            seen.add(text)
            return row


def _stream(rng: Random, split: str, source: str) -> Iterator[dict[str, str]]:
    mix = MIXES[source]
    names, weights = list(mix), list(mix.values())
    while True:
        family = rng.choices(names, weights)[0]
        instruction, text = draw(rng, family, split)
        yield {
            "instruction": instruction,
            "input": text,
            "dataset": source,
            "family": family,
        }


def draw(rng: Random, family: str, split: str) -> tuple[str, str]:
    """An instruction of a family with its input, drawn until its content falls into the split."""
    while True:
        drawn = FAMILIES[family].draw(rng)
        phrasing = rng.choice(phrasings(family))
        question = Question(named_in(phrasing, drawn.slots), drawn.input)
        allowed = FAMILIES[family].wishes
        wish = rng.choice(allowed) if allowed and rng.random() < WISHING else ""
        if split_of(family, question, wish) == split:
            return wrapped(rng, phrasing.format(**question.slots), wish), question.input


def split_of(family: str, question: Question, wish: str) -> str:
    """The split that a content belongs to, by a stable hash of its words.

    Only what the phrasing names counts, so that no text can fall into two splits.
    """
    words = [family, wish, question.input, *(f"{k}={v}" for k, v in sorted(question.slots.items()))]
    digest = blake2b("\n".join(words).encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") % sum(POOLS.values())
    for name, bound in zip(POOLS, accumulate(POOLS.values()), strict=True):
        if place < bound:
            return name
    raise AssertionError("the pools cover every hash")


def asked_in(instruction: str, text: str) -> str:
    """The split that asks this, in whatever words; "" where the world does not understand it."""
    task = understand(instruction, text)
    if task is None:
        return ""
    return split_of(task.family, Question(task.slots, task.input), task.wish)
