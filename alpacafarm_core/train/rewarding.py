"""What a step's answers earn: their scores, less penalties, reshaped beside reference rewards.

Reference rewards are found by a prompt's ids, so that rollouts taken from a checkpoint find theirs.
B is responses, M reference rewards of each prompt.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor

from alpacafarm_core.errors import BadInput
from alpacafarm_core.proximal import Scoring
from alpacafarm_core.referring import REFS
from alpacafarm_core.shaping import Vanilla, check_references
from alpacafarm_core.train.rollouts import Rollouts
from alpacafarm_core.train.shaping import Running
from alpacafarm_core.train.tokens import Tokens, prompt_ids, prompt_texts

References = Mapping[tuple[int, ...], Sequence[float]]
"""The reference rewards of each prompt, by its ids."""

HIGH = 0.95
"""A reward between 0 and 1 above which more score earns next to nothing."""


def references_of(instructions: pl.DataFrame, tokenizer: Any, shaping: Scoring) -> References:
    """What stands in the column `ref_rewards`; raises BadInput unless it is as shaping asks."""
    given = REFS in instructions.columns
    check_references(shaping.reshape, given)
    if not given:
        return {}
    wanted, rewards = shaping.reshape.references, instructions[REFS].to_list()
    for row, each in enumerate(rewards):
        if len(each or []) != wanted:
            raise BadInput(
                f"row {row}: {len(each or [])} reference rewards where shaping.reshape.answers is "
                f"{wanted}; make as many for every prompt"
            )
    ids = prompt_ids(tokenizer, prompt_texts(instructions, tokenizer))
    return {tuple(prompt): each for prompt, each in zip(ids, rewards, strict=True)}


def digest_of(references: References) -> str:
    """What a checkpoint remembers them by."""
    return hashlib.sha256(json.dumps(sorted(references.items())).encode()).hexdigest()


def beside(rows: Sequence[Tokens], references: References) -> Tensor:
    """The reference rewards of each response's prompt, [B, M]; M is 0 where there are none."""
    found = [references[tuple(row.prompt)] if references else [] for row in rows]
    return torch.tensor(found, dtype=torch.float32).reshape(len(rows), -1)


def penalised(rollouts: Rollouts, shaping: Scoring) -> Tensor:
    """The scores, [B], less what is taken off for length or for having no end."""
    penalties, lengths = shaping.penalties, rollouts.mask.sum(1).int()
    known = (rollouts.scores.tolist(), lengths.tolist(), rollouts.finished.tolist())
    return torch.tensor([penalties.applied(*each) for each in zip(*known, strict=True)])


def rewarded(
    rollouts: Rollouts, shaping: Scoring, references: References, before: Running
) -> tuple[Tensor, Running]:
    """The rewards, [B], and the statistics of all scores so far, these included."""
    scores = penalised(rollouts, shaping)
    running = before.joined(scores) if shaping.reshape.is_running else before
    return shaping.reshape.shaped(scores, beside(rollouts.rows, references), running), running


def earned(rewards: Tensor, shaping: Scoring) -> dict[str, float]:
    """What the rewards of a step are like, beside the scores; nothing where they are the scores."""
    if shaping.reshape == Vanilla():
        return {}
    found = {"shaped_reward": float(rewards.mean())}
    if shaping.reshape.saturates:
        found["saturated"] = float((rewards > HIGH).float().mean())
    return found
