"""The pages of `alpacafarm browse`: a list of artifacts, and a page for each.

Pure: what was read from a store in, HTML out; every text that comes from data is escaped
(`markup`), and the only links are to other pages here.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from alpacafarm_core import drawing, markup
from alpacafarm_core.artifacts import Table
from alpacafarm_core.exhibits import when, written
from alpacafarm_core.graphs import Node, graph
from alpacafarm_core.markup import NOTHING, Figure, Markup, figure, more, table, tag
from alpacafarm_core.profile import Column, brief
from alpacafarm_core.store import Manifest

STYLE = "\n".join(
    Path(__file__).with_name(name).read_text() for name in ("report.css", "browse.css")
)
RULES = (
    "default-src 'none'; style-src 'sha256-{digest}'; img-src 'self'; base-uri 'none'; "
    "form-action 'self'"
)
LISTED, ROWS, CELL, SHORT = 100, 25, 90, 24
"""Artifacts and rows on a page, characters of a text in a table, and of one that needs no room."""


class Wanted(NamedTuple):
    """What of the list is asked for; "" is anything."""

    kind: str = ""
    stage: str = ""
    text: str = ""
    page: int = 1


class Facts(NamedTuple):
    """All that the page of an artifact shows.

    `inputs` are names and folders with their manifests, None for what was forgotten; `rows` are
    those of the page; `plots` names of pictures among its files; `alike` others of its kind.
    """

    made: Manifest
    inputs: Sequence[tuple[str, str, Manifest | None]]
    users: Sequence[Manifest]
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    page: int
    lineage: Sequence[Manifest]
    plots: Sequence[str]
    alike: Sequence[Manifest]
    is_result: bool


def listing(every: Sequence[Manifest], wanted: Wanted) -> str:
    """The list of what a store holds, newest first, with what narrows it."""
    shown = [made for made in reversed(every) if _fits(made, wanted)]
    first = (wanted.page - 1) * LISTED
    rows = [
        [
            leading(made.artifact.folder),
            made.recipe.stage,
            Figure("" if made.rows is None else f"{made.rows:,}"),
            Figure(sized(made.bytes)),
            figure(made.seconds, 1),
            when(made),
        ]
        for made in shown[first : first + LISTED]
    ]
    columns = ["artifact", "stage", "rows", "size", "seconds", "made, UTC"]
    total = f"{len(shown):,} of {len(every):,} artifacts" if every else "The store is empty."
    held = [
        _picking(every, wanted),
        tag("p", total, class_="soft"),
        table("Artifacts", columns, rows) if rows else NOTHING,
        _pager("/", wanted._asdict(), wanted.page, -(-len(shown) // LISTED)),
    ]
    return sheet("", [], [tag("h1", "Artifacts"), *held])


def artifact(facts: Facts) -> str:
    """The page of one artifact."""
    made = facts.made
    folder = made.artifact.folder
    parts = [
        _section("How it was made", _making(facts)),
        _section("Plots", [_plot(folder, name) for name in facts.plots]),
        _section("Rows", _rows(facts)),
        _section("Columns", [columns_table(facts.columns, made.rows or 0)]),
        _section("Lineage", [_drawn(facts)]),
        _section("Made from it", [_receipts("Made from it", facts.users)]),
        _section("Files", [_files(made)]),
        _section("Compare", [_comparing(facts)]),
    ]
    report = tag("p", tag("a", "Open the report", href=f"/artifact/{folder}/report"))
    header = tag(
        "header",
        tag("h1", f"{made.kind} ", tag("span", made.key, class_="key")),
        _summary(made),
        report if facts.is_result else NOTHING,
    )
    return sheet(folder, [], [header, *parts])


def problem(title: str, line: str) -> str:
    """The page for what cannot be shown."""
    return sheet(title, [], [tag("h1", title), tag("p", line)])


def sheet(title: str, trail: Sequence[tuple[str, str]], held: Sequence[Markup]) -> str:
    """A page with the way to it from the list, which has no title of its own."""
    steps = [tag("a", words, href=address) for words, address in [("Artifacts", "/"), *trail]]
    way = tag("nav", *steps, tag("span", title), class_="trail", aria_label="Where this page is")
    named = f"{title or 'Artifacts'} · AlpacaFarm"
    return markup.document(named, STYLE, [way if title else NOTHING, *held], RULES)


def leading(folder: str, words: str = "") -> Markup:
    """An artifact's name, leading to its page."""
    kind, _, key = folder.partition("/")
    name = [words] if words else [f"{kind}/", Markup("<wbr>"), key]
    return tag("a", *name, href=f"/artifact/{folder}", class_=None if words else "key")


