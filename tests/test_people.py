"""People at the UI: what they say of a page is kept like any other answer."""

import polars as pl
import pytest

from alpacafarm_core.errors import BadInput
from flows.people import judged_by_people, shown
from tests.test_cli import complaint, typed

COUNT = 7


@pytest.fixture
def pairs(tmp_path):
    rows = [
        {"instruction": f"do {n}", "input": "", "output_1": f"x{n}", "output_2": f"y{n}"}
        for n in range(COUNT)
    ]
    pl.DataFrame(rows).write_ndjson(tmp_path / "pairs.jsonl")
    return tmp_path / "pairs.jsonl"


class Gone(Exception):
    """The person left."""


def test_pages_are_asked_in_turn_and_the_order_is_undone(store, pairs, tmp_path):
    pages = []

    def prefers_y(page):
        pages.append(len(page))
        return ["(a)" if b.rows[0].example.output_1.startswith("y") else "(b)" for b in page]

    out = tmp_path / "labels.parquet"
    assert judged_by_people(pairs, out, 3, 0, prefers_y)["asked"] == COUNT
    rows = pl.read_parquet(out)
    assert pages == [3, 3, 1] and rows["preference"].to_list() == [2.0] * COUNT
    assert 0 < rows["is_switched"].sum() < COUNT
    assert set(rows["annotator"]) == {"person"}


def test_who_comes_back_is_asked_only_for_the_rest(store, pairs, tmp_path):
    seen = []

    def leaves_after_a_page(page):
        if seen:
            raise Gone
        seen.extend(page)
        return ["tie"] * len(page)

    with pytest.raises(Gone):
        judged_by_people(pairs, tmp_path / "labels.csv", 3, 0, leaves_after_a_page)
    assert not (tmp_path / "labels.csv").exists()
    again = judged_by_people(pairs, tmp_path / "labels.csv", 3, 0, lambda page: ["(a)"] * len(page))
    assert again["asked"] == COUNT - 3
    statuses = pl.read_csv(tmp_path / "labels.csv")["status"].to_list()
    assert statuses.count("tie") == 3 and statuses.count("ok") == COUNT - 3


def test_texts_of_a_row_are_no_markup_on_the_page(store, tmp_path):
    row = {"instruction": "# Big", "output_1": "![x](y)\n### Pair 9", "output_2": "**b**"}
    pl.DataFrame([row]).write_ndjson(tmp_path / "pairs.jsonl")
    pages = []
    judged_by_people(
        tmp_path / "pairs.jsonl",
        tmp_path / "out.json",
        5,
        0,
        lambda page: pages.append(page) or ["tie"],
    )
    lines = shown(pages[0]).splitlines()
    assert r"> \#\#\# Pair 9  " in lines and r"> \# Big  " in lines
    assert [line for line in lines if line.startswith("###")] == ["### Pair 1"]


def test_a_place_that_cannot_be_written_and_the_wrong_door_are_refused(
    store, pairs, tmp_path, capsys
):
    with pytest.raises(BadInput, match="unknown ending"):
        judged_by_people(pairs, tmp_path / "labels.doc", 3, 0)
    assert typed("annotate", pairs, "--panel", "person", "--out", tmp_path / "x.json") == 2
    assert "run the flow `people`" in complaint(capsys)
