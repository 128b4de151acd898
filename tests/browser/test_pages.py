"""What a person does at the workplace, done in a browser on SQLite and on Postgres."""

import polars as pl
import pytest

from tests.workplace import awaited

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]
LONG = 420.0
BOARD = {"methods": ["sft", "dpo"], "setup": {"scale": "smoke"}}


def opened(page, place, path: str) -> None:
    """Open a page of the new UI."""
    page.goto(f"{place.address}/v2/{path}", wait_until="domcontentloaded")


def form(page, place, flow: str, name: str) -> None:
    """Open the form of a deployment."""
    opened(page, place, f"deployments/deployment/{place.deployment(flow, name)['id']}/run")
    page.get_by_role("button", name="Submit").wait_for()


def write(page, label: str, text: str) -> None:
    """Write into the field of a form."""
    page.get_by_label(f"{label} (Optional)", exact=True).first.fill(text)


def choose(page, label: str, option: str) -> None:
    """Choose from a list of a form."""
    page.get_by_label(f"Select {label}", exact=True).first.click()
    page.get_by_role("option", name=option, exact=True).click()


def submit(page) -> str:
    """Send the form off; the id of the run that it started.

    On SQLite a busy server answers 503 at times and the page says so: a person clicks again.
    """
    for _ in range(5):
        with page.expect_response(lambda reply: "create_flow_run" in reply.url) as replied:
            page.get_by_role("button", name="Submit").click()
        if replied.value.status != 503:
            break
        page.wait_for_timeout(2000)
    assert replied.value.ok, replied.value.text()
    return str(replied.value.json()["id"])


@pytest.fixture(scope="session")
def board(place):
    """A leaderboard that the server has made."""
    run = place.ended(place.start("leaderboard", "smoke", **BOARD), LONG)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    return run["id"]


def test_ppo_is_started_from_its_form_with_a_field_changed_and_followed_to_its_end(
    place, page, picture
):
    form(page, place, "run", "ppo")
    picture("ppo-form")
    choose(page, "Scale", "smoke")
    write(page, "Steps", "2")
    write(page, "Rollouts", "32")
    write(page, "Gamma", "0.99")
    picture("ppo-form-changed")
    run = submit(page)
    opened(page, place, f"runs/flow-run/{run}?tab=Logs")
    progress = awaited(
        lambda: [
            each for each in place.artifacts(run) if each["type"] == "progress" and each["data"]
        ],
        LONG,
        "progress",
    )
    assert place.state(run) == "RUNNING"
    opened(page, place, f"artifacts/artifact/{progress[0]['id']}")
    picture("ppo-progress")
    opened(page, place, f"runs/flow-run/{run}?tab=TaskRuns")
    page.get_by_text("train_policy").first.wait_for()
    picture("ppo-running")
    ended = place.ended(run, LONG)
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    said = ended["parameters"]["method"]["objective"]
    assert (said["gamma"], said["rollouts"]) == (0.99, 32)
    opened(page, place, f"runs/flow-run/{run}?tab=Parameters")
    page.get_by_text("Completed").first.wait_for()
    picture("ppo-completed")
    assert {each["data"] for each in place.artifacts(run) if each["type"] == "progress"} == {100.0}


def test_the_boards_table_plot_and_lineage_are_on_the_runs_page(place, page, picture, board):
    opened(page, place, f"runs/flow-run/{board}?tab=Artifacts")
    page.get_by_text("leaderboard", exact=True).first.wait_for()
    picture("board-run")
    held = {each["key"]: each for each in place.artifacts(board) if each["key"]}
    opened(page, place, f"artifacts/artifact/{held['leaderboard']['id']}")
    page.get_by_role("cell", name="dpo", exact=True).wait_for()
    picture("board-table")
    opened(page, place, f"artifacts/artifact/{held['leaderboard-plot']['id']}")
    drawing = page.locator("svg[aria-roledescription=xychart]")
    drawing.wait_for()
    assert "dpo" in drawing.text_content() and "sft" in drawing.text_content()
    picture("board-plot")
    opened(page, place, f"artifacts/artifact/{held['lineage']['id']}")
    graph = page.locator("svg[aria-roledescription^=flowchart]")
    graph.wait_for()
    assert "tally" in graph.text_content() and "annotate" in graph.text_content()
    picture("board-lineage")
    opened(page, place, f"artifacts/artifact/{held['stages']['id']}")
    page.get_by_text("train_policy").first.wait_for()
    picture("board-stages")


