"""The stages of UltraFeedback's data: mixed, drawn, answered by writers, rated and paired."""

import json

import polars as pl
import pytest

import tasks
from alpacafarm_core import critique, sources
from alpacafarm_core.assessors import load
from alpacafarm_core.binarise import Binarisation
from alpacafarm_core.errors import BadInput
from alpacafarm_core.methods.ultrafeedback import UltraFeedback
from alpacafarm_core.mixture import Mixture
from alpacafarm_core.responders import Drawing, Seat
from alpacafarm_core.settings import Rule, Truth
from alpacafarm_core.setup import Files, World
from flows.planning import planned
from tasks.stage import ledger
from tests.test_flows import SMOKE

SKILLS = {"apprentice": 0.2, "clerk": 0.5, "scholar": 0.95}
DRAWING = Drawing(responders=tuple(SKILLS), each=3)
SIX = {"selfinstruct": 2, "oasst": 2, "koala": 2}
ASPECTS = 4


def pooled(counts: dict[str, int]):
    """Answers of three writers to a few prompts of the world."""
    asked = tasks.instructions(World(), "unlabeled", 64)
    prompts = tasks.mix(asked, World(), Mixture(counts=counts, evaluated=32))
    drawn = [tasks.draw(prompts, DRAWING, Seat(name=name)) for name in SKILLS]
    skilled = zip(drawn, SKILLS.values(), strict=True)
    written = tuple(tasks.write(each, World(), skill) for each, skill in skilled)
    return tasks.gather(prompts, DRAWING, written)


def bought(artifact, store) -> int:
    return store.manifest(artifact).notes["calls_bought"]


def test_what_writers_of_more_skill_say_is_worth_more_and_rated_higher(store):
    answers = pooled(dict.fromkeys(SIX, 10))
    who = store.read(answers)["responder"]
    truth = store.read(tasks.score(answers, Truth())).with_columns(who=who)
    marks = store.read(tasks.rate(answers, load("world", "rating"))).with_columns(who=who)
    for rows, column in ((truth, "score"), (marks, "fine")):
        means = dict(rows.group_by("who").agg(pl.col(column).mean()).rows())
        assert means["apprentice"] < means["clerk"] < means["scholar"]


def test_one_more_instruction_buys_its_own_marks_and_critiques_alone(store):
    fewer, more = pooled(SIX), pooled(SIX | {"oasst": 3})
    raters, critics = load("world", "rating"), load("world", "critique")
    assert bought(tasks.rate(fewer, raters), store) == 6 * ASPECTS
    assert bought(tasks.rate(more, raters), store) == ASPECTS
    assert bought(tasks.critique(fewer, critics), store) == 18
    assert bought(tasks.critique(more, critics), store) == 3


def test_another_way_to_make_pairs_buys_nothing(store):
    ratings = tasks.rate(pooled(SIX), load("world", "rating"))
    held = ledger().counts()
    tables = [tasks.rank(ratings, Binarisation(name=way)) for way in ("argilla", "all-pairs")]
    assert len({table.key for table in tables}) == 2
    notes = store.manifest(tables[0]).notes
    assert notes["prompts_without_pair"] == 6 - store.read(tables[0]).height
    assert ledger().counts() == held


def test_the_principle_of_an_answer_reaches_its_critic(store):
    answers = store.read(pooled(SIX))
    asked = critique.questions(answers, load("world", "critique"))
    for question, principle in zip(asked, answers["principle"], strict=True):
        first = principle.partition("\n")[0]
        assert first and dict(question.texts)["principle"].endswith(first)


def test_critiques_become_answers_to_imitate(store):
    critiques = tasks.critique(pooled(SIX), load("world", "critique"))
    data = store.read(tasks.select(critiques, Rule(keep="critiques")))
    assert data.height == 18
    assert data["output"].str.contains(r"Overall score: \d+$").all()


def test_a_writer_answers_a_prompt_alike_whatever_stands_beside_it():
    prompts = sources.instructions(World(), "unlabeled", 5)
    all_five = sources.answered(World(), prompts, 0.5)
    assert sources.answered(World(), prompts[3:4], 0.5).equals(all_five[3:4])


def test_only_the_world_has_writers(tmp_path):
    rows = [{"instruction": f"Question {n}?", "output": "x", "davinci003": "y"} for n in range(9)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    path = tmp_path / "rows.json"
    source = Files(instructions=path, demonstrations=path)
    with pytest.raises(
        BadInput, match=r"source 'files' has no writers.* responders that are models"
    ):
        sources.answered(source, sources.instructions(World(), "unlabeled", 1), 0.5)


def test_a_plan_prices_the_marks_of_answers_that_nobody_has_given_yet(store):
    lines = {
        line["stage"]: line for line in planned([UltraFeedback.at("smoke")], [SMOKE])["stages"]
    }
    assert lines["mix"]["rows"] == 32 and lines["gather"]["rows"] == 128
    assert lines["rate"]["calls"] == 32 * ASPECTS
    assert 0 < lines["rate"]["usd_low"] <= lines["rate"]["usd_high"]
    assert not list(store.root.glob("pooled/*"))
