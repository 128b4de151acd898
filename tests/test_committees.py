"""Committees: how scores become one, who sits on them, and who is fitted for them."""

import time

import polars as pl
import pytest
from pydantic import ValidationError

import tasks
from alpacafarm_core.artifacts import Candidates, Scores, Uncertain
from alpacafarm_core.committees import Ensemble, Verdict, agreed
from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.proximal import ProximalObjective
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.reward import _begun, fit
from alpacafarm_core.scoring import scorer
from alpacafarm_core.select import agreed as in_one_table
from alpacafarm_core.settings import Fitting, Rule, Sampling, Training
from alpacafarm_core.store import Made
from alpacafarm_core.train.bench import seated
from alpacafarm_core.weights import BestOf, Committee, Policy, RewardModel
from tasks.reward import lying
from tests.paper_farm import START, numbered
from tests.test_soup import lay
from tests.tiny import ANSWERS, PROMPTS, frame, preferences, tiny_model

HERE = Machine(device="cpu", precision="float32")
QUICK = Fitting(
    training=Training(learning_rate=1e-3, epochs=1, batch=8, max_length=128), above_length=False
)


@pytest.mark.parametrize(
    ("verdict", "score"),
    [
        (Verdict(), 2.0),
        (Verdict(combine="lowest"), 1.0),
        (Verdict(combine="cautious"), 1.0),
        (Verdict(combine="cautious", caution=0.5), 1.5),
        (Verdict(combine="cautious", caution=0), 2.0),
    ],
)
def test_the_scores_of_three_judges_become_one(verdict, score):
    # 1, 2, 3: the squares of the deviations are 1, 0, 1, so the spread is (2 / (3 - 1)) ** 0.5.
    assert agreed([1.0, 3.0, 2.0], verdict) == (score, 1.0)


def test_one_judge_has_no_spread_and_nobody_no_verdict():
    assert agreed([0.3], Verdict(combine="cautious")) == (0.3, 0.0)
    with pytest.raises(BadInput, match="give it at least one"):
        agreed([], Verdict())


def test_no_member_sits_twice():
    one, other = RewardModel(key=numbered(1)), RewardModel(key=numbered(2))
    assert Committee(members=(one, other)).members == (one, other)
    with pytest.raises(BadInput, match=f"{one.key} sits twice"):
        Committee(members=(one, other, one))
    with pytest.raises(ValidationError):
        Committee(members=())


def test_a_policy_that_decodes_with_one_reward_model_is_said_as_before():
    reward = RewardModel(key=numbered(1))
    alone = BestOf(n=4, reward=reward).model_dump(mode="json")
    assert alone["reward"] == {"key": reward.key}
    many = BestOf(n=4, reward=Committee(members=(reward,)))
    assert BestOf.model_validate_json(many.model_dump_json()) == many


def test_members_are_fitted_alike_but_for_their_seeds_and_the_first_as_it_would_be_alone():
    alone = Fitting().seeded(7)
    members = alone.replace(committee=Ensemble(members=3)).members()
    assert members[0] == alone
    assert [one.training.seed for one in members] == [7, 8, 9]
    assert {one.seed for one in members} == {7}  # of the held-out pairs
    assert members[:2] == alone.replace(committee=Ensemble(members=2)).members()


def test_rates_and_shares_are_taken_in_turn():
    many = Ensemble(members=3, rates=(7e-6, 6e-6), shares=(0.3, 0.6, 0.9))
    members = Fitting(committee=many).members()
    assert [one.training.learning_rate for one in members] == [7e-6, 6e-6, 7e-6]
    assert [one.share for one in members] == [0.3, 0.6, 0.9]
    for wrong in ({"rates": (0.0,)}, {"shares": (1.5,)}, {"shares": (0.0,)}, {"members": 1}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            Ensemble(**wrong)


def test_models_whose_weights_are_averaged_begin_with_one_head():
    for seed in (0, 42):
        members = Fitting(committee=Ensemble(members=3, combine="weights")).seeded(seed).members()
        assert [one.head for one in members] == [None, seed, seed]
    members = Fitting(head=5, committee=Ensemble(members=2, combine="weights")).members()
    assert [one.head for one in members] == [5, 5]
    assert [one.head for one in Fitting(committee=Ensemble()).members()] == [None] * 5


# --- on a tiny model ---


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("start") / "policy")


def fitted(start, out, **changed):
    notes = fit(start, out, preferences(), QUICK.replace(**changed), HERE)
    return out, notes


def rewards(judges, rows):
    with scorer(judges, HERE) as opened:
        return opened.score(rows)


ROWS = frame(
    Candidates,
    [
        {"instruction": instruction, "input": text, "output": answer, "tokenizer": ""}
        for (instruction, text), answer in zip(PROMPTS, ANSWERS, strict=True)
    ],
)


def test_a_head_may_be_the_same_where_the_order_of_pairs_is_not(start, tmp_path):
    heads = [
        _begun(start, QUICK.replace(training=QUICK.training.replace(seed=seed), head=head), HERE)
        for seed, head in ((1, None), (2, 1), (2, None))
    ]
    first, same, other = (each.model.score.weight for each in heads)
    assert first.equal(same) and not first.equal(other)


def test_a_share_of_the_pairs_is_learned_from_and_all_held_out_ones_are_tested(start, tmp_path):
    _, whole = fitted(start, tmp_path / "whole", held_out=2)
    _, half = fitted(start, tmp_path / "half", held_out=2, share=0.5)
    assert whole["rows"] == 15 and half["rows"] == 8
    assert whole["held_out_rows"] == half["held_out_rows"] == 1