def test_a_spend_above_the_limit_waits_until_it_is_approved_in_the_form(place, page, picture):
    setup, before = {"scale": "smoke", "seed": 11}, made(place)
    run = place.start("leaderboard", "smoke", methods=["sft"], setup=setup, ask_above=0.01)
    awaited(lambda: place.state(run) == "PAUSED", LONG, "the question")
    assert made(place) == before, "something was bought before anybody approved"
    opened(page, place, f"runs/flow-run/{run}")
    page.get_by_text("Suspended").first.wait_for()
    picture("approval-waits")
    resume(page)
    picture("approval-form")
    choose_answer(page, "Decision", "approve")
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    ended = place.ended(run, LONG)
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    opened(page, place, f"runs/flow-run/{run}?tab=Logs")
    page.get_by_text("Completed").first.wait_for()
    picture("approval-done")


def test_a_person_judges_a_page_of_pairs_in_the_form(place, page, picture, tmp_path):
    rows = [
        {"instruction": f"Say {n}.", "output_1": f"It is {n}.", "output_2": f"No idea about {n}."}
        for n in (1, 2)
    ]
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "labels.csv"
    pl.DataFrame(rows).write_ndjson(pairs)
    run = place.start("people", "default", pairs=str(pairs), out=str(out), page=2)
    awaited(lambda: place.state(run) == "PAUSED", LONG, "the page of pairs")
    opened(page, place, f"runs/flow-run/{run}")
    page.get_by_text("Suspended").first.wait_for()
    resume(page)
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Pair 2", exact=False).first.wait_for()
    picture("people-form")
    choose_answer(page, "pair_1", "tie")
    choose_answer(page, "pair_2", "(b)")
    picture("people-filled")
    dialog.get_by_role("button", name="Resume").click()
    ended = place.ended(run, LONG)
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    labels = pl.read_csv(out)
    assert labels["annotator"].to_list() == ["person"] * 2
    assert sorted(labels["status"]) == ["ok", "tie"]


def test_a_schedule_turned_on_brings_a_scheduled_run(place, page, picture):
    deployment = place.deployment("leaderboard", "demo")["id"]
    opened(page, place, f"deployments/deployment/{deployment}")
    page.get_by_role("switch").last.wait_for()
    picture("schedule-off")
    page.get_by_role("switch").last.click()
    awaited(
        lambda: place.deployment("leaderboard", "demo")["schedules"][0]["active"], 30, "the switch"
    )
    waiting = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    awaited(lambda: place("flow_runs/filter", waiting), 120, "a scheduled run")
    opened(page, place, f"deployments/deployment/{deployment}?tab=Upcoming")
    page.get_by_text("Scheduled").first.wait_for()
    picture("schedule-on")
    (schedule,) = place.deployment("leaderboard", "demo")["schedules"]
    place(f"deployments/{deployment}/schedules/{schedule['id']}", {"active": False}, "PATCH")


def made(place) -> set[str]:
    """The labels that the store holds."""
    return {each.name for each in place.store.glob("preferences/*")}


def resume(page) -> None:
    """Open the form of a run that waits."""
    page.locator("button[aria-haspopup=menu]").first.click()
    page.get_by_role("menuitem", name="Resume").click()
    page.get_by_role("dialog").wait_for()


def choose_answer(page, label: str, option: str) -> None:
    """Choose from a list of the form of a run that waits."""
    page.get_by_role("dialog").get_by_label(f"Select {label}", exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()
