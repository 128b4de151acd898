"""Other people's shapes of preferences, as pairs: chosen and rejected, ordinal labels, ratings.

Frames in, frames out. What comes out has `instruction`, `output_1`, `output_2` and `preference`;
columns that mean something else stay as they are. Messages, objects and lists are as Python holds
them. `path` is only for the words of a refusal.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, takewhile
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core.errors import BadInput

ORDINAL = {0: 0.0, 1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0, -1: -1.0}
"""AlpacaFarm's `raw_preference`: 1 and 2 are for output_1, 3 and 4 for output_2; 0 is a tie."""

_ANSWERS = ("completions", "generations", "responses")
_TEXTS = ("response", "output", "text", "content")
_OVERALL = ("fine-grained_score", "overall_score", "score", "rating")
_UNRATED = (None, "", "N/A")
_ASKING = {"user", "system"}
_LAST_TURN = "\n\nAssistant:"


def as_pairs(raw: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The file's rows as pairs, whichever known shape they have; raises BadInput naming the row.

    Chosen and rejected keep their rows, with the chosen answer as output_1. Rated answers become
    every pair of two answers to a prompt whose ratings differ, in the file's order.
    """
    names = set(raw.columns)
    if "output_1" in names:
        ordinal = "raw_preference" in names and "preference" not in names
        return _from_ordinal(raw, path) if ordinal else raw
    if {"chosen", "rejected"} <= names:
        return _from_chosen(raw, path)
    if any(name in names for name in _ANSWERS):
        return _from_ratings(raw, path)
    return raw


def _from_ordinal(raw: pl.DataFrame, path: Path) -> pl.DataFrame:
    labels = [
        _side_of(held, row, path) for row, held in enumerate(raw["raw_preference"].to_list(), 1)
    ]
    return raw.with_columns(preference=pl.Series(labels, dtype=pl.Float64))


def _side_of(held: object, row: int, path: Path) -> float | None:
    if held is None or held == "":
        return None
    number = _number(held)
    if number not in ORDINAL:
        raise _refused(path, row, "raw_preference", f"{held!r} is none of 1, 2, 3 and 4")
    return ORDINAL[int(number)]


def _from_chosen(raw: pl.DataFrame, path: Path) -> pl.DataFrame:
    asked = next((name for name in ("instruction", "prompt") if name in raw.columns), None)
    texts = all(raw[name].dtype == pl.String for name in (asked, "chosen", "rejected") if name)
    if asked and texts:
        named = pl.col("chosen").alias("output_1"), pl.col("rejected").alias("output_2")
        return raw.with_columns(*named, preference=pl.lit(1.0)).drop("chosen", "rejected")
    prompts = raw[asked].to_list() if asked else [None] * raw.height
    answers = zip(prompts, raw["chosen"].to_list(), raw["rejected"].to_list(), strict=True)
    triples = [_triple(*each, row, path) for row, each in enumerate(answers, 1)]
    columns = zip(*triples, strict=True) if triples else ((), (), ())
    names = ("instruction", "output_1", "output_2")
    found = [
        pl.Series(name, list(held), dtype=pl.String)
        for name, held in zip(names, columns, strict=True)
    ]
    rest = raw.drop("chosen", "rejected", *([asked] if asked else []))
    return rest.with_columns(*found, preference=pl.lit(1.0))


def _triple(prompt: Any, chosen: Any, rejected: Any, row: int, path: Path) -> tuple[str, str, str]:
    """Instruction and both answers of one row, as texts or as lists of messages (TRL's shapes)."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None:
            return _split(chosen, rejected, row, path)
        return _transcript(_turns(prompt, "prompt", row, path)), chosen, rejected
    context = [] if prompt is None else _turns(prompt, "prompt", row, path)
    first, second = _turns(chosen, "chosen", row, path), _turns(rejected, "rejected", row, path)
    for name, turns in (("chosen", first), ("rejected", second)):
        if len(turns) > 1 and turns[-1].role in _ASKING:
            why = f"ends with a message of the {turns[-1].role}; end it with the answer"
            raise _refused(path, row, name, why)
    before = first[:-1]
    if before != second[:-1]:
        why = "differs from 'rejected' before the last message; end both with one answer"
        raise _refused(path, row, "chosen", why)
    if before and context and all(turn.content != context[-1].content for turn in before):
        why = "repeats another prompt than 'prompt' has; leave one of them out"
        raise _refused(path, row, "chosen", why)
    if not before and not context:
        raise _refused(path, row, "chosen", "no prompt; add a column 'prompt', or its messages")
    return _transcript(before or context), first[-1].content, second[-1].content


class _Turn(NamedTuple):
    """One message; `role` as the file has it."""

    role: str
    content: str


def _turns(held: Any, name: str, row: int, path: Path) -> list[_Turn]:
    """Messages; a text is what the user says."""
    if isinstance(held, str):
        return [_Turn("user", held)]
    turns = held if isinstance(held, list) else []
    texts = [turn.get("content") if isinstance(turn, dict) else None for turn in turns]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise _refused(path, row, name, "no text and no list of messages with a text as content")
    return [_Turn(str(turn.get("role", "user")), str(turn["content"])) for turn in turns]


def _transcript(turns: Sequence[_Turn]) -> str:
    """What one user said, after what the system said; of a longer talk every turn by its role."""
    talk = [turn for turn in turns if turn.role != "system"]
    told = [turn.content for turn in turns if turn.role == "system"]
    if len(talk) == 1:
        return "\n\n".join([*told, talk[0].content])
    return "\n\n".join([*told, *(f"{turn.role}: {turn.content}" for turn in talk)])


def _split(chosen: str, rejected: str, row: int, path: Path) -> tuple[str, str, str]:
    """A prompt that stands in both texts: up to the last turn of the assistant, or by words."""
    alike = takewhile(lambda two: two[0] == two[1], zip(chosen, rejected, strict=False))
    shared = "".join(letter for letter, _ in alike)
    turn = shared.rfind(_LAST_TURN)
    end = turn + len(_LAST_TURN) if turn >= 0 else len(shared) - len(_last_word(shared))
    asked = shared[: turn if turn >= 0 else end].strip()
    if asked.count("\n\nHuman:") == 0:
        asked = asked.removeprefix("Human:").strip()
    if not asked:
        why = "shares no beginning with 'rejected'; add a column 'prompt'"
        raise _refused(path, row, "chosen", why)
    return asked, chosen[end:].lstrip(), rejected[end:].lstrip()


def _last_word(text: str) -> str:
    return text.split()[-1] if text and not text[-1].isspace() else ""


class _Rated(NamedTuple):
    """An answer, who wrote it, and its mark."""

    output: str
    generator: str
    mark: float


def _from_ratings(raw: pl.DataFrame, path: Path) -> pl.DataFrame:
    """UltraFeedback's shape: a prompt a row, its answers in a list, each with a mark or several."""
    answers = next(name for name in _ANSWERS if name in raw.columns)
    given = {"source": "dataset", "prompt": "instruction"}
    raw = raw.rename({old: new for old, new in given.items() if _is_free(raw, old, new)})
    kept = [name for name in ("instruction", "input", "dataset") if name in raw.columns]
    pairs = [
        {name: record[name] for name in kept} | _pair(one, other)
        for row, record in enumerate(raw.to_dicts(), 1)
        for one, other in combinations(_rated(record, answers, row, path), 2)
        if one.mark != other.mark
    ]
    if raw.height and not pairs:
        raise BadInput(f"{path}: no prompt has two answers with different ratings; nothing to pair")
    return pl.DataFrame(pairs, infer_schema_length=None)


def _is_free(raw: pl.DataFrame, old: str, new: str) -> bool:
    return old in raw.columns and new not in raw.columns


def _pair(one: _Rated, other: _Rated) -> dict[str, object]:
    return {
        "output_1": one.output,
        "output_2": other.output,
        "generator_1": one.generator,
        "generator_2": other.generator,
        "preference": 1.0 if one.mark > other.mark else 2.0,
    }


def _rated(record: Mapping[str, Any], answers: str, row: int, path: Path) -> Iterator[_Rated]:
    """The answers of one row that have a mark."""
    if not str(record.get("instruction", "?") or "").strip():
        raise _refused(path, row, "instruction", "is empty; remove the row")
    held = record[answers] or []
    if not isinstance(held, list):
        raise _refused(path, row, answers, f"{held!r} is no list of answers")
    marks = record.get("ratings") or [None] * len(held)
    names = record.get("generation_models") or record.get("models") or [""] * len(held)
    lists = (held, marks, names)
    if not all(isinstance(each, list) and len(each) == len(held) for each in lists):
        why = "answers, ratings and models are not lists of one length"
        raise _refused(path, row, answers, why)
    for answer, mark, name in zip(held, marks, names, strict=True):
        whole = answer if isinstance(answer, dict) else {"response": answer, "score": mark}
        text = next((whole[field] for field in _TEXTS if field in whole), None)
        if not isinstance(text, str):
            raise _refused(path, row, answers, f"an answer is {text!r}, not a text")
        found = _mark(whole, answers, row, path)
        if found is not None:
            yield _Rated(text, str(whole.get("model") or name or ""), found)


def _mark(answer: Mapping[str, Any], name: str, row: int, path: Path) -> float | None:
    """Mean of the marks of all aspects, those that do not apply left out; else the overall one.

    The mean comes first as UltraFeedback's first overall scores turned some ones into tens.
    """
    held = answer.get("annotations") or {}
    if not isinstance(held, dict):
        raise _refused(path, row, name, f"annotations are {held!r}, not aspects by name")
    aspects = held.values()
    marks = [aspect.get("Rating") for aspect in aspects if isinstance(aspect, dict)]
    marks = [mark for mark in marks if mark not in _UNRATED]
    if not marks:
        marks = [answer[field] for field in _OVERALL if answer.get(field) not in _UNRATED][:1]
    numbers = [_number(mark) for mark in marks]
    if not all(isfinite(number) for number in numbers):
        raise _refused(path, row, name, f"a rating is {marks!r}, not numbers or N/A")
    return sum(numbers) / len(numbers) if numbers else None


def _number(held: object) -> float:
    """A number, also when written as text; not a number where there is none."""
    try:
        return float("nan") if isinstance(held, bool) else float(str(held))
    except ValueError:
        return float("nan")


def _refused(path: Path, row: int, name: str, why: str) -> BadInput:
    line = " ".join(why.split())
    line = line if len(line) <= 120 else line[:117] + "..."
    return BadInput(f"{path}: row {row}, column {name!r}: {line}")
