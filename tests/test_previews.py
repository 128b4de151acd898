"""What a run's page shows of its artifacts."""

import json
import time

import polars as pl
import pytest

from alpacafarm_core.artifacts import Instructions, Preferences
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.store import Made
from alpacafarm_core.weights import Policy
from tasks import previews
from tasks.previews import ROWS, drawn, key_of, previewed, staged
from tasks.stage import stage
from tests.paper_farm import numbered
from tests.tiny import frame


def kept(store, artifact, content, stage, **inputs):
    """An artifact of the store, made from these inputs."""
    made = content if isinstance(content, Made) else Made(content)
    return store.write(artifact, made, Recipe.of(stage, 1, inputs), time.time())


def labels(count, text="because"):
    row = {"input": text, "output_1": "a", "output_2": "b", "preference": 2.0}
    same = row | {"output_1_ids": [1, 2]}
    return frame(Preferences, [same | {"instruction": f"{at} {text}"} for at in range(count)])


@stage(Instructions, version=1)
def prompts(size: int) -> pl.DataFrame:
    """As many prompts."""
    return pl.DataFrame({"instruction": ["hello"] * size, "input": "", "dataset": "toy"})


@stage(Instructions, version=1)
def doubled(of: Instructions) -> pl.DataFrame:
    """A stage over another's result."""
    return pl.DataFrame({"instruction": ["x"], "input": "", "dataset": of.key})


def test_a_table_has_its_first_rows_and_what_its_columns_hold(store):
    made = kept(store, Preferences(key=numbered(1)), labels(30), "annotate")
    rows, columns = previewed(store, made)
    assert rows.content == [{"instruction": f"{at} because"} for at in range(ROWS)]
    figures = {each["column"]: each for each in columns.content}
    assert figures["preference"]["median"] == 2.0 and figures["output_1_ids"]["most"] == 2
    assert rows.key == f"preferences-{numbered(1)}" and columns.key == f"{rows.key}-columns"


def test_a_preview_says_what_made_it_from_what_and_for_how_much(store):
    source = Instructions(key=numbered(2))
    bought = Made(labels(3), {"usd_bought": 0.5, "calls_bought": 7, "usd": 0.75})
    made = kept(store, Preferences(key=numbered(1)), bought, "annotate", prompts=source)
    said = previewed(store, made)[0].description
    assert "Made by annotate in " in said and "3 rows" in said
    assert "7 calls bought for $0.50" in said
    assert f"prompts `instructions/{numbered(2)}`" in said
    assert f"`alpacafarm show {numbered(1)}`" in said and "](http" not in said


def test_a_preview_leads_to_the_pages_for_browsing_where_they_are_served(store, monkeypatch):
    monkeypatch.setenv("ALPACAFARM_BROWSE_URL", "http://127.0.0.1:4201/")
    made = kept(store, Preferences(key=numbered(1)), labels(1), "annotate")
    folder = f"http://127.0.0.1:4201/artifact/preferences/{numbered(1)}"
    assert f"[page]({folder})" in previewed(store, made)[0].description
    (row,) = staged(store, {made.artifact.folder: False}).content
    assert row["page"] == folder


def test_long_texts_are_cut_until_a_preview_is_small(store):
    made = kept(store, Preferences(key=numbered(1)), labels(30, "long " * 500), "annotate")
    rows, columns = previewed(store, made)
    assert len(json.dumps(rows)) < previews.LARGEST and len(json.dumps(columns)) < 6_000
    assert len(rows.content) == ROWS and rows.content[7]["instruction"].startswith("7 long")


def test_a_run_posts_no_more_previews_than_it_has_room_for(store, monkeypatch):
    posted = []
    monkeypatch.setattr(previews, "post", posted.extend)
    monkeypatch.setattr(previews, "_ends_with_its_stages", lambda: None)
    monkeypatch.setattr(previews, "ALL", 6_000)
    for number in (1, 2):
        kept(store, Preferences(key=numbered(number)), labels(3), "annotate")
        previews.noted("full", Preferences(key=numbered(number)), ran=True)
        previews.preview("full", store, Preferences(key=numbered(number)))
    assert {post.key[:28] for post in posted} == {f"preferences-{numbered(1)}"}
    posted.clear()

    class Ended:
        id = "full"

    previews.ended(None, Ended, None)
    assert [row["preview"] for row in posted[0].content] == [f"preferences-{numbered(1)}", ""]


