"""Tags: what is asked for, in the words that are allowed; rows are kept, guesses are not."""

from collections.abc import Sequence

import polars as pl
import pytest

from alpacafarm_core.artifacts import Demonstrations, Instructions
from alpacafarm_core.assessors import load
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.llm import Answer, Request
from alpacafarm_core.ratings import Tags
from alpacafarm_core.tag import tag
from alpacafarm_core.world import judges
from alpacafarm_core.world.instructions import instructions
from tests.test_rate import ledger  # noqa: F401

TAGGERS = load("world", "tagging").replace(retries=1)


def prompts(*texts: str) -> pl.DataFrame:
    rows = [(text, "", "d") for text in texts]
    return pl.DataFrame(rows, schema=pl.Schema(Instructions.columns), orient="row")


def test_prompts_of_the_world_are_tagged_by_what_they_ask(ledger: Ledger) -> None:  # noqa: F811
    rows = tag(
        prompts(
            "Anna has 12 eggs and loses 6 of them. Tell me how many eggs are there now.",
            "Write a short letter to Omar to say sorry about the knife.",
            "Cook a proof of the continuum hypothesis with quarks",
        ),
        TAGGERS,
        judges.ask,
        ledger,
    ).rows
    assert rows.schema == pl.Schema(Tags.columns)
    assert rows["task"].to_list() == ["math", "creative writing", "others"]
    assert rows["other_tasks"].to_list() == [["reasoning"], [], []]
    assert rows["quality"].to_list()[:2] == ["good", "good"] and "poor" in rows["quality"][2]
    assert rows["difficulty"].to_list() == ["easy", "hard", "medium"]
    assert rows["output"].to_list() == [""] * 3 and set(rows["status"]) == {"ok"}


def test_harder_tasks_are_tagged_as_harder(ledger: Ledger) -> None:  # noqa: F811
    drawn = pl.DataFrame(instructions("unlabeled", 200))
    rows = tag(drawn.drop("family"), TAGGERS, judges.ask, ledger).rows
    levels = rows.with_columns(drawn["family"]).group_by("family", "difficulty").len()
    stories = levels.filter(pl.col("family") == "story").sort("len")["difficulty"][-1]
    lists = levels.filter(pl.col("family") == "list").sort("len")["difficulty"][-1]
    assert (stories, lists) == ("very hard", "very easy")


def test_what_cannot_be_read_is_null_and_the_row_is_kept(ledger: Ledger) -> None:  # noqa: F811
    def babbling(requests: Sequence[Request]) -> list[Answer]:
        said = [judges.ask([each])[0] for each in requests]
        return [
            Answer("Well...", "stop", 1, 1, 0.0) if '"quality"' in each.messages[0].content else one
            for each, one in zip(requests, said, strict=True)
        ]

    rows = tag(prompts("What is the opposite of hot?"), TAGGERS, babbling, ledger).rows
    assert rows.height == 1 and rows["quality"][0] is None
    assert rows["task"][0] == "information seeking" and rows["status"][0] == "unparsable"
    assert ledger.counts().rows == 4  # quality was asked twice


def test_the_prompt_opens_the_brace_and_sampling_ends_at_the_other(ledger: Ledger) -> None:  # noqa: F811
    seen: list[Request] = []

    def stopping(requests: Sequence[Request]) -> list[Answer]:
        seen.extend(requests)
        return [Answer('"task": "math", "other_tasks": []', "stop", 1, 1, 0.0) for _ in requests]

    rows = tag(prompts("What is 2 and 2?"), TAGGERS.but("task"), stopping, ledger).rows
    assert seen[0].messages[-1].role == "assistant" and seen[0].messages[-1].content == "{"
    assert seen[0].extra == '{"stop": ["}"]}'
    assert rows["task"].to_list() == ["math"] and rows["difficulty"].to_list() == [None]


def test_safety_is_that_of_an_answer(ledger: Ledger) -> None:  # noqa: F811
    (judge,) = TAGGERS.assessors
    asked = judge.sheets["task"].replace(
        prompt="Safe? {instruction}\n\n### Answer:\n{output}", form="bare"
    )
    panel = TAGGERS.replace(assessors=(judge.replace(sheets={"safety": asked}),))
    with pytest.raises(BadInput, match="panel world tags safety, which is that of an answer"):
        tag(prompts("Say hello."), panel, judges.ask, ledger)
    answered = pl.DataFrame(
        [("Say hello.", "", "d", "Hello.", [1], "t")],
        schema=pl.Schema(Demonstrations.columns),
        orient="row",
    )
    fine = [Answer("Safe.", "stop", 1, 1, 0.0)]
    rows = tag(answered, panel, lambda _: fine, ledger).rows
    assert rows.select("output", "safety").row(0) == ("Hello.", "safe")
