"""The world's judges as raters and critics: they read sheets, and their leanings are planted."""

from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import tasks
from alpacafarm_core import endpoints
from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.assessors import Assessors, load
from alpacafarm_core.client import openai_ask
from alpacafarm_core.critique import criticise
from alpacafarm_core.errors import BadInput, BudgetReached, Unanswered
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.llm import nobody
from alpacafarm_core.pacing import Limits
from alpacafarm_core.rate import rate
from alpacafarm_core.ratings import ASPECTS
from alpacafarm_core.setup import Setup, World
from alpacafarm_core.store import Store
from alpacafarm_core.world import judges
from alpacafarm_core.world.instructions import instructions
from alpacafarm_core.world.server import Manner, serving
from alpacafarm_core.world.understanding import understand
from alpacafarm_core.world.utility import utility
from alpacafarm_core.world.writers import write
from flows.planning import Line, Planner
from tasks import stage
from tests.test_rate import ledger  # noqa: F401

RATERS, CRITICS = load("world", "rating"), load("world", "critique")
CREATIVE = ("letter", "story")
SKILLS = (0.35, 0.6, 0.85, 0.95)


def by(model: str, panel: Assessors = RATERS, **changes: object) -> Assessors:
    (judge,) = panel.assessors
    return panel.replace(assessors=(judge.replace(model=model, **changes),))


def written(prompts: int) -> pl.DataFrame:
    """Answers of four writers of growing skill to prompts of the world."""
    rows = [
        (row["instruction"], row["input"], row["dataset"], write(*texts, skill, 0), [], "", "stop",
         f"writer-{skill}", 0, 1.0, 1.0, 300, 0)
        for row in instructions("preference", prompts)
        for skill in SKILLS
        if (texts := (row["instruction"], row["input"]))
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=pl.Schema(Candidates.columns), orient="row")


def true(table: pl.DataFrame) -> pl.Series:
    texts = table.select("instruction", "input", "output").iter_rows()
    return pl.Series("true", [utility(*each) for each in texts])


def told_right(rows: pl.DataFrame, column: str) -> float:
    """Share of pairs of answers to a prompt that a column orders as utility does, ties left out."""
    seen = rows.select("instruction", "input", "true", column).with_row_index("row")
    pairs = seen.join(seen, on=["instruction", "input"]).filter(
        (pl.col("row") < pl.col("row_right"))
        & (pl.col("true") != pl.col("true_right"))
        & (pl.col(column) != pl.col(f"{column}_right"))
    )
    truly, said = (pairs[name] > pairs[f"{name}_right"] for name in ("true", column))
    return float((truly == said).mean())  # type: ignore[arg-type]


def test_the_oracle_marks_better_answers_higher(ledger: Ledger) -> None:  # noqa: F811
    table = written(60)
    rows = rate(table, by("world/oracle"), judges.ask, ledger).rows.with_columns(true(table))
    assert set(rows["helpfulness_status"]) == {"ok"}
    assert told_right(rows, "fine") > 0.9
    means = rows.group_by("generator").agg(pl.col("fine").mean()).sort("generator")["fine"]
    assert means.to_list() == sorted(means) and means[-1] - means[0] > 0.5


def test_letters_and_stories_cannot_be_honest_or_not(ledger: Ledger) -> None:  # noqa: F811
    table = written(40)
    rows = rate(table, by("world/oracle"), judges.ask, ledger).rows
    tasks_set = [understand(*texts) for texts in rows.select("instruction", "input").iter_rows()]
    creative = rows.filter([each is not None and each.family in CREATIVE for each in tasks_set])
    assert creative.height and set(creative["honesty_status"]) == {"na"}
    assert creative["honesty"].null_count() == creative.height
    assert creative["fine"].null_count() == 0


def test_always_five_is_always_five_and_a_refusal_always_one(ledger: Ledger) -> None:  # noqa: F811
    table = written(5)
    rows = rate(table, by("world/always-five"), judges.ask, ledger).rows
    assert rows.select(set(ASPECTS) - {"honesty"}).unique().rows() == [(5, 5, 5)]
    refused = rate(table, by("world/refuse"), judges.ask, ledger).rows
    assert set(refused["truthfulness_status"]) == {"refused"} and refused["fine"].null_count() == 20


def test_a_sloppy_judge_is_asked_again_until_its_form_is_right(ledger: Ledger) -> None:  # noqa: F811
    rated = rate(written(30), by("world/sloppy"), judges.ask, ledger)
    assert set(rated.rows["helpfulness_status"]) == {"ok"}
    # Three in ten break the form, and so do three in ten of the tries after them.
    assert rated.spending.calls == pytest.approx(120 / 0.7, rel=0.15)


def test_marks_of_one_call_tell_answers_apart_better_than_those_of_separate_calls(
    ledger: Ledger,  # noqa: F811
) -> None:
    """Helpfulness and the overall score weigh alike; only the latter comes from a call each."""
    table = written(150)
    rows = rate(table, RATERS.but("helpfulness"), judges.ask, ledger).rows
    critiques = criticise(table, CRITICS.but("critique"), judges.ask, ledger).rows
    rows = rows.with_columns(true(table), overall=critiques["overall"])
    assert told_right(rows, "helpfulness") > told_right(rows, "overall") + 0.01 > 0.8