def columns_table(columns: Sequence[Column], rows: int) -> Markup:
    """The statistics of columns; nothing where there are none."""
    if not columns:
        return NOTHING
    held = [
        [
            each.column,
            each.type,
            Figure(f"{each.nulls:,}"),
            Figure("" if each.distinct is None else f"{each.distinct:,}"),
            each.measured or "",
            *(Figure(number(value)) for value in (each.least, each.median, each.most)),
            each.commonest or "",
            Figure("" if each.times is None else f"{100 * each.times / max(1, rows):.0f} %"),
        ]
        for each in columns
    ]
    names = ["column", "type", "nulls", "distinct", "of", "least", "median", "most", "commonest"]
    return table("Columns", [*names, "share"], held)


def sized(size: int) -> str:
    """Bytes as people say them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def number(value: float | None) -> str:
    """A number as it is read; "" for none."""
    return "" if value is None else f"{value:,.6g}".replace("-", "\N{MINUS SIGN}")


def _fits(made: Manifest, wanted: Wanted) -> bool:
    if wanted.kind not in ("", made.kind) or wanted.stage not in ("", made.recipe.stage):
        return False
    return not wanted.text or wanted.text.lower() in _searched(made)


def _searched(made: Manifest) -> str:
    said = json.dumps([made.recipe.model_dump(), made.notes], ensure_ascii=False, default=str)
    return f"{made.artifact.folder} {made.recipe.stage} {made.made} {made.commit} {said}".lower()


def _picking(every: Sequence[Manifest], wanted: Wanted) -> Markup:
    """The form that narrows the list."""
    kinds = sorted({made.kind for made in every})
    stages = sorted({made.recipe.stage for made in every})
    text = tag("input", name_="text", type="search", value=wanted.text)
    return tag(
        "form",
        tag("label", "Kind", _choice("kind", kinds, wanted.kind)),
        tag("label", "Stage", _choice("stage", stages, wanted.stage)),
        tag("label", "Text in key, settings or notes", text),
        tag("button", "Show", type="submit"),
        class_="pick",
        action="/",
        method="get",
    )


def _choice(name: str, options: Sequence[str], chosen: str) -> Markup:
    held = [
        tag("option", each or "any", value=each, selected="" if each == chosen else None)
        for each in ("", *options)
    ]
    return tag("select", *held, name_=name)


def _pager(address: str, query: Mapping[str, Any], page: int, pages: int) -> Markup:
    """The ways to the pages before and after this one."""
    if pages <= 1:
        return NOTHING

    def way(words: str, to: int) -> Markup:
        said = urlencode({name: held for name, held in query.items() if held} | {"page": to})
        return tag("a", words, href=f"{address}?{said}") if 1 <= to <= pages else NOTHING

    here = tag("span", f"page {page:,} of {pages:,}", class_="soft")
    steps = [way("first", 1) if page > 2 else NOTHING, way("before", page - 1), here]
    return tag("nav", *steps, way("next", page + 1), class_="pager", aria_label="Pages")


def _section(title: str, held: Sequence[Markup]) -> Markup:
    anchor = title.lower().replace(" ", "-")
    return tag("section", tag("h2", title), *held, id=anchor) if any(held) else NOTHING


def _summary(made: Manifest) -> Markup:
    facts = [f"stage {made.recipe.stage}, version {made.recipe.version}"]
    facts += [f"{made.rows:,} rows"] if made.rows is not None else []
    facts += [sized(made.bytes), f"made {when(made)} UTC in {made.seconds:,.1f} s"]
    if "usd" in made.notes:
        facts.append(f"${made.notes['usd']:,.2f} of judgements")
    return tag("p", " · ".join(facts), class_="soft")


def _making(facts: Facts) -> list[Markup]:
    """Inputs, settings and figures, surroundings, and the commands that say the same."""
    made = facts.made
    rows = [
        [leading(folder), name, given.recipe.stage if given else "forgotten since",
         Figure("" if given is None or given.rows is None else f"{given.rows:,}")]
        for name, folder, given in facts.inputs
    ]  # fmt: skip
    packages = ", ".join(f"{name} {version}" for name, version in made.packages.items())
    told = [f"alpacafarm {verb} {made.key}" for verb in ("show", "lineage", "why")]
    return [
        table("Inputs", ["made from", "as", "stage", "rows"], rows) if rows else NOTHING,
        more("Settings", _told(made.recipe.settings)) if made.recipe.settings else NOTHING,
        more("Figures it reported", _told(made.notes)) if made.notes else NOTHING,
        tag("p", f"Commit {made.commit}; {packages}.", class_="soft"),
        tag("p", "The same on the command line: ", *_listed(told)),
    ]


def _told(thing: Mapping[str, Any]) -> Markup:
    return tag("pre", written(thing), class_="said")


def _listed(words: Sequence[str]) -> list[Markup]:
    parted = [[tag("code", each), Markup(" · ")] for each in words]
    return [held for pair in parted for held in pair][:-1]


def _rows(facts: Facts) -> list[Markup]:
    """A page of rows, each leading to its own, long texts cut and lists counted."""
    made, height = facts.made, facts.made.rows or 0
    if not isinstance(made.artifact, Table) or not height:
        return []
    folder, first = made.artifact.folder, (facts.page - 1) * ROWS
    names = [each.column for each in facts.columns]
    held = [
        [
            tag("a", at, href=f"/artifact/{folder}/row/{at}"),
            *(_cell(row.get(name)) for name in names),
        ]
        for at, row in enumerate(facts.rows, first)
    ]
    return [
        table("Rows", ["row", *names], held) if held else tag("p", "No rows on this page."),
        _pager(f"/artifact/{folder}", {}, facts.page, -(-height // ROWS)),
    ]


def _cell(held: Any) -> Any:
    if held is None:
        return ""
    if isinstance(held, bool):
        return "yes" if held else "no"
    if isinstance(held, int | float):
        return Figure(number(held))
    if isinstance(held, list):
        return f"{len(held)} items"
    said = brief(held, CELL)
    return tag("div", said, class_="cut") if len(said) > SHORT else said


def _plot(folder: str, name: str) -> Markup:
    picture = tag("img", src=f"/artifact/{folder}/plot/{name}", alt=name, class_="plot")
    return tag("figure", picture, tag("figcaption", name))


def _drawn(facts: Facts) -> Markup:
    shown = graph(facts.lineage)
    told = "Every box leads to its artifact; x3 stands for three that are alike."
    left = f" {shown.left_out} more are not drawn." if shown.left_out else ""
    picture = drawing.lineage(shown, _address, facts.made.artifact.folder)
    box = tag("div", picture, class_="scroll", tabindex=0, role="region", aria_label="Lineage")
    listed = more("The same as a list", _receipts("Lineage", facts.lineage))
    return Markup(tag("p", told + left, class_="soft") + box + listed)


def _address(node: Node) -> str:
    """The page of an artifact, or the list of a stage's where a box stands for several."""
    if len(node.folders) > 1:
        return f"/?{urlencode({'stage': node.stage})}"
    return f"/artifact/{node.folders[0]}"


def _receipts(title: str, held: Sequence[Manifest]) -> Markup:
    rows = [
        [
            leading(made.artifact.folder),
            made.recipe.stage,
            Figure("" if made.rows is None else f"{made.rows:,}"),
            figure(made.seconds, 1),
            when(made),
        ]
        for made in held
    ]
    columns = ["artifact", "stage", "rows", "seconds", "made, UTC"]
    return table(title, columns, rows) if rows else NOTHING


def _files(made: Manifest) -> Markup:
    rows = [[name, tag("code", digest, class_="digest")] for name, digest in made.files.items()]
    return table("Files", ["file", "SHA-256"], rows) if rows else NOTHING


def _comparing(facts: Facts) -> Markup:
    """The form that holds this artifact against another of its kind."""
    if not facts.alike:
        return NOTHING
    held = [
        tag("option", f"{made.key} · {made.recipe.stage} · {when(made)}", value=made.key)
        for made in reversed(facts.alike)
    ]
    hidden = tag("input", type="hidden", name_="second", value=facts.made.key)
    picked = tag("label", "What differs from", tag("select", *held, name_="first"))
    button = tag("button", "Compare", type="submit")
    return tag("form", hidden, picked, button, class_="pick", action="/diff", method="get")
