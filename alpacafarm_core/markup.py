"""HTML as values: what is not markup already is escaped, so no row can bring a tag of its own.

The page asks nobody for anything: its one style sheet is inside, allowed by its digest, and its
content security policy forbids scripts, frames, forms and every request.
"""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

POLICY = "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


class Markup(str):
    """Text that is HTML already."""


class Figure(Markup):
    """A number as it is read; it stands to the right in a table."""


NOTHING = Markup("")
VOID = ("img", "input")
"""Elements that hold nothing and have no end."""


def text(held: Any) -> Markup:
    """HTML that shows `held`; markup stays as it is."""
    return held if isinstance(held, Markup) else Markup(escape(str(held)))


def tag(name: str, *held: Any, **attributes: Any) -> Markup:
    """An element. `class_` is `class`, `text_anchor` `text-anchor`; None is left out."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if name in VOID else f"</{name}>"
    return Markup(f"<{name}{said}>{''.join(map(text, held))}{end}")


def figure(value: float | None, digits: int = 1, signed: bool = False) -> Figure:
    """A number with so many digits behind the point; nothing for None."""
    if value is None:
        return Figure("")
    value = round(value, digits) or 0.0  # no minus before a zero
    said = f"{value:+.{digits}f}" if signed and value else f"{value:,.{digits}f}"
    return Figure(said.replace("-", "\N{MINUS SIGN}"))


def around(value: float | None, error: float | None, digits: int = 1) -> Figure:
    """A value and its standard error."""
    known = figure(value, digits)
    return Figure(f"{known} ± {error:.{digits}f}") if value is not None and error else known


def give_or_take(value: float | None, error: float | None, digits: int = 1) -> Figure:
    """A difference and its standard error."""
    known = figure(value, digits, signed=True)
    return Figure(f"{known} ± {error:.{digits}f}") if value is not None and error else known


def link(shown: Any, anchor: str | None) -> Any:
    """The same, leading to an anchor of this page; a number stays one."""
    if anchor is None or not str(shown):
        return shown
    return type(text(shown))(tag("a", shown, href=f"#{anchor}"))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markup:
    """Rows under their columns, in a box that scrolls by itself; the first cell names the row."""
    right = [all(isinstance(row[place], Figure) for row in rows) for place in range(len(columns))]
    head = [
        tag("th", name, scope="col", class_="n" if at_right and rows else None)
        for name, at_right in zip(columns, right, strict=True)
    ]
    body = [tag("tr", *_cells(row)) for row in rows]
    held = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body))
    return tag("div", held, class_="scroll", tabindex=0, role="region", aria_label=title)


def _cells(row: Sequence[Any]) -> list[Markup]:
    first, *rest = row
    return [tag("th", first, scope="row"), *(_cell(held) for held in rest)]


def _cell(held: Any) -> Markup:
    return tag("td", held, class_="n" if isinstance(held, Figure) else None)


def more(summary: Any, *held: Any, opened: bool = False) -> Markup:
    """What opens and closes on a click."""
    return tag("details", tag("summary", summary), *held, open="" if opened else None)


class Section(NamedTuple):
    """A part of a page under its heading; one without content is not shown."""

    anchor: str
    title: str
    held: Sequence[Markup]


def page(title: str, style: str, header: Sequence[Markup], sections: Sequence[Section]) -> str:
    """A whole document that stands alone, with a way to each of its parts."""
    shown = [part for part in sections if any(part.held)]
    ways = [link(part.title, part.anchor) for part in shown]
    parts = [tag("section", tag("h2", part.title), *part.held, id=part.anchor) for part in shown]
    nav = tag("nav", *ways, aria_label="Parts of this page")
    return document(title, style, [tag("header", *header, nav), *parts])


def document(title: str, style: str, held: Sequence[Markup], rules: str = POLICY) -> str:
    """A whole page with its style sheet inside; `rules` are its content security policy."""
    body = tag("body", tag("main", *held))
    return f'<!doctype html>\n<html lang="en">{_head(title, style, rules)}{body}</html>\n'


def policy(style: str, rules: str = POLICY) -> str:
    """The rules with the digest of the one style sheet that they allow."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return rules.format(digest=digest)


def _head(title: str, style: str, rules: str) -> Markup:
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(style, rules)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
    )
    # The digest is of the style sheet as it stands, so it goes in unescaped.
    return tag("head", Markup(head), tag("title", title), tag("style", Markup(style)))
