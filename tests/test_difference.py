"""What differs between two artifacts, by hand and on the command line."""

import json

import polars as pl

from alpacafarm_core.artifacts import Candidates, Instructions
from alpacafarm_core.difference import causes, differing
from alpacafarm_core.recipe import Recipe, key_of
from alpacafarm_core.setup import Setup
from alpacafarm_core.store import Made
from alpacafarm_core.weights import Policy
from tasks import instructions
from tests.test_cli import typed

SOURCE = Setup().source


def test_rows_are_held_against_each_other_by_prompt():
    before = pl.DataFrame({"instruction": ["a", "a", "b"], "input": "", "label": [1.0, 2.0, 1.0]})
    after = pl.DataFrame({"instruction": ["a", "a", "c"], "input": "", "label": [1.0, 1.0, 1.0]})
    found = differing(before, after)
    assert found.added == [{"instruction": "c", "input": ""}]
    assert found.removed == [{"instruction": "b", "input": ""}]
    assert found.changed == [{"instruction": "a", "input": "", "columns": {"label": [2.0, 1.0]}}]
    assert found.same == 1


def test_numbers_may_be_apart_by_a_share_of_their_size():
    before, after = (pl.DataFrame({"model": ["dpo"], "rate": [rate]}) for rate in (50.0, 50.01))
    assert differing(before, after, tolerance=0.001).same == 1
    assert differing(before, after).changed == [{"model": "dpo", "columns": {"rate": [50, 50.01]}}]


def test_diff_says_what_was_set_otherwise_and_which_rows_that_moved(store, capsys):
    keys = [instructions(SOURCE, "eval", size).key for size in (20, 21)]
    assert typed("diff", *keys, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["recipe"] == ["settings.size: 20 -> 21"]
    assert document["packages"] == document["commit"] == {}
    rows = document["rows"]
    assert (rows["added"], rows["removed"], rows["changed"], rows["same"]) == (1, 0, 0, 20)
    assert list(rows["shown"]["added"][0]) == ["instruction", "input"]
    assert typed("diff", *keys) == 0
    assert "1 rows added, 0 rows removed" in capsys.readouterr().out


def answered(store, prompts: Instructions) -> Candidates:
    """Candidates that say they were made from these prompts."""
    arguments = {"instructions": prompts}
    answers = Candidates(key=key_of("hand", 1, arguments))
    made = Made(pl.DataFrame([], schema=Candidates.columns))
    store.write(answers, made, Recipe.of("hand", 1, arguments), 0.0)
    return answers


def test_diff_enters_the_inputs_that_differ(store):
    prompts = [instructions(SOURCE, "eval", size) for size in (4, 5)]
    first, second = (answered(store, each) for each in prompts)
    assert causes(store, first, second) == ["instructions: settings.size: 4 -> 5"]
    taken_in = Instructions(key="0" * 16)
    store.write(taken_in, Made(store.read(prompts[0])), Recipe.of("import", 1, {}), 0.0)
    assert causes(store, first, answered(store, taken_in)) == ["instructions -> import"]
    store.forget(prompts[0])
    assert causes(store, first, second) == []


def test_diff_of_weights_names_the_files_that_differ(store, tmp_path, capsys):
    for number, content in enumerate((b"a", b"b")):
        (draft := tmp_path / f"draft{number}").mkdir()
        (draft / "model.safetensors").write_bytes(content)
        policy = Policy(key=f"{number}" * 16)
        store.write(policy, Made(draft), Recipe.of("train", 1, {}), 0.0)
    assert typed("diff", "0000", "1111") == 0
    assert "files that differ: model.safetensors" in capsys.readouterr().out


def test_diff_takes_two_of_a_kind(store, tmp_path, capsys):
    (tmp_path / "a.json").write_text('[{"instruction": "a", "output": "b"}]')
    typed("import", tmp_path / "a.json", "--as", "candidates", "--json")
    key = json.loads(capsys.readouterr().out)["key"]
    assert typed("diff", key, instructions(SOURCE, "eval", 20).key) == 2
    assert "are of two kinds" in capsys.readouterr().err
