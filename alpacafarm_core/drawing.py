"""A graph as inline SVG: layers from the first inputs down to the result, arrows between them.

An arrow that passes a layer gets a lane in it, so that it runs beside the boxes. Within a layer
boxes stand near what they are joined to. Colours come from the page's style.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from alpacafarm_core.graphs import Edge, Graph, Node
from alpacafarm_core.markup import NOTHING, Markup, tag

WIDTH, HEIGHT, LANE, GAP, RISE = 132, 46, 10, 14, 58
"""Of a box, of a lane, and between boxes and layers, in the units of the drawing."""

MARGIN, SWEEPS = 8, 6
Place = tuple[int, str]
"""A layer, and the name of a box or of the arrow that passes."""


class _Laid(NamedTuple):
    """Boxes and lanes by layer, the top one first, and the places each arrow goes through."""

    layers: list[list[str]]
    routes: list[tuple[Edge, list[Place]]]


def lineage(drawn: Graph, address: Callable[[Node], str], here: str = "") -> Markup:
    """The drawing, each box leading to its address; the one with the folder `here` is marked."""
    if not drawn.nodes:
        return NOTHING
    laid = _laid(drawn)
    boxes = {node.name for node in drawn.nodes}
    width = max(_span(layer, boxes) for layer in laid.layers)
    centre = _centres(laid.layers, boxes, width)
    held = [_arrow(edge, route, centre) for edge, route in laid.routes]
    held += _names(laid.routes, centre)
    level = {name: at for at, layer in enumerate(laid.layers) for name in layer}
    for node in drawn.nodes:
        at = (level[node.name], node.name)
        held.append(_box(node, centre[at], at[0], address(node), here in node.folders))
    size = width + 2 * MARGIN, len(laid.layers) * (HEIGHT + RISE) - RISE + 2 * MARGIN
    return tag(
        "svg",
        _head(),
        *held,
        viewBox=f"0 0 {size[0]:g} {size[1]:g}",
        width=f"{size[0]:g}",
        height=f"{size[1]:g}",
        class_="graph",
        role="group",
        aria_label="Lineage",
    )


def _laid(drawn: Graph) -> _Laid:
    """Every box as low as what is made from it allows, in an order with few crossings."""
    users: dict[str, list[str]] = defaultdict(list)
    for edge in drawn.edges:
        users[edge.source].append(edge.target)
    above: dict[str, int] = {}
    for node in reversed(drawn.nodes):
        above[node.name] = 1 + max((above[user] for user in users[node.name]), default=-1)
    top = max(above.values())
    level = {name: top - height for name, height in above.items()}
    layers: list[list[str]] = [[] for _ in range(top + 1)]
    for node in drawn.nodes:
        layers[level[node.name]].append(node.name)
    routes = [(edge, _route(edge, level, layers)) for edge in drawn.edges]
    _sort(layers, routes)
    return _Laid(layers, routes)


def _route(edge: Edge, level: Mapping[str, int], layers: list[list[str]]) -> list[Place]:
    """Where an arrow goes; it is given a lane in each layer between."""
    first, last = level[edge.source], level[edge.target]
    lane = f"{edge.source} > {edge.target}"
    for at in range(first + 1, last):
        layers[at].append(lane)
    between = [(at, lane) for at in range(first + 1, last)]
    return [(first, edge.source), *between, (last, edge.target)]


def _sort(layers: list[list[str]], routes: Sequence[tuple[Edge, list[Place]]]) -> None:
    """Order each layer by the middle of its neighbours, down and up in turn."""
    near: dict[Place, list[Place]] = defaultdict(list)
    for _, route in routes:
        for one, other in pairwise(route):
            near[one].append(other)
            near[other].append(one)
    for sweep in range(SWEEPS):
        order = range(1, len(layers)) if sweep % 2 == 0 else range(len(layers) - 2, -1, -1)
        for at in order:
            layers[at] = _sorted(layers, at, at - 1 if sweep % 2 == 0 else at + 1, near)


def _sorted(
    layers: list[list[str]], at: int, beside: int, near: Mapping[Place, list[Place]]
) -> list[str]:
    """A layer by the middle of its neighbours in the one beside it; without any, as it was."""
    place = {name: n / len(layers[beside]) for n, name in enumerate(layers[beside])}
    own = {name: n / len(layers[at]) for n, name in enumerate(layers[at])}

    def middle(name: str) -> float:
        found = [place[other] for level, other in near.get((at, name), ()) if level == beside]
        return sum(found) / len(found) if found else own[name]

    return sorted(layers[at], key=middle)


def _centres(
    layers: Sequence[Sequence[str]], boxes: Container[str], width: float
) -> dict[Place, float]:
    """The middle of each box and lane; a layer stands in the middle of the drawing."""
    found: dict[Place, float] = {}
    for at, layer in enumerate(layers):
        x = MARGIN + (width - _span(layer, boxes)) / 2
        for name in layer:
            own = WIDTH if name in boxes else LANE
            found[at, name] = round(x + own / 2, 1)
            x += own + GAP
    return found


def _span(layer: Sequence[str], boxes: Container[str]) -> float:
    return sum(WIDTH if name in boxes else LANE for name in layer) + GAP * (len(layer) - 1)


def _top(level: int) -> float:
    return MARGIN + level * (HEIGHT + RISE)


def _arrow(edge: Edge, route: Sequence[Place], centre: Mapping[Place, float]) -> Markup:
    """A curve from box to box, upright through each lane."""
    x = centre[route[0]]
    path = [f"M{x:g} {_top(route[0][0]) + HEIGHT:g}"]
    for one, other in pairwise(route):
        begin, end = _top(one[0]) + HEIGHT, _top(other[0])
        half = (begin + end) / 2
        path.append(
            f"C{centre[one]:g} {half:g} {centre[other]:g} {half:g} {centre[other]:g} {end:g}"
        )
        if other != route[-1]:
            path.append(f"V{end + HEIGHT:g}")
    return tag("path", tag("title", edge.carries), d=" ".join(path), class_="arrow")


def _names(
    routes: Sequence[tuple[Edge, list[Place]]], centre: Mapping[Place, float]
) -> list[Markup]:
    """What an arrow carries, above its head; of arrows that bring the same to a box once."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    level = {}
    for edge, route in routes:
        found[edge.target, edge.carries].append((centre[route[-2]] + centre[route[-1]]) / 2)
        level[edge.target] = route[-1][0]
    return [
        tag(
            "text",
            carries,
            x=f"{sum(places) / len(places):.1f}",
            y=f"{_top(level[target]) - RISE / 2 + 3:g}",
            text_anchor="middle",
            class_="carries",
        )
        for (target, carries), places in found.items()
    ]


def _box(node: Node, x: float, level: int, address: str, is_here: bool) -> Markup:
    left, top = x - WIDTH / 2, _top(level)
    lines = [node.lines[0], " · ".join(node.lines[1:])]
    frame = tag("rect", x=f"{left:g}", y=f"{top:g}", width=WIDTH, height=HEIGHT, rx=6)
    said = [
        tag("text", line, x=f"{x:g}", y=f"{top + 19 + 16 * number:g}", text_anchor="middle")
        for number, line in enumerate(lines)
    ]
    kind = "box here" if is_here else "box"
    held = [tag("title", ", ".join(node.folders[:4])), frame, *said]
    return tag("a", *held, href=address, class_=kind)


def _head() -> Markup:
    """The tip of an arrow."""
    tip = tag("path", d="M0 0L8 4L0 8z", class_="tip")
    marker = tag(
        "marker", tip, id="tip", viewBox="0 0 8 8", refX=8, refY=4, markerWidth=7, markerHeight=7,
        orient="auto",
    )  # fmt: skip
    return tag("defs", marker)
