"""The pages of `alpacafarm browse` for one row and for two artifacts side by side."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from alpacafarm_core.browse_page import leading, number, sheet
from alpacafarm_core.markup import NOTHING, Figure, Markup, more, table, tag, text
from alpacafarm_core.profile import brief
from alpacafarm_core.store import Manifest
from alpacafarm_core.tracing import Trace
from alpacafarm_core.transcript import Judgement

SHOWN = 3
"""Rows named of each artifact on the way to a row."""

SHORT = 40
"""Characters of a text that stands beside its name."""

TELLING = ("model", "instruction", "output", "output_1", "response", "prompt")
"""Columns of which the first says what a row is about."""


class Looked(NamedTuple):
    """All that the page of a row shows; `trace` has the first rows of each artifact beside it."""

    made: Manifest
    row: int
    held: Mapping[str, Any]
    judgement: Judgement | None
    trace: Sequence[tuple[Trace, Sequence[Mapping[str, Any]]]]


def row(looked: Looked) -> str:
    """One row in full, what a judge was asked about it, and the rows that made it."""
    folder = looked.made.artifact.folder
    held = [
        tag("h1", f"Row {looked.row} of ", leading(folder)),
        _beside(looked),
        tag("section", tag("h2", "Values"), *_values(looked.held)),
        _judged(looked.judgement) if looked.judgement else NOTHING,
        tag("section", tag("h2", "The rows that made it"), _traced(looked), id="lineage"),
        tag("p", "On the command line: ",
            tag("code", f"alpacafarm lineage {looked.made.key} --row {looked.row}")),
    ]  # fmt: skip
    return sheet(f"row {looked.row}", [(folder, f"/artifact/{folder}")], held)


def difference(told: Mapping[str, Any]) -> str:
    """What differs between two artifacts: the document that `alpacafarm diff --json` prints."""
    named = [("Settings", told["recipe"]), ("Further back", told["causes"])]
    apart = {**told["packages"], **told["commit"]}
    around = [f"{name}: {one} → {other}" for name, (one, other) in apart.items()]
    lists = [_lines(title, lines) for title, lines in [*named, ("Code and packages", around)]]
    if not any(lists):
        lists = [tag("p", "Their recipes do not differ.")]
    files = [f"{name}: {_digest(one)} → {_digest(other)}" for name, (one, other)
             in told["files"].items()]  # fmt: skip
    held = [
        tag("h1", "What differs"),
        tag("p", "From ", leading(told["first"]), " to ", leading(told["second"]), "."),
        *lists,
        _rows_apart(told["rows"]) if told["rows"] is not None else NOTHING,
        _lines("Files", files),
    ]
    return sheet("what differs", [(told["second"], f"/artifact/{told['second']}")], held)


def _values(held: Mapping[str, Any]) -> list[Markup]:
    """Texts in full, one below the other; then all that is short; long lists open on a click."""
    long = [name for name, each in held.items() if isinstance(each, str) and len(each) > SHORT]
    texts = [
        tag("div", tag("h3", name), tag("div", held[name], class_="said"), class_="value")
        for name in long
    ]
    facts = [
        part
        for name in held
        if name not in long
        for part in (tag("dt", name), tag("dd", _short(held[name])))
    ]
    return [*texts, tag("dl", *facts, class_="facts")]


def _short(held: Any) -> Markup:
    if held is None or held == "":
        return tag("span", "nothing" if held is None else "empty", class_="soft")
    if isinstance(held, list):
        return more(f"{len(held)} items", tag("pre", json.dumps(held, default=str), class_="said"))
    if isinstance(held, bool):
        return text("yes" if held else "no")
    return text(number(held) if isinstance(held, float) else held)


def _beside(looked: Looked) -> Markup:
    folder, last = looked.made.artifact.folder, (looked.made.rows or 1) - 1
    ways = [
        tag("a", words, href=f"/artifact/{folder}/row/{to}")
        for words, to in (("row before", looked.row - 1), ("next row", looked.row + 1))
        if 0 <= to <= last
    ]
    return tag("nav", *ways, class_="pager", aria_label="Rows beside")


def _judged(found: Judgement) -> Markup:
    """The request and the raw answer, with what the call took."""
    call, request = found.call, found.request
    told = [
        ("model", f"{call.model} at {request.endpoint}"),
        ("rows in the call", f"{call.size}, this one is number {found.position + 1}"),
        ("sampling", f"temperature {request.temperature:g}, at most {request.max_tokens} tokens"),
        ("tokens", f"{call.prompt_tokens:,} asked, {call.completion_tokens:,} answered"),
        ("price of the call", f"${call.price:.4f}, {call.seconds:.2f} s"),
        ("ended", call.finish_reason),
    ]
    facts = [held for term, what in told for held in (tag("dt", term), tag("dd", what))]
    note = (
        "The request as it was sent, its digest checked."
        if found.is_exact
        else "Not every row of the call is in this table; the prompt is shown for this row alone."
    )
    turns = [
        tag("div", tag("h3", turn.role), tag("div", turn.content, class_="said"), class_="value")
        for turn in request.messages
    ]
    answer = tag("div", tag("h3", "answer"), tag("div", call.text, class_="said"), class_="value")
    parts = [tag("dl", *facts, class_="facts"), tag("p", note, class_="soft"), *turns, answer]
    return tag("section", tag("h2", "The judgement"), *parts, id="judgement")


def _traced(looked: Looked) -> Markup:
    rows = [
        [
            leading(trace.made.artifact.folder),
            trace.made.recipe.stage,
            Figure("" if trace.rows is None else f"{len(trace.rows):,}"),
            _named(trace, shown),
        ]
        for trace, shown in looked.trace
    ]
    return table("The rows that made it", ["artifact", "stage", "rows", "the first of them"], rows)


def _named(trace: Trace, shown: Sequence[Mapping[str, Any]]) -> Markup:
    """The first rows of an artifact, each leading to its page."""
    if trace.rows is None:
        return tag("span", "all of it had a part", class_="soft")
    folder = trace.made.artifact.folder
    return Markup(
        "".join(
            tag("div", tag("a", each["row"], href=f"/artifact/{folder}/row/{each['row']}"), " ",
                _telling(each))
            for each in shown
        )
    )  # fmt: skip


def _telling(held: Mapping[str, Any]) -> str:
    return next((brief(held[name], 70) for name in TELLING if held.get(name)), "")


def _lines(title: str, lines: Sequence[str]) -> Markup:
    if not lines:
        return NOTHING
    items = [tag("li", tag("code", line)) for line in lines]
    return tag("section", tag("h2", title), tag("ul", *items, class_="plain"))


def _rows_apart(rows: Mapping[str, Any]) -> Markup:
    """How many rows were added, removed and changed, and the first of each sort."""
    counts = ", ".join(f"{rows[sort]:,} {sort}" for sort in ("added", "removed", "changed", "same"))
    held = [tag("h2", "Rows"), tag("p", f"{counts}.")]
    if rows["columns"]:
        changed = ", ".join(f"{name} in {n:,}" for name, n in rows["columns"].items())
        held.append(tag("p", f"Changed: {changed}."))
    for sort, some in rows["shown"].items():
        if some:
            held += [tag("h3", sort), *(_apart(each) for each in some)]
    return tag("section", *held)


def _apart(row: Mapping[str, Any]) -> Markup:
    """A row that is not as it was: what names it, and each column before and after."""
    named = " · ".join(brief(row[name], 120) for name in row if name != "columns" and row[name])
    cells = [
        [name, *(_cut(held) for held in both)] for name, both in row.get("columns", {}).items()
    ]
    told = table("Before and after", ["column", "before", "after"], cells) if cells else NOTHING
    return tag("div", tag("p", named), told, class_="value")


def _cut(held: Any) -> Markup:
    if isinstance(held, list):
        return text(f"{len(held)} items")
    said = brief(held, 300) if isinstance(held, str) else _short(held)
    return tag("div", said, class_="cut") if len(said) > 24 else text(said)


def _digest(said: str | None) -> str:
    return "not there" if said is None else said[:12]