def test_feedback_does_not_give_the_answer_away(ledger: Ledger) -> None:  # noqa: F811
    table = written(20)
    rows = criticise(table, CRITICS.but("critique"), judges.ask, ledger).rows
    assert rows["overall"].null_count() == 0
    assert rows["overall"].min() == 1 and rows["overall"].max() == 10  # type: ignore[comparison-overlap]
    for output, critique in rows.select("output", "critique").iter_rows():
        assert not output or output not in critique


def test_marks_in_json_are_the_marks_in_blocks(ledger: Ledger) -> None:  # noqa: F811
    (listed,) = load("local", "rating").assessors
    own = by("world/oracle", endpoint="world://", sheets=listed.sheets)
    table = written(10)
    blocks = rate(table, by("world/oracle"), judges.ask, ledger).rows
    objects = rate(table, own, judges.ask, ledger).rows
    marks = [*ASPECTS, "truthfulness_types", "helpfulness_rationale", "fine"]
    assert objects.select(marks).equals(blocks.select(marks))
    assert ledger.counts().rows == 80


def test_the_stages_make_tables_and_buy_them_once(store: Store) -> None:
    answers = tasks.published(World(), 8)
    ratings = tasks.rate(answers, RATERS)
    rated = tasks.criticise(ratings, CRITICS)
    tags = tasks.tag(tasks.instructions(World(), "unlabeled", 8), load("world", "tagging"))
    rows = store.read(rated)
    assert rows["fine"].null_count() == rows["overall"].null_count() == 0
    assert store.read(tags)["difficulty"].null_count() == 0
    bought = stage.ledger().counts().rows
    assert bought == 8 * 4 + 8 + (rows["repaired"] == "asked").sum() + 8 * 3
    # Of sixteen prompts the first eight are those: one call more for each of the others.
    tasks.critique(tasks.published(World(), 16), CRITICS)
    assert stage.ledger().counts().rows == bought + 8


def test_a_stage_stops_at_the_budget_and_goes_on_from_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = tasks.published(World(), 16)
    monkeypatch.setenv("ALPACAFARM_BUDGET", "0.5")
    with pytest.raises(BudgetReached):
        tasks.rate(answers, RATERS)
    kept = stage.ledger().counts()
    assert 0 < kept.rows < 64 and kept.price <= 0.5
    monkeypatch.setenv("ALPACAFARM_BUDGET", "")
    ratings = tasks.rate(answers, RATERS)
    assert stage.ledger().counts().rows == 64
    assert store.read(ratings)["price"].sum() == pytest.approx(stage.ledger().counts().price)


def test_a_stage_makes_nothing_of_calls_that_fail(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = tasks.published(World(), 2)
    monkeypatch.setattr("alpacafarm_core.endpoints.ask_for", lambda *_: nobody)
    with pytest.raises(Unanswered, match="8 questions got no answer from world://"):
        tasks.rate(answers, RATERS)
    assert stage.ledger().counts().rows == 0


def test_a_model_that_the_world_lacks_is_named() -> None:
    with pytest.raises(BadInput, match="assessor gpt4 asks for 'world/nobody'"):
        endpoints.check(by("world/nobody"))


def test_a_server_with_faults_ends_in_the_marks_of_one_without(
    ledger: Ledger,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Among the faults is an answer that says everything twice, which has no form."""
    table, here = written(6), by("world/judge-gpt4-3")
    quick = Limits(timeout=0.5, first_wait=0.01, longest_wait=0.02, retries=20)
    with serving(Manner(faults=0.5)) as url, closing(openai_ask(url, quick)) as ask:
        there = by("world/judge-gpt4-3", endpoint=url, price_per_1k_tokens=0.0)
        served = rate(table, there, ask, ledger)
    inside = Ledger(tmp_path / "inside.sqlite")
    expected = rate(table, here, judges.ask, inside)
    assert served.spending.rows_failed == 0
    assert served.rows.select(ASPECTS).equals(expected.rows.select(ASPECTS))
    assert served.spending.calls > expected.spending.calls == 24
    inside.close()


def test_a_plan_prices_every_stage_and_knows_what_is_bought(store: Store) -> None:
    def lines() -> dict[str, Line]:
        planner: Any = Planner(Setup(), store, stage.ledger())
        answers = planner.published(World(), 8)
        planner.criticise(planner.rate(answers, RATERS), CRITICS)
        planner.tag(planner.instructions(World(), "unlabeled", 8), load("world", "tagging"))
        return {line.stage: line for line in planner.lines.values()}

    before = lines()
    assert {name: line.calls for name, line in before.items() if line.calls} == {
        "rate": 32,
        "critique": 8,
        "tag": 24,
    }
    # How many scores will be in doubt is not known ahead: from none to all.
    assert (before["repair"].usd_low, before["repair"].usd_high > 0) == (0.0, True)
    tasks.rate(tasks.published(World(), 4), RATERS)
    assert lines()["rate"].calls == 16
    spent = tasks.rate(tasks.published(World(), 8), RATERS)
    assert lines()["rate"].state == "cached"
    dollars = store.read(spent)["price"].sum()
    assert before["rate"].usd_low <= dollars * 1.1 and dollars <= before["rate"].usd_high * 1.1
