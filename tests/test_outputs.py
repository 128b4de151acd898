"""My outputs, judged: a file becomes a row of a board and its labels; what is wrong is named."""

import json

import polars as pl
import pytest

from alpacafarm_core import sources
from alpacafarm_core.errors import BadInput
from alpacafarm_core.lineage import ancestry
from alpacafarm_core.setup import World
from flows.annotate import annotate
from flows.labelling import Labelling
from flows.outputs import Given, Outputs, entered, judged, planned
from tasks.stage import ledger
from tests.test_cli import complaint, typed

COUNT = 6
FIELDS = ("instruction", "input", "output")


@pytest.fixture
def mine(tmp_path):
    """Outputs of a good writer of the world to its first prompts."""
    rows = sources.written(World(), COUNT, 0.95).select(FIELDS)
    rows.with_columns(generator=pl.lit("mine")).write_json(tmp_path / "outputs.json")
    return tmp_path / "outputs.json"


@pytest.fixture
def rival(tmp_path):
    """The reference's outputs to the same prompts, as a file."""
    sources.published(World(), COUNT).select(FIELDS).write_json(tmp_path / "rival.json")
    return tmp_path / "rival.json"


@pytest.fixture
def pairs(tmp_path, mine, rival):
    rows, others = pl.read_json(mine), pl.read_json(rival)
    both = rows.select("instruction", "input", output_1=others["output"], output_2="output")
    both.write_ndjson(tmp_path / "pairs.jsonl")
    return tmp_path / "pairs.jsonl"


def test_a_file_of_outputs_becomes_one_row_whose_lineage_begins_with_the_file(store, mine):
    board = judged(entered(Outputs(outputs=mine, prompts=COUNT)))
    (row,) = store.read(board).to_dicts()
    assert (row["model"], row["n_total"], row["coverage"]) == ("mine", COUNT, 100.0)
    assert row["utility"] is not None
    made = [each.recipe.stage for each in ancestry(store, board)]
    assert sorted(made) == ["annotate", "import", "published", "score", "tally"]


def test_the_price_is_told_before_and_nothing_is_bought_again(store, mine, rival):
    entry = entered(Outputs(outputs=mine, model="my name", against=Given(outputs=rival)))
    told = planned(entry)
    assert told["stages"][0]["state"] == "to do" and 0 < told["usd_low"] < told["usd_high"]
    (row,) = store.read(judged(entry)).to_dicts()
    assert row["model"] == "my name" and row["utility"] is None
    calls = ledger().counts().calls
    assert planned(entry)["stages"][0]["state"] == "cached" and planned(entry)["usd_high"] == 0
    judged(entry)
    assert ledger().counts().calls == calls > 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: rows[1:], "5 of the reference's 6 prompts are answered; answer the others"),
        (lambda rows: [*rows, rows[2]], "row 7 answers a prompt .* earlier row answers"),
        (lambda rows: [*rows, rows[2] | {"input": "?"}], "row 7 .* the reference does not; take"),
        (lambda rows: [{"instruction": "x"}], "no column 'output'"),
        (lambda rows: [*rows[1:], rows[0] | {"output": None}], "row 6 has no 'output'"),
    ],
)
def test_what_cannot_be_judged_is_named_before_anything_is_bought(store, mine, change, complaint):
    rows = [{name: row[name] for name in FIELDS} for row in json.loads(mine.read_text())]
    mine.write_text(json.dumps(change(rows)))
    with pytest.raises(BadInput, match=f"{mine}.*{complaint}"):
        entered(Outputs(outputs=mine, prompts=COUNT))
    assert ledger().counts().calls == 0


def test_the_command_says_what_the_flow_says(store, mine, rival, capsys):
    assert typed("evaluate", mine, "--reference", rival, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in told["leaderboard"]] == ["mine"] and told["cost_usd"] > 0
    assert typed("evaluate", mine, "--reference", rival, "--against.name", "hub") == 2
    assert "name two rivals" in complaint(capsys)
    assert typed("evaluate", mine, "--against.nme", "hub") == 2
    assert "did you mean name?" in complaint(capsys)


def test_labels_of_a_file_are_kept_in_the_store_and_in_the_file(store, pairs, tmp_path):
    out = tmp_path / "labels.parquet"
    done = annotate.fn(Labelling(pairs=pairs, panel="world", both_orders=True), out)
    kept = [store.read(store.find(key)) for key in done["keys"]]
    assert [len(set(each["is_switched"])) for each in kept] == [1, 1]
    written = pl.read_parquet(out)
    assert pl.concat(kept)["preference"].equals(written["preference"])
    calls = ledger().counts().calls
    again = annotate.fn(Labelling(pairs=pairs, panel="world", both_orders=True))
    assert again["keys"] == done["keys"] and ledger().counts().calls == calls


@pytest.mark.parametrize("part", [{"offline": True}, {"until_decided": 0.05}])
def test_a_part_of_the_labels_needs_a_file_to_lie_in(store, pairs, part):
    with pytest.raises(BadInput, match="which only a file can hold; give `out`"):
        annotate.fn(Labelling(pairs=pairs, panel="world", **part))


def test_the_page_of_a_run_has_the_judge_card(store, pairs, prefect):
    from prefect import get_client
    from prefect.client.schemas.filters import ArtifactFilter

    assert annotate(Labelling(pairs=pairs, panel="world"))["keys"]
    with get_client(sync_client=True) as client:
        shown = client.read_artifacts(artifact_filter=ArtifactFilter())
    assert "judge-card" in {each.key for each in shown}
