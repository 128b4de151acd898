"""Charts as inline SVG: dots with intervals, a scatter, lines. Colours come from the page's style.

Drawn in units of which about 420 fit the narrowest screen, so that letters stay readable on a
phone. A point without a finite place is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import ceil, floor, isfinite, log10
from typing import NamedTuple

from alpacafarm_core.markup import NOTHING, Markup, tag

WIDTH, HEIGHT, ROW = 420, 280, 22
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 24, 40
NAMES = 118  # room for the names beside a row of dots
NAME_LENGTH = 20
LINE = 12  # from one label to the next
COLOURS = 6


class Point(NamedTuple):
    """A named place, with half the width of its bars."""

    name: str
    x: float
    y: float
    x_bar: float = 0.0
    y_bar: float = 0.0


class Axis(NamedTuple):
    """Values from `low` to `high` on a line from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float) -> "Axis":
        """An axis around all values, with round ends."""
        held = list(values)
        low, high = min(held), max(held)
        step = _step(low, high)
        low, high = floor(low / step) * step, ceil(high / step) * step
        return cls(low, high if high > low else low + step, start, end)

    def at(self, value: float) -> float:
        """Where a value lies, to a tenth of a unit."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values with their places as they are written."""
        step = _step(self.low, self.high)
        digits = max(0, -floor(log10(step) + 1e-9))
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [
            (number * step, f"{number * step:.{digits}f}".replace("-", "\N{MINUS SIGN}"))
            for number in range(first, last + 1)
        ]


def intervals(points: Sequence[Point], title: str, reference: float) -> Markup:
    """A row a point: its x with its bar, and a line where the reference is."""
    points = [point for point in points if isfinite(point.x)]
    if not points:
        return NOTHING
    ends = [point.x + side * point.x_bar for point in points for side in (-1, 1)]
    across = Axis.over([*ends, reference], NAMES, WIDTH - RIGHT)
    bottom = TOP + ROW * len(points)
    held = [*_across(across, TOP, bottom, title)]
    held.append(_line((across.at(reference), TOP), (across.at(reference), bottom), "reference"))
    for row, point in enumerate(points):
        y = TOP + ROW * (row + 0.5)
        name = point.name if len(point.name) <= NAME_LENGTH else point.name[: NAME_LENGTH - 1] + "…"
        held.append(_text(name, NAMES - 8, y + 4, "end"))
        held += [*_beside(point, across, y), _dot(across.at(point.x), y)]
    return _svg(bottom + BOTTOM, title, held)


def scatter(points: Sequence[Point], x_title: str, y_title: str, diagonal: bool = False) -> Markup:
    """Named points with their bars; `diagonal` draws where both sides are equal."""
    points = [point for point in points if isfinite(point.x) and isfinite(point.y)]
    if not points:
        return NOTHING
    across, up = _axes(points)
    held = [*_across(across, TOP, HEIGHT - BOTTOM, x_title), *_up(up, y_title)]
    low, high = max(across.low, up.low), min(across.high, up.high)
    if diagonal and low < high:
        held.append(
            _line((across.at(low), up.at(low)), (across.at(high), up.at(high)), "reference")
        )
    held += _names(points, across, up)
    for point in points:
        x, y = across.at(point.x), up.at(point.y)
        held += [*_beside(point, across, y), *_above(point, up, x), _dot(x, y)]
    return _svg(HEIGHT, f"{y_title} against {x_title}", held)


def lines(series: Mapping[str, Sequence[Point]], x_title: str, y_title: str) -> Markup:
    """A line through the points of each series, in the order of x, and its bars."""
    kept = {
        name: sorted(
            (point for point in points if isfinite(point.x) and isfinite(point.y)),
            key=lambda point: point.x,
        )
        for name, points in series.items()
    }
    every = [point for points in kept.values() for point in points]
    if not every:
        return NOTHING
    across, up = _axes(every)
    held = [*_across(across, TOP, HEIGHT - BOTTOM, x_title), *_up(up, y_title)]
    for number, points in enumerate(kept.values()):
        places = [(across.at(point.x), up.at(point.y)) for point in points]
        drawn = [_line(one, other, "line") for one, other in pairwise(places)]
        for (x, y), point in zip(places, points, strict=True):
            drawn += [*_above(point, up, x), _dot(x, y)]
        held.append(tag("g", *drawn, class_=colour(number)))
    return _svg(HEIGHT, f"{y_title} against {x_title}", held)