@pytest.fixture(scope="module")
def members(start, tmp_path_factory):
    """Three reward models."""
    folder = tmp_path_factory.mktemp("rewards")
    return [
        fitted(start, folder / f"reward{seed}", training=QUICK.training.replace(seed=seed))[0]
        for seed in (1, 2, 3)
    ]


@pytest.fixture
def seats(store, start, members):
    """A committee of them in a store, with the policy and its answers."""
    keys = [RewardModel(key=numbered(at)) for at in range(1, 4)]
    for key, folder in zip(keys, members, strict=True):
        lay(store, key, folder)
    lay(store, START.policy, start)
    return Committee(members=tuple(keys), verdict=Verdict(combine="cautious", caution=0.5))


def test_a_committee_scores_answers_by_its_members_scores(store, seats, members):
    candidates = candidates_in(store)
    made = tasks.score(candidates, seats)
    assert isinstance(made, Uncertain)
    found = store.read(made)
    each = [rewards(folder, ROWS) for folder in members]
    expected = [agreed(given, seats.verdict) for given in zip(*each, strict=True)]
    assert found["score"].to_list() == pytest.approx([one.score for one in expected])
    assert found["spread"].to_list() == pytest.approx([one.spread for one in expected])
    assert found["judge"][0].startswith("cautious of reward_model/")


def test_a_larger_committee_takes_in_the_scores_of_a_smaller_one(store, seats):
    candidates = candidates_in(store)
    tasks.score(candidates, seats.replace(members=seats.members[:2]))
    before = len(store.all("scores"))
    tasks.score(candidates, seats)
    assert (before, len(store.all("scores"))) == (2, 3)


def test_uncertain_scores_can_be_selected_from_as_any(store, seats):
    scored = tasks.score(candidates_in(store), seats)
    assert store.read(tasks.select(scored, Rule(keep="best"))).height == len(PROMPTS)


def candidates_in(store):
    """The answers as an artifact."""
    candidates = Candidates(key=numbered(0xCA))
    if not store.has(candidates):
        store.write(candidates, Made(ROWS), Recipe.of("laid", 1, {}), time.time())
    return candidates


def test_scores_of_other_answers_are_no_verdict():
    scored = ROWS.with_columns(score=pl.lit(1.0), judge=pl.lit("a"))
    other = scored.with_columns(output=pl.lit("x"), judge=pl.lit("b"))
    with pytest.raises(BadInput, match="a and b scored other answers; score the same table"):
        in_one_table([scored, other], Verdict())


def test_best_of_n_and_rollouts_ask_the_same_bench(store, seats, members):
    bench = seated(lying(seats), HERE)
    rows = rewards(lying(seats), ROWS)
    each = [rewards(folder, ROWS) for folder in members]
    assert rows == pytest.approx(
        [agreed(given, seats.verdict).score for given in zip(*each, strict=True)]
    )
    assert len(bench.members) == 3
    assert rewards(lying(seats.members[0]), ROWS) == each[0]


def test_best_of_n_keeps_the_answer_its_committee_likes_most(store, seats):
    prompts = ROWS.select("instruction", "input").with_columns(dataset=pl.lit("toy"))
    store.write(START.instructions, Made(prompts), Recipe.of("laid", 1, {}), time.time())
    sampling = Sampling(n=3, temperature=1.0, max_tokens=6)
    drawn = tasks.generate(START.policy, START.instructions, sampling)
    choosing = START.policy.replace(decode=BestOf(n=3, reward=seats))
    kept = tasks.generate(choosing, START.instructions, sampling.replace(n=1))
    best = store.read(tasks.select(tasks.score(drawn, seats), Rule(keep="best")))
    chosen = store.read(kept).select("instruction", "input", "output").sort(pl.all())
    assert chosen.equals(best.select("instruction", "input", "output").sort(pl.all()))


def test_a_fitting_with_a_committee_fits_each_member_in_a_stage_of_its_own(store, seats):
    labels = labels_in(store)
    alone = tasks.fit_reward(START.policy, labels, QUICK)
    many = QUICK.replace(committee=Ensemble(members=2, combine="lowest"))
    made = tasks.fit_reward(START.policy, labels, many)
    assert isinstance(made, Committee) and made.members[0] == alone
    assert made.verdict == Verdict(combine="lowest")
    warm = QUICK.replace(committee=Ensemble(members=2, combine="weights"))
    soup = tasks.fit_reward(START.policy, labels, warm)
    assert isinstance(soup, RewardModel)
    parents = store.manifest(soup).notes["parents"]
    assert parents[0] == alone.folder and parents[1] != made.members[1].folder


def labels_in(store):
    """The pairs as an artifact."""
    store.write(START.preferences, Made(preferences()), Recipe.of("laid", 1, {}), time.time())
    return START.preferences


def test_a_policy_is_trained_on_what_a_committee_says(store, seats):
    prompts = ROWS.select("instruction", "input").with_columns(dataset=pl.lit("toy"))
    store.write(START.instructions, Made(prompts), Recipe.of("laid", 1, {}), time.time())
    objective = ProximalObjective(
        steps=1,
        rollouts=4,
        minibatch=4,
        inner_epochs=1,
        sampling=Sampling(temperature=1.0, max_tokens=4),
        training=Training(learning_rate=1e-3, max_length=128),
    )
    made = tasks.roll_out(START.policy, seats, START.instructions, objective)
    assert isinstance(made, Policy)
    inputs = store.manifest(made).recipe.inputs
    assert inputs["reward"] == [member.folder for member in seats.members]
    assert isinstance(tasks.score(candidates_in(store), seats.members[0]), Scores)
