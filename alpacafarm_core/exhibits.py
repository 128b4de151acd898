"""Exhibits: the parts of a report that every result has: judge cards, price, changes, lineage.

Each takes evidence and gives a section of the page, without content when there is nothing to show.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from alpacafarm_core.artifacts import Leaderboard
from alpacafarm_core.card import Measure, card
from alpacafarm_core.evidence import Evidence, Labels, Previous
from alpacafarm_core.findings import Price, price
from alpacafarm_core.markup import (
    NOTHING,
    Figure,
    Markup,
    Section,
    figure,
    give_or_take,
    link,
    more,
    table,
    tag,
)
from alpacafarm_core.store import Manifest
from alpacafarm_core.tally import paired, points

MEASURES = {
    "agreement_leave_one_out": ("agreement with its own other labels, %", 1),
    "variance": ("variance of its labels, %", 1),
    "order_flip_rate": ("winner turns with the order, %", 1),
    "probability_prefer_longer": ("probability that the longer wins", 3),
    "probability_prefer_list": ("probability that the one with a list wins", 3),
    "probability_prefer_1": ("probability that the reference (output 1) wins", 3),
    "probability_prefer_first_shown": ("probability that the first shown wins", 3),
    "self_preference": ("own family favoured, points", 1),
    "parse_rate": ("answers that could be read, %", 1),
    "price_per_1000": ("US dollars per 1000", 2),
    "seconds_per_1000": ("seconds per 1000", 2),
}
ASKED = ["instruction", "input", "output_1", "output_2", "annotator", "is_switched"]
LONGEST = 240  # characters of a setting that are shown
FIRST_CAUSES = 12
MOVES = {
    "ranks": ("simulated", "human"),
    "curves": ("win_rate", "human", "utility"),
}


def anchor(folder: str, lineage: Sequence[Manifest]) -> str | None:
    """Where the page tells of an artifact; None when it does not."""
    return _id(folder) if any(made.artifact.folder == folder for made in lineage) else None


def when(made: Manifest) -> str:
    """The time an artifact was made, UTC, as it is read."""
    return made.made.replace("T", " ").removesuffix("+00:00")


def judge_card(evidence: Evidence) -> list[dict[str, str]]:
    """What kind of judges wrote the labels, a row a measure, a column a panel and purpose."""
    groups: dict[str, pl.DataFrame] = {}
    for each in evidence.labels:
        group = f"{each.purpose}: {each.panel}"
        held = groups.get(group, each.rows.clear())
        # Models that answer alike share a label; it is one label, not a second opinion.
        groups[group] = pl.concat([held, each.rows.join(held, on=ASKED, how="anti")])
    measured = {group: card(held) for group, held in groups.items()}
    return [
        {"measure": words}
        | {group: _measured(found[name], digits) for group, found in measured.items()}
        for name, (words, digits) in MEASURES.items()
        if any(found[name].value is not None for found in measured.values())
    ]


def cards(evidence: Evidence) -> Section:
    """The judge card as a section."""
    rows = judge_card(evidence)
    if not rows:
        return Section("cards", "Judge card", [])
    told = (
        "Measured on the labels alone, by panel. ± is a standard error, in brackets the number "
        "behind it. What one label a pair cannot tell is left out; agreement with people needs "
        "labels of people."
    )
    held = table("Judge card", list(rows[0]), [list(row.values()) for row in rows])
    return Section("cards", "Judge card", [tag("p", told), tag("div", held, class_="wide")])


def priced(evidence: Evidence) -> dict[str, tuple[Price, list[Labels]]]:
    """What the labels of each model, and those to train on, took; models as on the board."""
    groups: dict[str, list[Labels]] = {}
    for each in sorted(evidence.labels, key=lambda each: _place(each, evidence)):
        groups.setdefault(each.name, []).append(each)
    return {
        name: (price(sum(x.rows.height for x in held), [x.manifest.notes for x in held]), held)
        for name, held in groups.items()
    }


def prices(evidence: Evidence) -> Section:
    """The price as a section."""
    rows = [[name, *_dollars(*found, evidence.lineage)] for name, found in priced(evidence).items()]
    if not rows:
        return Section("price", "Price", [])
    columns = ["labels of", "rows", "US dollars", "per 1000 rows", "calls", "rows known before"]
    told = (
        f"${evidence.dollars:,.2f} of judgements, all told, those of the training labels included. "
        "Dollars are what the labels cost when they were bought; a row that was known before cost "
        "nothing again."
    )
    return Section("price", "Price", [tag("p", told), table("Price", columns, rows)])


def changed(evidence: Evidence) -> Section:
    """What is not as it was in the result before: rates that moved, settings that differ."""
    before = evidence.previous
    if before is None:
        told = tag("p", "The store has no earlier result that shares a name with this one.")
        return Section("changes", "What changed", [told])
    old, new = before.manifest, evidence.manifest
    told = tag("p", "Against ", tag("code", old.artifact.folder), f", made {when(old)} UTC.")
    lines = [*before.causes, *_apart(old, new)]
    named = _listed(lines) if lines else tag("p", "No setting differs.")
    moved = _rates(evidence, before) if old.kind == Leaderboard.kind else _values(evidence, before)
    return Section("changes", "What changed", [told, moved, tag("h3", "Settings"), named])


def lineage(evidence: Evidence) -> Section:
    """Every artifact the result came from, itself first, with what made it."""
    first_with: dict[str, str] = {}
    rows = []
    for made in reversed(evidence.lineage):
        key = made.artifact.folder
        inputs = [folder for folders in made.recipe.inputs.values() for folder in folders]
        rows.append(
            [
                tag("span", *_breaking(key), id=_id(key), class_="key"),
                made.recipe.stage,
                Figure("" if made.rows is None else f"{made.rows:,}"),
                figure(made.seconds, 1),
                when(made),
                _inputs(inputs, evidence.lineage),
                _settings(made, first_with),
            ]
        )
    columns = ["artifact", "stage", "rows", "seconds", "made, UTC", "made from", "settings"]
    told = tag(
        "p",
        "Every number above leads here. ", tag("code", "alpacafarm show KEY"),
        " shows an artifact and its rows, ", tag("code", "alpacafarm why KEY"),
        " why it was made.",
    )  # fmt: skip
    held = tag("div", table("Lineage", columns, rows), class_="wide")
    return Section("lineage", "Lineage", [told, held, _surroundings(evidence.manifest)])


def _breaking(folder: str) -> tuple[str, Markup, str]:
    """Kind and key, on two lines where there is little room."""
    kind, _, key = folder.partition("/")
    return f"{kind}/", Markup("<wbr>"), key


def _id(folder: str) -> str:
    return "a-" + folder.replace("/", "-")


def _listed(lines: Sequence[str]) -> Markup:
    """The first lines, and the others on a click."""
    items = [tag("li", tag("code", line)) for line in lines]
    first = tag("ul", *items[:FIRST_CAUSES], class_="plain")
    rest = items[FIRST_CAUSES:]
    others = more(f"{len(rest)} more", tag("ul", *rest, class_="plain")) if rest else NOTHING
    return Markup(first + others)


def _place(labels: Labels, evidence: Evidence) -> int:
    """Models as on the board, all else after them."""
    names = evidence.rows[evidence.rows.columns[0]].to_list()
    return names.index(labels.name) if labels.name in names else len(names)


def _measured(found: Measure, digits: int) -> Figure:
    if found.value is None:
        return Figure("")
    error = "" if found.standard_error is None else f" ± {found.standard_error:.{digits}f}"
    return Figure(f"{figure(found.value, digits)}{error} ({found.n:,})")


def _dollars(found: Price, held: Sequence[Labels], made: Sequence[Manifest]) -> list[Figure]:
    one = anchor(held[0].manifest.artifact.folder, made) if len(held) == 1 else None
    return [
        Figure(link(figure(found.rows, 0), one)),
        figure(found.dollars, 2),
        figure(found.per_1000, 2),
        figure(found.bought, 0),
        figure(found.kept, 0),
    ]


def _rates(evidence: Evidence, before: Previous) -> Markup:
    """Win rates then and now; the move is paired on the prompts that both times had."""
    now = dict(evidence.rows.select("model", "win_rate").iter_rows())
    then = dict(before.rows.select("model", "win_rate").iter_rows())
    judged = evidence.judged()
    rows = []
    for model in dict.fromkeys([*now, *then]):
        own, old = judged.get(model), before.labels.get(model)
        cells: list[Any] = [figure(then.get(model)), figure(now.get(model))]
        if own is None or old is None:
            note = "" if model in now and model in then else "new" if model in now else "gone"
            rows.append([model, *cells, Figure(""), Figure(note)])
            continue
        move = paired(points(own), points(old), "points")
        shown = give_or_take(move.difference, move.standard_error)
        rows.append([model, *cells, shown, Figure(f"{move.n:,}")])
    columns = ["model", "before, %", "now, %", "moved, points ± SE", "same prompts"]
    return table("Win rates then and now", columns, rows)


def _values(evidence: Evidence, before: Previous) -> Markup:
    """Values of a study then and now, row by row of the same name."""
    names = MOVES[evidence.manifest.kind]
    keys = [name for name in ("model", "series", "x") if name in evidence.rows.columns]
    both = evidence.rows.join(before.rows, on=keys, suffix="_before", maintain_order="left")
    rows = [
        [
            " ".join(f"{row[key]:g}" if key == "x" else str(row[key]) for key in keys),
            *(figure(row[name + when], 2) for name in names for when in ("_before", "")),
        ]
        for row in both.to_dicts()
    ]
    columns = [f"{name.replace('_', ' ')}, {when}" for name in names for when in ("before", "now")]
    return table("Values then and now", [", ".join(keys), *columns], rows)


def _apart(old: Manifest, new: Manifest) -> list[str]:
    """Code and packages that differ."""
    before = {"commit": old.commit, **old.packages}
    after = {"commit": new.commit, **new.packages}
    return [
        f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


def _inputs(folders: Sequence[str], made: Sequence[Manifest]) -> Markup:
    held = [tag("div", link(tag("code", each), anchor(each, made))) for each in folders]
    if len(held) <= 4:
        return Markup("".join(held))
    return more(f"{len(held)} artifacts", *held)


def _settings(made: Manifest, first_with: dict[str, str]) -> Markup:
    """Settings and figures of a stage; those that were told before are led to."""
    said = written(made.recipe.settings)
    notes = written(made.notes) if made.notes else ""
    told = tag("pre", notes, class_="said") if notes else NOTHING
    folder = first_with.setdefault(said, made.artifact.folder)
    if folder == made.artifact.folder:
        shown = tag("pre", said, class_="said")
    else:
        shown = tag("p", "settings as in ", link(tag("code", folder), _id(folder)))
    return more(f"version {made.recipe.version}", shown, told)


def written(thing: Any) -> str:
    """Anything as indented JSON, long texts within it cut."""
    return json.dumps(_short(thing), indent=1, ensure_ascii=False, default=str)


def _short(thing: Any) -> Any:
    if isinstance(thing, Mapping):
        return {name: _short(held) for name, held in thing.items()}
    if isinstance(thing, list | tuple):
        return [_short(held) for held in thing]
    if isinstance(thing, str) and len(thing) > LONGEST:
        return f"{thing[:LONGEST]}… ({len(thing)} characters)"
    return thing


def _surroundings(made: Manifest) -> Markup:
    packages = ", ".join(f"{name} {version}" for name, version in made.packages.items())
    return tag("p", f"Commit {made.commit}; {packages}.", class_="soft")
