"""The stages from answers to pairs: prompts shared out, answers compared, winners over losers."""

import time
from math import nan

import polars as pl
import pytest

import tasks
from alpacafarm_core.artifacts import Candidates, Comparisons, Instructions, Scores
from alpacafarm_core.errors import TrainingFailed
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.settings import Ranking, Rejection, Truth, Winning
from alpacafarm_core.setup import Setup
from alpacafarm_core.store import Made
from alpacafarm_core.weights import RewardModel
from alpacafarm_core.world.utility import utility
from flows.planning import Planner
from tests.paper_farm import numbered
from tests.tiny import frame

ANSWERED = Candidates(key=numbered(0xC))
ASKED = ("Name a red fruit.", "")
OUTPUTS = ("An apple is a red fruit.", "The sky is blue.", "apple")


@pytest.fixture
def answers(store):
    """Three answers to one prompt, in the store."""
    rows = [
        {"instruction": ASKED[0], "input": ASKED[1], "output": output, "sample_index": number}
        for number, output in enumerate(OUTPUTS)
    ]
    made = Made(frame(Candidates, rows))
    store.write(ANSWERED, made, Recipe.of("made", 1, {}), time.time())
    return ANSWERED


def test_a_judge_with_a_number_for_each_answer_compares_them_by_differences(store, answers):
    rows = store.read(tasks.compare(answers, Truth()))
    worth = [utility(*ASKED, output) for output in OUTPUTS]
    expected = [ours - theirs for ours in worth for theirs in worth]
    assert rows["logit"].to_list() == pytest.approx(expected)
    assert rows.schema == Comparisons.columns
    assert rows["judge"].unique().to_list() == ["truth"]


def test_answers_compared_are_ranked_with_their_wins(store, answers):
    (row,) = store.read(tasks.rank(tasks.compare(answers, Truth()), Winning())).rows(named=True)
    worth = {output: utility(*ASKED, output) for output in OUTPUTS}
    assert row["output_1"] == max(worth, key=worth.__getitem__)
    assert row["output_2"] == min(worth, key=worth.__getitem__)
    assert row["win_1"] > 0.5 > row["win_2"]


def test_a_reward_that_is_no_number_is_refused_with_row_and_judge(store, answers, monkeypatch):
    judge = RewardModel(key=numbered(0xE))
    rows = store.read(answers).with_columns(score=pl.Series([1.0, nan, 2.0]), judge=pl.lit("j"))
    monkeypatch.setattr(tasks.judge, "written", lambda *_: iter([rows]))
    monkeypatch.setattr(type(store), "weights", type(store).path)
    with pytest.raises(TrainingFailed, match=f"row 1: {judge.folder} gives the score nan"):
        tasks.score(answers, judge)


def test_pairs_in_two_places_are_counted_in_the_manifest(store, answers):
    scored, places = tasks.score(answers, Truth()), Ranking(rejected=(-1, 3, 2))
    ranked = store.manifest(tasks.rank(scored, places))
    assert (ranked.rows, ranked.notes) == (2, {"repeated": 1})
    assert store.manifest(tasks.rank(scored, Ranking())).notes == {}


def test_each_way_of_pairing_has_a_key_of_its_own():
    scored = Scores(key=numbered(0x5))
    ways = [Ranking(), Ranking(rejected=3), Ranking(rejected=(-1, 3)), Rejection(), Winning()]
    assert len({tasks.rank.receipt(scored, way) for way in ways}) == len(ways)


def test_shares_of_instructions_are_tables_of_their_own(store):
    prompts = Instructions(key=numbered(0x1))
    rows = [{"instruction": name, "input": "", "dataset": "d"} for name in "abcde"]
    made = Made(frame(Instructions, rows))
    store.write(prompts, made, Recipe.of("made", 1, {}), time.time())
    shares = [store.read(tasks.share(prompts, number, 2)) for number in (1, 2)]
    assert [share["instruction"].to_list() for share in shares] == [["a", "c", "e"], ["b", "d"]]


def test_a_plan_names_the_same_comparisons_and_shares(store, answers):
    planner = Planner(Setup(scale="smoke"), store, tasks.stage.ledger())
    assert planner.compare(answers, Truth()) == tasks.compare(answers, Truth())
    prompts = Instructions(key=numbered(0x1))
    two = [{"instruction": name, "input": ""} for name in "ab"]
    planner.tables[prompts.folder] = frame(Instructions, two)
    assert planner.share(prompts, 1, 2) == tasks.share.receipt(prompts, 1, 2)
