"""Conversations of other people's as turns: an answer, and what its user made of it.

Frames in, frames out. A row may be a turn already, or a whole `conversation` (also `messages`): a
list of messages with role and content, in which a user's message that speaks of the answer before
it has a `label`, SAT or DSAT. Each answer that somebody spoke of becomes a row, and so does one
that was passed over in silence. What the system said stands in the history of each of its turns.
`path` is only for the words of a refusal.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from alpacafarm_core.errors import BadInput
from alpacafarm_core.judgements import first_row, shown

LABELS = ("SAT", "DSAT", "none")
WHOLE = ("conversation", "messages")


def as_turns(raw: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The file's rows as turns, whichever of the two shapes they have; raises BadInput."""
    named = next((name for name in WHOLE if name in raw.columns), None)
    if named is None or "response" in raw.columns:
        return raw
    found = [
        turn
        for row, messages in enumerate(raw[named].to_list(), 1)
        for turn in _turns(messages, row, path)
    ]
    if not found:
        raise BadInput(f"{path}: no answer in any {named}; give messages of user and assistant")
    return pl.DataFrame(found)


def labelled(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Turns with labels and histories that can be read; an empty label is none."""
    rows = rows.with_columns(
        label=pl.when(pl.col("label") == "").then(pl.lit("none")).otherwise("label"),
        history=pl.when(pl.col("history") == "").then(pl.lit("[]")).otherwise("history"),
    )
    unknown = ~rows["label"].is_in(LABELS)
    if unknown.any():
        row = first_row(unknown)
        raise BadInput(
            f"{path}: row {row}, column 'label': {shown(rows['label'][row - 1])} is none of "
            f"{', '.join(LABELS)}; correct it"
        )
    unread = ~pl.Series([_is_history(held) for held in rows["history"]], dtype=pl.Boolean)
    if unread.any():
        raise BadInput(
            f"{path}: row {first_row(unread)}, column 'history' is no JSON list of messages with "
            "role (system, user or assistant) and content; correct it, or leave it empty"
        )
    return rows


def users_words(history: str) -> list[str]:
    """What users said in a history, JSON of messages, one text a message."""
    return [turn["content"] for turn in json.loads(history) if turn["role"] == "user"]


def _turns(messages: Any, row: int, path: Path) -> Iterator[dict[str, str]]:
    """A turn for each answer of a conversation."""
    if not _are_messages(messages):
        raise BadInput(
            f"{path}: row {row}: a conversation is a list of messages with role (system, user or "
            "assistant) and content; correct it"
        )
    system = [message for message in messages if message["role"] == "system"]
    said = [message for message in messages if message["role"] != "system"]
    for at in range(1, len(said)):
        if (said[at - 1]["role"], said[at]["role"]) != ("user", "assistant"):
            continue
        reply = said[at + 1] if at + 1 < len(said) else {}
        label = reply.get("label") or "none"
        before = [*system, *said[: at - 1]]
        history = [{name: each[name] for name in ("role", "content")} for each in before]
        yield {
            "instruction": said[at - 1]["content"],
            "history": json.dumps(history, ensure_ascii=False),
            "response": said[at]["content"],
            "feedback": reply.get("content", "") if label != "none" else "",
            "label": label,
            "next_response": _accepted(said[at + 1 :]) if label == "DSAT" else "",
        }


def _accepted(later: list[dict[str, Any]]) -> str:
    """The first answer of these messages that its user was content with, "" without one."""
    for answer, reply in pairwise(later):
        if answer["role"] == "assistant" and reply.get("label") == "SAT":
            return str(answer["content"])
    return ""


def _is_history(text: str) -> bool:
    try:
        return _are_messages(json.loads(text))
    except json.JSONDecodeError:
        return False


def _are_messages(held: Any) -> bool:
    return isinstance(held, list) and all(
        isinstance(each, dict)
        and each.get("role") in ("system", "user", "assistant")
        and isinstance(each.get("content"), str)
        for each in held
    )