def test_of_weights_the_files_are_named(store):
    folder = store.scratch()
    (folder / "config.json").write_text("{}")
    (post,) = previewed(store, kept(store, Policy(key=numbered(1)), Made(folder), "base"))
    assert [row["file"] for row in post.content] == ["config.json"]


def test_keys_have_only_what_prefect_takes():
    class Odd(Instructions):
        kind = "reward_model"

    assert key_of(Odd(key=numbered(10))) == f"reward-model-{numbered(10)}"


def test_stages_are_one_table_with_what_was_made_and_what_was_there(store):
    first, second = prompts(3), doubled(prompts(3))
    table = staged(store, {first.folder: False, second.folder: True})
    states = [(row["stage"], row["state"], row["rows"]) for row in table.content]
    assert states == [("prompts", "cached", 3), ("doubled", "made", 1)]
    assert "1 made in " in table.description and "1 cached; $0.00" in table.description


def test_what_was_forgotten_meanwhile_is_left_out(store):
    first = prompts(3)
    store.forget(first)
    assert staged(store, {first.folder: True}).content == []
    assert "graph TD" in drawn(store, {doubled(prompts(3)).folder: True}).content


def test_the_graph_of_a_run_has_all_that_its_stages_come_from(store):
    top = doubled(prompts(3))
    text = drawn(store, {top.folder: True}).content
    assert text.count(":::made") == 1 and text.count(":::cached") == 1 and "|of|" in text


def pages_of(run):
    """Key to content of what stands on the page of a flow run."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    with get_client(sync_client=True) as client:
        return {page.key: page for page in client.read_artifacts(artifact_filter=wanted)}


@pytest.fixture
def run(prefect):
    """A flow of two stages, run; the id of its run."""
    from prefect import flow
    from prefect.context import FlowRunContext

    @flow
    def twice() -> str:
        doubled(prompts(3))
        return str(FlowRunContext.get().flow_run.id)

    return twice


def test_a_run_shows_previews_of_what_it_made_its_stages_and_their_lineage(store, run):
    pages = pages_of(run())
    made = prompts.receipt(3)
    shown = {f"{key_of(each)}{end}" for each in (made, doubled.receipt(made))
             for end in ("", "-columns")}  # fmt: skip
    assert set(pages) == {*shown, "stages", "lineage"}
    assert pages[key_of(made)].task_run_id is not None
    assert [row["state"] for row in json.loads(pages["stages"].data)] == ["made", "made"]


def test_a_run_that_found_everything_shows_its_stages_and_no_preview_again(store, run):
    run()
    pages = pages_of(run())
    assert set(pages) == {"stages", "lineage"}
    rows = json.loads(pages["stages"].data)
    assert [row["state"] for row in rows] == ["cached", "cached"]
    assert rows[0]["preview"] == key_of(prompts.receipt(3))


def test_a_page_that_cannot_be_written_ends_no_run(store, run, monkeypatch, caplog):
    def refused(entries):
        raise ConnectionError("no server")

    monkeypatch.setattr(previews, "post", refused)
    run()
    assert store.has(doubled.receipt(prompts.receipt(3)))
    assert "nothing on the run's page" in caplog.text


def test_a_run_that_fails_has_its_stages_too(store, prefect):
    from prefect import flow
    from prefect.context import FlowRunContext

    ids = []

    @flow
    def broken() -> None:
        ids.append(str(FlowRunContext.get().flow_run.id))
        prompts(3)
        raise ValueError("later")

    with pytest.raises(ValueError, match="later"):
        broken()
    assert {"stages", "lineage"} < set(pages_of(ids[0]))
