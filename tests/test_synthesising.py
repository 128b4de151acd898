"""From a policy alone to demonstrations: stages in order, one after the other, each cached."""

import json
from typing import Any

import polars as pl
import pytest

import tasks
from alpacafarm_core import synthesis
from alpacafarm_core.artifacts import Candidates, Scores
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ratings import Tags
from alpacafarm_core.settings import Sampling
from alpacafarm_core.setup import Pretrained, World
from alpacafarm_core.sources import pretrained
from alpacafarm_core.store import Store
from alpacafarm_core.synthesis import Filtering, Inventing, Shard, Synthesis
from alpacafarm_core.synthesising import synthesise
from alpacafarm_core.weights import Policy, RewardModel, Tagged
from tests.paper_farm import numbered

YIELDS = {
    "invent": synthesis.Drafts,
    "follow_up": synthesis.Drafts,
    "admit": synthesis.Invented,
    "generate": Candidates,
    "score": Scores,
    "tag": Tags,
    "neighbours": synthesis.Neighbours,
    "sift": synthesis.Sifted,
    "keep": synthesis.Synthetic,
    "collect": synthesis.Synthetic,
}
POLICY, REWARD = Policy(key=numbered(1)), RewardModel(key=numbered(2))
BASE = Policy(key=numbered(3))
OPEN = Filtering(quality=(), reward_above=None, longest=None)


class Paper:
    """Stages that make nothing and write down which were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.given: list[tuple[Any, ...]] = []

    def __getattr__(self, stage: str) -> Any:
        def ask(*given: Any) -> Any:
            self.asked.append(stage)
            self.given.append(given)
            return YIELDS[stage](key=numbered(0xA000 + len(self.asked)))

        return ask


def asked(of: Synthesis, *judges: Any) -> list[str]:
    stages = Paper()
    synthesise(stages, POLICY, of, World(), *judges)
    return stages.asked


def test_draws_are_admitted_answered_looked_at_sifted_and_kept():
    plain = Synthesis(filtering=OPEN)
    assert asked(plain) == ["invent", "admit", "generate", "neighbours", "sift", "keep"]


def test_answers_are_scored_where_there_is_a_reward_model_and_the_bases_beside_them():
    plain = Synthesis(filtering=OPEN)
    assert asked(plain, REWARD) == [
        "invent", "admit", "generate", "score", "neighbours", "sift", "keep",
    ]  # fmt: skip
    assert asked(plain, REWARD, BASE).count("score") == 2
    assert asked(plain, None, BASE).count("generate") == 1  # nobody would score them


def test_instructions_are_tagged_where_a_panel_is_named():
    stages = Paper()
    synthesise(stages, POLICY, Synthesis(taggers="world"), World())
    taggers = stages.given[stages.asked.index("tag")][1]
    assert taggers.sheets == ("difficulty", "quality", "task")


def test_a_further_turn_is_drawn_after_the_rows_that_were_kept():
    turns = ["follow_up", "admit", "generate", "sift", "keep"]
    once = ["invent", "admit", "generate", "neighbours", "sift", "keep"]
    assert asked(Synthesis(filtering=OPEN, turns=3)) == [*once, *turns, *turns, "collect"]


def test_the_system_text_of_a_further_turn_reaches_its_draws_alone():
    stages = Paper()
    synthesise(stages, POLICY, Synthesis(filtering=OPEN, turns=2), World())
    seen = [
        stage
        for stage, given in zip(stages.asked, stages.given, strict=True)
        if "follow" in json.dumps([getattr(each, "model_dump", str)() for each in given])
        or any(isinstance(each, synthesis.Following) for each in given)
    ]
    assert seen == ["follow_up"]


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("ALPACAFARM_STORE", str(tmp_path))
    return Store(tmp_path)


@pytest.fixture
def base(store) -> Policy:
    return tasks.base(world())


def world() -> Pretrained:
    return pretrained("world")


def few(count: int) -> Synthesis:
    """A few draws of the world's base, answers of any length."""
    return Synthesis(
        inventing=Inventing(shards=(Shard(count=count),), inputs=4, max_tokens=64, words=()),
        answering=Sampling(temperature=0.0, max_tokens=8),
        filtering=OPEN.replace(unfinished=True),
    )


def test_one_more_draw_buys_one_more_row_and_all_else_is_cached(store, base):
    made = tasks.synthesise(base, few(12), World())
    before = store.read(made)
    ran = len(store.journal())
    assert tasks.synthesise(base, few(12), World()) == made
    assert not any(event["ran"] for event in store.journal()[ran:])
    samples = tasks.stage.ledger().counts().samples
    after = store.read(tasks.synthesise(base, few(13), World()))
    assert after.height - before.height in (0, 1)
    assert set(before["prompt"]) <= set(after["prompt"])
    assert tasks.stage.ledger().counts().samples - samples <= 2  # the draw, and its answer


def test_what_each_filter_removed_lies_beside_the_rows(store, base):
    tasks.synthesise(base, few(12), World())
    (sifted,) = store.all("sifted")
    table = pl.read_csv(store.path(sifted.artifact) / "removed.csv")
    assert dict(table.iter_rows()) == sifted.notes["removed"]
    assert sifted.notes["kept"] + table["removed"].sum() == sifted.rows


def test_a_policy_that_decodes_in_a_way_of_its_own_does_not_invent(store, base):
    with pytest.raises(BadInput, match="decodes by tagged, and instructions are drawn plainly"):
        tasks.invent(base.replace(decode=Tagged()), Inventing(shards=(Shard(count=1),)))