def legend(names: Iterable[str]) -> Markup:
    """The names of series beside their colours."""
    shown = (
        tag("li", tag("span", "●", class_=colour(number), aria_hidden="true"), f" {name}")
        for number, name in enumerate(names)
    )
    return tag("ul", *shown, class_="legend")


def colour(number: int) -> str:
    """The class of a series."""
    return f"c{number % COLOURS}"


def _step(low: float, high: float) -> float:
    """A round number that goes four to ten times into the range."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** floor(log10(span / 4) + 1e-9)
    return max(power * factor for factor in (1, 2, 5) if factor == 1 or power * factor <= span / 4)


def _axes(points: Sequence[Point]) -> tuple[Axis, Axis]:
    xs = [point.x + side * point.x_bar for point in points for side in (-1, 1)]
    ys = [point.y + side * point.y_bar for point in points for side in (-1, 1)]
    return Axis.over(xs, LEFT, WIDTH - RIGHT), Axis.over(ys, HEIGHT - BOTTOM, TOP)


def _across(axis: Axis, top: float, bottom: float, title: str) -> list[Markup]:
    ticks = axis.ticks()
    every = 2 if len(ticks) > 7 else 1
    grid = [_line((axis.at(at), top), (axis.at(at), bottom), "grid") for at, _ in ticks]
    named = [_text(said, axis.at(at), bottom + 15, "middle") for at, said in ticks[::every]]
    middle = (axis.start + axis.end) / 2
    return [*grid, *named, _text(title, middle, bottom + 33, "middle")]


def _up(axis: Axis, title: str) -> list[Markup]:
    found = [_text(title, 0, 12, "start")]
    for at, said in axis.ticks():
        found.append(_line((LEFT, axis.at(at)), (WIDTH - RIGHT, axis.at(at)), "grid"))
        found.append(_text(said, LEFT - 5, axis.at(at) + 4, "end"))
    return found


def _dot(x: float, y: float) -> Markup:
    return tag("circle", cx=x, cy=y, r=4)


def _beside(point: Point, axis: Axis, y: float) -> list[Markup]:
    """The bar along the x axis, if there is one."""
    ends = [axis.at(point.x + side * point.x_bar) for side in (-1, 1)]
    return [_line((ends[0], y), (ends[1], y), "bar")] if point.x_bar else []


def _above(point: Point, axis: Axis, x: float) -> list[Markup]:
    """The bar along the y axis, if there is one."""
    ends = [axis.at(point.y + side * point.y_bar) for side in (-1, 1)]
    return [_line((x, ends[0]), (x, ends[1]), "bar")] if point.y_bar else []


def _names(points: Sequence[Point], across: Axis, up: Axis) -> list[Markup]:
    """A label at each point; one that would lie on another moves down."""
    held, lowest = [], -1e9
    for point in sorted(points, key=lambda each: up.at(each.y)):
        x, y = across.at(point.x), max(up.at(point.y) - 7, lowest + LINE)
        lowest = y
        left = x > (across.start + across.end) / 2
        held.append(_text(point.name, x + (-8 if left else 8), y, "end" if left else "start"))
    return held


def _line(one: tuple[float, float], other: tuple[float, float], name: str) -> Markup:
    return tag("line", x1=one[0], y1=one[1], x2=other[0], y2=other[1], class_=name)


def _text(said: str, x: float, y: float, anchor: str) -> Markup:
    return tag("text", said, x=round(x, 1), y=round(y, 1), text_anchor=anchor)


def _svg(height: float, title: str, held: Sequence[Markup]) -> Markup:
    return tag("svg", *held, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=title)
