"""Lineage as a picture: what is alike is one box, and nothing of the rows is markup."""

import re
import time

import pytest

from alpacafarm_core.artifacts import Candidates, Instructions
from alpacafarm_core.drawing import lineage
from alpacafarm_core.graphs import graph, mermaid
from alpacafarm_core.lineage import ancestry
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.store import Made
from tests.paper_farm import numbered
from tests.tiny import frame


def kept(store, artifact, stage, **inputs):
    """An artifact without rows, made from these inputs."""
    made = Made(frame(type(artifact), []))
    store.write(artifact, made, Recipe.of(stage, 1, inputs), time.time())
    return artifact


@pytest.fixture
def fork(store):
    """Prompts, two answers to them by the same stage, and what stands on both."""
    prompts = kept(store, Instructions(key=numbered(1)), "instructions")
    first, second = (
        kept(store, Candidates(key=numbered(n)), "generate", prompts=prompts) for n in (2, 3)
    )
    top = kept(store, Candidates(key=numbered(4)), "merge", left=first, right=[first, second])
    return ancestry(store, top)


def named(drawn):
    """Boxes by their first line, and arrows by the stages at their ends."""
    stage = {node.name: node.lines[0] for node in drawn.nodes}
    arrows = [(stage[edge.source], edge.carries, stage[edge.target]) for edge in drawn.edges]
    return list(stage.values()), arrows


def test_a_small_graph_has_a_box_an_artifact_and_names_what_arrows_carry(fork):
    boxes, arrows = named(graph(fork))
    assert boxes == ["instructions", "generate", "generate", "merge"]
    assert ("generate", "left, right", "merge") in arrows
    assert ("generate", "right", "merge") in arrows and len(arrows) == 4


def test_artifacts_that_are_used_alike_become_one_box_where_there_are_many(store):
    prompts = kept(store, Instructions(key=numbered(1)), "instructions")
    many = [
        kept(store, Candidates(key=numbered(n)), "generate", prompts=prompts) for n in range(2, 7)
    ]
    top = kept(store, Candidates(key=numbered(9)), "merge", all=many)
    drawn = graph(ancestry(store, top), alike=3)
    assert named(drawn) == (
        ["instructions", "generate x5", "merge"],
        [("instructions", "prompts", "generate x5"), ("generate x5", "all", "merge")],
    )
    assert drawn.left_out == 0


def test_what_is_used_otherwise_stays_a_box_of_its_own(fork):
    boxes, _ = named(graph(fork, alike=1))
    assert boxes.count("generate") == 2


def test_mermaid_says_what_the_run_made_and_what_was_there(fork):
    top = fork[-1].artifact.folder
    text = mermaid(graph(fork), {top: True})
    assert text.count(":::made") == 1 and text.count(":::cached") == 3
    assert "-->|left, right|" in text
    assert text.startswith("```mermaid\ngraph TD") and text.endswith("```")


def test_the_drawing_has_a_box_and_a_way_for_each_node_and_marks_where_one_is(fork):
    here = fork[-1].artifact.folder
    picture = lineage(graph(fork), lambda node: f"/go/{node.name}", here)
    assert picture.count("<rect") == 4 and picture.count('class="arrow"') == 4
    assert re.findall(r'<a href="/go/([^"]+)" class="box here">', picture) == [here]


def test_boxes_of_a_layer_do_not_touch_and_inputs_stand_above(fork):
    picture = lineage(graph(fork), lambda node: node.name)
    places = [
        (float(y), float(x)) for x, y in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"', picture)
    ]
    prompts, first, second, top = places
    assert prompts[0] < first[0] == second[0] < top[0]
    assert abs(first[1] - second[1]) > 132


def test_nothing_is_drawn_of_nothing():
    assert lineage(graph([]), lambda node: node.name) == ""
