"""From one row back to the rows that made it."""

import json
import time

import polars as pl
import pytest

from alpacafarm_core import tally
from alpacafarm_core.artifacts import Candidates, Leaderboard, Preferences
from alpacafarm_core.errors import BadInput
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.store import Made
from alpacafarm_core.tracing import rows_of, traced
from alpacafarm_core.weights import Policy
from tests.paper_farm import numbered
from tests.test_cli import complaint, typed
from tests.tiny import frame

PROMPTS = ("Name a fruit.", "Name a tool.")


def kept(store, artifact, rows, stage, **inputs):
    """The artifact, with these rows, made from these inputs."""
    made = Made(rows if isinstance(rows, pl.DataFrame) else frame(type(artifact), rows))
    store.write(artifact, made, Recipe.of(stage, 1, inputs), time.time())
    return artifact


def answers(*outputs):
    """Two answers to each prompt."""
    return [
        {"instruction": prompt, "input": "", "output": f"{prompt} {text}", "sample_index": at}
        for prompt in PROMPTS
        for at, text in enumerate(outputs)
    ]


@pytest.fixture
def judged(store):
    """Labels of a policy's answers against a reference's, and what they were made from."""
    writer = Policy(key=numbered(0xB))
    ours = kept(store, Candidates(key=numbered(1)), answers("a", "b"), "generate", policy=writer)
    theirs = kept(store, Candidates(key=numbered(2)), answers("c"), "published")
    pairs = [
        {
            "instruction": prompt,
            "input": "",
            "output_1": f"{prompt} c",
            "output_2": f"{prompt} b",
            "preference": 2.0,
            "status": "ok",
        }
        for prompt in PROMPTS
    ]
    return kept(
        store, Preferences(key=numbered(3)), pairs, "annotate", candidates=ours, rivals=theirs
    )


def told(store, artifact, row):
    return [(t.made.recipe.stage, t.rows) for t in traced(store, artifact, row)]


def test_a_label_is_traced_to_the_two_answers_that_were_compared(store, judged):
    assert told(store, judged, 1) == [("generate", [3]), ("published", [1]), ("annotate", [1])]


def test_a_row_of_a_board_is_traced_to_all_labels_of_its_model_and_to_no_other(store, judged):
    rival = kept(
        store, Preferences(key=numbered(4)), store.read(judged), "annotate", candidates=judged
    )
    both = {"ours": Evaluation(preferences=judged), "rival": Evaluation(preferences=rival)}
    rows = tally.board({name: (store.scan(each.preferences), None) for name, each in both.items()})
    board = kept(store, Leaderboard(key=numbered(5)), rows, "tally", evaluations=both)
    ours = rows["model"].to_list().index("ours")
    assert told(store, board, ours) == [
        ("generate", [1, 3]),
        ("published", [0, 1]),
        ("annotate", [0, 1]),
        ("tally", [ours]),
    ]


def test_rows_are_shown_with_their_numbers(store, judged):
    first = traced(store, judged, 1)[0]
    (row,) = rows_of(store, first, most=5)
    assert (row["row"], row["output"]) == (3, "Name a tool. b")


@pytest.mark.parametrize("row", [2, 7])
def test_a_row_that_is_not_there_is_refused_with_those_that_are(store, judged, row):
    with pytest.raises(BadInput, match=f"rows 0 to 1, and no row {row}"):
        traced(store, judged, row)


def test_the_command_prints_the_rows_or_one_document(store, judged, capsys):
    assert typed("lineage", judged.key, "--row", 0, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["rows"] for each in found] == [[1], [0], [0]]
    assert found[0]["shown"][0]["output"] == "Name a fruit. b"
    assert typed("lineage", judged.key, "--row", 0) == 0
    assert "Name a fruit. b" in capsys.readouterr().out
    assert typed("lineage", judged.key, "--row", 9) == 2
    assert "no row 9" in complaint(capsys)
