"""Rows to ids: prompts and responses as a model reads them.

Sampled ids are used as they are, never by way of text; only what nobody sampled under this very
tokenizer is tokenised.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, takewhile
from typing import Any, NamedTuple, TypeVar

import polars as pl

from alpacafarm_core.errors import BadInput
from alpacafarm_core.prompts import render

OPENING = 8
TEMPLATES = "prompt_templates"  # of a model, in its tokenizer_config.json
TAG = "tag"  # the column with the number of a row's reward token
REWARD = re.compile(r"<reward_\d+>")

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


class Tokens(NamedTuple):
    """One prompt and one response to it, as ids."""

    prompt: list[int]
    response: list[int]

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt) + len(self.response)

    @property
    def opening(self) -> tuple[int, ...]:
        """The first tokens of the prompt, by which templates are told apart."""
        return tuple(self.prompt[:OPENING])


class Pair(NamedTuple):
    """The preferred and the other response to one prompt."""

    chosen: Tokens
    rejected: Tokens

    @property
    def length(self) -> int:
        """Tokens of the longer one."""
        return max(self.chosen.length, self.rejected.length)

    @property
    def opening(self) -> tuple[int, ...]:
        """The first tokens of the prompt."""
        return self.chosen.opening


Example = Tokens | Pair


def tokenizer_digest(tokenizer: Any) -> str:
    """What ids mean: a hash of the vocabulary, the merges and the special tokens.

    Reward tokens do not count: they are only ever put before a prompt, so ids sampled before a
    tokenizer had them mean the same afterwards.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    added = backend.get("added_tokens", [])
    backend["added_tokens"] = [one for one in added if not REWARD.fullmatch(one["content"])]
    for how_it_was_last_called in ("padding", "truncation"):
        backend.pop(how_it_was_last_called, None)
    content = json.dumps([backend, tokenizer.bos_token_id, tokenizer.eos_token_id], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def prompt_texts(rows: pl.DataFrame, tokenizer: Any = None) -> list[str]:
    """The rendered prompt of each row, or the text to sample from where it has one (Guided).

    In the tokenizer's own wording where that has one.
    """
    if "prompt" in rows.columns:
        return rows["prompt"].to_list()
    templates = None if tokenizer is None else tokenizer.init_kwargs.get(TEMPLATES)
    asked = rows.select("instruction", "input").iter_rows()
    return [render(instruction, text, templates) for instruction, text in asked]


def prompt_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each prompt, with the begin token where the tokenizer adds one."""
    return list(tokenizer(list(texts)).input_ids) if texts else []


def reward_token(number: int) -> str:
    """The token that stands before a prompt; 0 is the best."""
    return f"<reward_{number}>"


def reward_ids(tokenizer: Any) -> list[int]:
    """Ids of the reward tokens that a tokenizer has, in their order."""
    added = tokenizer.get_added_vocab()
    names = takewhile(added.__contains__, map(reward_token, count()))
    return [added[name] for name in names]


def tagged(prompt: Sequence[int], token: int, tokenizer: Any) -> list[int]:
    """A prompt's ids with a reward token in front, after the begin token where there is one."""
    begun = int(list(prompt[:1]) == [tokenizer.bos_token_id])
    return [*prompt[:begun], token, *prompt[begun:]]


def asked(rows: pl.DataFrame, tokenizer: Any) -> list[list[int]]:
    """Ids of each row's prompt as a policy is asked: behind its reward token where it has one.

    Raises BadInput where the tokenizer has no such token.
    """
    return _behind_tags(rows, prompt_ids(tokenizer, prompt_texts(rows, tokenizer)), tokenizer)


def _behind_tags(
    rows: pl.DataFrame, prompts: Sequence[list[int]], tokenizer: Any
) -> list[list[int]]:
    tags = rows[TAG].to_list() if TAG in rows.columns else [None] * len(prompts)
    known, most = reward_ids(tokenizer), max((tag for tag in tags if tag is not None), default=-1)
    if most >= len(known):
        raise BadInput(
            f"row {tags.index(most)}: this policy has no token {reward_token(most)}; train it on "
            "tagged answers first"
        )
    return [
        prompt if tag is None else tagged(prompt, known[tag], tokenizer)
        for prompt, tag in zip(prompts, tags, strict=True)
    ]


def encode(rows: pl.DataFrame, output: str, tokenizer: Any) -> list[Tokens]:
    """Each row's prompt with the response in column `output`.

    The response is `<output>_ids` where it was sampled under this very tokenizer, else its text
    and the end token.
    """
    return list(each_encoded([rows], output, tokenizer))


def each_encoded(parts: Iterable[pl.DataFrame], output: str, tokenizer: Any) -> Iterator[Tokens]:
    """The same of a table that comes in parts, a part in memory at a time."""
    ours = tokenizer_digest(tokenizer)
    for part in parts:
        prompts = _Prompts.of(part, tokenizer)
        responses = _responses(part, output, prompts, ours)
        yield from map(Tokens, _behind_tags(part, prompts.ids, tokenizer), responses)


def demonstrations(rows: pl.DataFrame, tokenizer: Any) -> list[Tokens]:
    """Prompt and response of each row of Demonstrations."""
    return encode(rows, "output", tokenizer)


def labelled(preferences: Frame) -> Frame:
    """The pairs with a decision, 1 or 2; ties, graded and missing labels are left out."""
    return preferences.filter(pl.col("preference").is_in([1.0, 2.0]))


def pairs(rows: pl.DataFrame, tokenizer: Any) -> list[Pair]:
    """Chosen and rejected of each row of Preferences, all labelled 1 or 2."""
    return list(each_pair([rows], tokenizer))


def each_pair(parts: Iterable[pl.DataFrame], tokenizer: Any) -> Iterator[Pair]:
    """The same of a table that comes in parts, a part in memory at a time."""
    ours = tokenizer_digest(tokenizer)
    for part in parts:
        prompts = _Prompts.of(part, tokenizer)
        first, second = (
            _responses(part, output, prompts, ours) for output in ("output_1", "output_2")
        )
        labels = part["preference"].to_list()
        for prompt, one, two, label in zip(prompts.ids, first, second, labels, strict=True):
            both = Tokens(prompt, one), Tokens(prompt, two)
            yield Pair(*both) if label == 1 else Pair(*reversed(both))


def responses_of(examples: Sequence[Example]) -> list[Tokens]:
    """Responses of these examples; of pairs, all chosen ones before all rejected ones."""
    firsts = [each.chosen if isinstance(each, Pair) else each for each in examples]
    return firsts + [each.rejected for each in examples if isinstance(each, Pair)]


class _Prompts(NamedTuple):
    """Prompts as texts and as ids of this tokenizer."""

    tokenizer: Any
    texts: list[str]
    ids: list[list[int]]

    @classmethod
    def of(cls, rows: pl.DataFrame, tokenizer: Any) -> "_Prompts":
        texts = prompt_texts(rows, tokenizer)
        return cls(tokenizer, texts, prompt_ids(tokenizer, texts))


def _responses(rows: pl.DataFrame, output: str, prompts: _Prompts, ours: str) -> list[list[int]]:
    """Ids of the response in `output` of each row; `ours` is the tokenizer's digest."""
    found: list[list[int]] = rows[f"{output}_ids"].to_list()
    is_ours = (rows["tokenizer"] == ours).fill_null(False).to_list()
    unknown = [row for row, ids in enumerate(found) if not (is_ours[row] and ids)]
    outputs = rows[output].to_list()
    written = _written(prompts, unknown, [outputs[row] for row in unknown])
    for row, ids in zip(unknown, written, strict=True):
        found[row] = ids
    return found


def _written(prompts: _Prompts, rows: Sequence[int], outputs: Sequence[str]) -> list[list[int]]:
    """Ids of texts that follow the prompts of `rows`, and the end token.

    Prompt and text are tokenised in one piece, as AlpacaFarm does; where that changes the prompt's
    own ids, the text is tokenised alone, so that the prompt is the one that is sampled from.
    """
    tokenizer, before = prompts.tokenizer, [prompts.ids[row] for row in rows]
    whole = [prompts.texts[row] + output for row, output in zip(rows, outputs, strict=True)]
    return [
        (ids[len(prompt) :] if ids[: len(prompt)] == prompt else _alone(tokenizer, output))
        + [tokenizer.eos_token_id]
        for ids, prompt, output in zip(prompt_ids(tokenizer, whole), before, outputs, strict=True)
    ]


def _alone(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)
