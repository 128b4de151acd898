"""Lineage as a graph small enough to look at, and the same as Mermaid.

Where there are too many artifacts, those of one stage that are used alike by alike are one node;
of what is still too much the nearest to the result are kept.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from alpacafarm_core.evidence import evaluated
from alpacafarm_core.profile import brief
from alpacafarm_core.store import Manifest

ALIKE, MOST = 24, 60
"""Artifacts from which those that are alike are drawn as one, and nodes of a drawing."""

LONGEST = 40
"""Characters beside an arrow."""

STYLES = {
    "made": "fill:#d8f0e0,stroke:#17703f,color:#1c1f24",
    "cached": "fill:#eef1f5,stroke:#5b636e,color:#1c1f24",
    "part": "fill:#fff3c4,stroke:#8a6d00,color:#1c1f24",
}
"""How a node looks that this run made, found in the store, or of which it made a part."""


class Node(NamedTuple):
    """Artifacts of one stage, usually one; rows and seconds are sums."""

    name: str
    stage: str
    folders: tuple[str, ...]
    rows: int | None
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What stands in it."""
        many = f" x{len(self.folders)}" if len(self.folders) > 1 else ""
        rows = [] if self.rows is None else [f"{self.rows:,} row{'' if self.rows == 1 else 's'}"]
        return [f"{self.stage}{many}", *rows, f"{self.seconds:.1f} s"]


class Edge(NamedTuple):
    """What one node gives another, by the names of its inputs."""

    source: str
    target: str
    carries: str


class Graph(NamedTuple):
    """Nodes with inputs before what was made of them, and how many artifacts are not drawn."""

    nodes: list[Node]
    edges: list[Edge]
    left_out: int


def graph(lineage: Sequence[Manifest], alike: int = ALIKE) -> Graph:
    """The graph of artifacts in the order of making, grouped where they are more than `alike`."""
    groups = _groups(lineage) if len(lineage) > alike else [[made] for made in lineage]
    kept = groups[-MOST:]
    nodes = [_node(group) for group in kept]
    home = {folder: node.name for node in nodes for folder in node.folders}
    carried: dict[tuple[str, str], dict[str, None]] = {}
    for made in (made for group in kept for made in group):
        for name, folder in given(made):
            if folder in home:
                carried.setdefault((home[folder], home[made.artifact.folder]), {})[name] = None
    edges = [Edge(*ends, brief(", ".join(names), LONGEST)) for ends, names in carried.items()]
    return Graph(nodes, edges, len(lineage) - len(home))


def mermaid(drawn: Graph, ran: Mapping[str, bool]) -> str:
    """The graph as Mermaid; `ran` says of folders whether this run made them."""
    number = {node.name: f"n{at}" for at, node in enumerate(drawn.nodes)}
    lines = ["```mermaid", "graph TD"]
    lines += [f"  classDef {name} {style}" for name, style in STYLES.items()]
    for node in drawn.nodes:
        said = "<br/>".join(map(_plain, node.lines))
        lines.append(f'  {number[node.name]}["{said}"]:::{state(node, ran)}')
    for edge in drawn.edges:
        ends = number[edge.source], number[edge.target]
        lines.append(f"  {ends[0]} -->|{_plain(edge.carries)}| {ends[1]}")
    return "\n".join([*lines, "```"])


def state(node: Node, ran: Mapping[str, bool]) -> str:
    """Whether a run made all of a node, none of it, or a part."""
    made = [ran.get(folder, False) for folder in node.folders]
    return "made" if all(made) else "part" if any(made) else "cached"


def given(made: Manifest) -> Iterator[tuple[str, str]]:
    """Each input with its name; labels that a board counts with the model they are of."""
    models: dict[str, list[str]] = {}
    for folder, model in evaluated(made):
        models.setdefault(folder, []).append(model)
    for name, folders in made.recipe.inputs.items():
        for folder in folders:
            yield from ((each, folder) for each in models.get(folder, [name]))


def _groups(lineage: Sequence[Manifest]) -> list[list[Manifest]]:
    """Artifacts of one stage whose results go to the same groups under the same names."""
    users: dict[str, set[tuple[int, str]]] = {}
    numbers: dict[tuple[str, frozenset[tuple[int, str]]], int] = {}
    held: dict[int, list[Manifest]] = {}
    for made in reversed(lineage):
        used = frozenset(users.get(made.artifact.folder, ()))
        number = numbers.setdefault((made.recipe.stage, used), len(numbers))
        held.setdefault(number, []).insert(0, made)
        for name, folders in made.recipe.inputs.items():
            for folder in folders:
                users.setdefault(folder, set()).add((number, name))
    return list(reversed(held.values()))


def _node(group: Sequence[Manifest]) -> Node:
    rows = [made.rows for made in group if made.rows is not None]
    folders = tuple(made.artifact.folder for made in group)
    total = sum(rows) if rows else None
    return Node(
        folders[0], group[0].recipe.stage, folders, total, sum(made.seconds for made in group)
    )


def _plain(text: str) -> str:
    """Text without what Mermaid could take for its own."""
    return re.sub(r"[^\w ,.()-]", " ", text)
