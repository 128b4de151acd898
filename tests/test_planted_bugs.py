"""Planted bugs in the code that judges: the self-test stops each before a call is paid.

`python -m benchmarks.planted_bugs` prints the table: which bug, and what was said of it.
"""

import pytest

import tasks
from alpacafarm_core import selftest
from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.errors import JudgeFailed
from alpacafarm_core.panel import load
from benchmarks.planted_bugs import BUGS, Bug
from tasks.stage import ledger

CANDIDATES = Candidates(key="0123456789abcdef")

CAUGHT_BY = {
    "order not undone": "came back as a scripted judge decided them",
    "order undone twice": "came back as a scripted judge decided them",
    "order noted that was not shown": "came back as a scripted judge decided them",
    "judge ignored: one for all": "rows drawn for gpt4_1",
    "judge ignored: one label for all": "labels of such a coin for output_1",
    "noise applied twice: two coins": "rows that a coin decides",
    "noise applied twice: answers too": "came back as a scripted judge decided them",
    "noised row cached as clean": "without noise 186 rows are to be asked for, 186 were not",
    "parser shifted by one in a batch": "came back as a scripted judge decided them",
    "template filled from inside a row": "the instruction of a planted pair is 0 times",
    "row key without prompt": "with another prompt 0 of 24 rows",
    "row key without model": "with another model 0 of 24 rows",
    "call key without prompt": "came back as a scripted judge decided them",
    "call key without model": "with another model",
    "failure stored in the ledger": "are in the ledger, expected none",
    "failure stored as a label": "a failed call became 1.5",
    "refusal stored as a label": "refusals 0 count as refused",
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_is_stopped_before_anything_is_bought(bug: Bug, store, monkeypatch):
    # Panels that passed before the bug was put in would not be tested again.
    monkeypatch.setattr(selftest, "_passed", {})
    bug.put(monkeypatch)
    with pytest.raises(JudgeFailed, match=CAUGHT_BY[bug.name]) as refused:
        tasks.annotate(CANDIDATES, CANDIDATES, load("world"))
    assert refused.value.exit_code == 4
    assert ledger().counts().calls == 0
    print(f"{bug.name:34} {refused.value}")


def test_without_a_bug_the_same_code_passes(monkeypatch):
    monkeypatch.setattr(selftest, "_passed", {})
    assert selftest.check(load("world")).recovered == 1.0
