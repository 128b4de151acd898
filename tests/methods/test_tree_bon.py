"""TreeBoN: its steps, its settings, and its trees as cached stages."""

import shutil
import time
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from pydantic import ValidationError

import tasks
from alpacafarm_core import composing, decoding
from alpacafarm_core.artifacts import Artifact, Instructions
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.sampler import Sample
from alpacafarm_core.settings import Sampling
from alpacafarm_core.setup import Setup
from alpacafarm_core.store import Made, Store
from alpacafarm_core.weights import BestOf, Committee, Plain, Policy, RewardModel, Tagged, Tree
from flows.planning import Planner
from tests.methods import defaults_of, steps_of
from tests.paper_farm import START, PaperFarm, numbered
from tests.tiny import PROMPTS, frame, tiny_model

PAPER, RECIPE = "Qiu et al. 2024", "AlpacaFarm's DPO recipe"
POLICY = Policy(key=numbered(1))
MODELS = {
    "dpo": Policy(key=numbered(2)),
    "dpo_reference": POLICY,
    "reward": RewardModel(key=numbered(3)),
}
SAMPLING = Sampling(max_tokens=10, temperature=0.2, seed=7)


def test_its_steps():
    assert steps_of("tree_bon") == ["fit_reward(sft, preferences)", "train(sft, preferences)"]


def test_it_keeps_the_weights_and_changes_the_decoding():
    policy = METHODS["tree_bon"].at("small").optimise(PaperFarm(), START)
    assert policy.key == START.policy.key and isinstance(policy.decode, Tree)
    assert policy.decode.dpo_reference == START.policy
    assert policy.decode.dpo != START.policy
    assert (policy.decode.width, policy.decode.children, policy.decode.layers) == (16, 4, 4)


def test_its_ranking_policy_is_the_one_that_dpo_trains():
    for scale in ("smoke", "small", "paper"):
        assert METHODS["tree_bon"].at(scale).objective == DPO.at(scale)


def test_its_defaults_are_the_papers():
    unsure = f"{PAPER}, from memory: unverified"
    found = defaults_of("tree_bon")
    assert found["tree.width"] == (128, PAPER)
    assert found["tree.layers"] == (4, unsure) and found["tree.children"] == (4, unsure)
    assert found["tree.partial"] == ("weighted", f"{PAPER}: their weighted implicit reward")
    assert found["tree.temperature"] == (
        1.0, "AlpacaFarm's best-of-n; the paper's is not known",
    )  # fmt: skip
    assert found["objective.training.learning_rate"] == (1e-6, RECIPE)


def test_a_policy_that_answers_behind_a_reward_token_is_refused():
    tagged = START.replace(policy=START.policy.replace(decode=Tagged()))
    with pytest.raises(BadInput, match="start from a policy that decodes plainly"):
        METHODS["tree_bon"]().optimise(PaperFarm(), tagged)


def test_children_that_do_not_divide_the_width_are_refused_by_name():
    with pytest.raises(ValidationError, match="children 3 does not divide width 16"):
        METHODS["tree_bon"](tree={"width": 16, "children": 3})


class Planned:
    """The cached stages, of which nothing is made: receipts, and which stages were asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __getattr__(self, verb: str):
        def ask(*arguments, **named):
            made = getattr(tasks, verb).receipt(*arguments, **named)
            self.asked.append((verb, made.key))
            return made

        return ask


def stages_of(tree: dict, sampling: Sampling = SAMPLING) -> list[tuple[str, str]]:
    """Verb and key of each stage of a search."""
    plan = Planned()
    policy = POLICY.replace(decode=Tree(**({"width": 8} | MODELS | tree)))
    composing.generate(plan, policy, START.instructions, sampling)
    return plan.asked


def shared(one: dict, other: dict, sampling: Sampling = SAMPLING) -> list[str]:
    """Verbs of the stages that two searches have in common."""
    known = {key for _, key in stages_of(other, sampling)}
    return [verb for verb, key in stages_of(one) if key in known]


def test_a_search_is_a_few_stages_a_layer():
    cut = ["weigh", "prune", "grow"]
    assert [verb for verb, _ in stages_of({"layers": 3})] == [
        "grow", *cut, *cut, "weigh", "choose",
    ]  # fmt: skip
    assert [verb for verb, _ in stages_of({"layers": 1})] == ["grow", "weigh", "choose"]
    pooled = stages_of({"layers": 2, "keep_finished_pool": True})
    assert [verb for verb, _ in pooled] == ["grow", *cut, "leaves", "weigh", "choose"]


def test_trees_that_begin_alike_share_layers():
    assert shared({"children": 4}, {"children": 2}) == ["grow", "weigh"]
    assert shared({"partial": "weighted"}, {"partial": "dpo_sum"}) == ["grow"]
    assert shared({}, {"temperature": 0.5}) == []
    # The last choice alone depends on the reward model.
    assert len(shared({}, {"reward": RewardModel(key=numbered(9))})) == len(stages_of({})) - 2
    # With 10 tokens five layers have segments of 2, four layers of 3, 3, 2, 2.
    assert shared({"layers": 4}, {"layers": 5}) == []


def test_one_more_layer_of_the_same_segment_reuses_all_the_earlier_ones():
    longer = SAMPLING.replace(max_tokens=15)
    found = shared({"layers": 2}, {"layers": 3}, longer)
    assert found == ["grow", "weigh", "prune", "grow"]


def test_a_decay_matters_only_to_the_score_that_decays():
    assert stages_of({"decay": 0.5}) == stages_of({"decay": 0.9})
    decayed = {"partial": "exp_decay"}
    assert stages_of(decayed | {"decay": 0.5}) != stages_of(decayed | {"decay": 0.9})


def test_more_layers_than_tokens_are_refused():
    with pytest.raises(BadInput, match=r"layers 11 of max_tokens 10 .* raise max_tokens"):
        stages_of({"layers": 11})


def test_a_policy_that_draws_whole_answers_has_the_key_it_always_had():
    plan = Planned()
    best = POLICY.replace(decode=BestOf(n=4, reward=MODELS["reward"]))
    made = [
        composing.generate(plan, policy, START.instructions, SAMPLING) for policy in (POLICY, best)
    ]
    assert [verb for verb, _ in plan.asked] == ["sample"] * 2
    assert [each.key for each in made] == ["4260b75a7b61934b", "44738eb346a0a358"]


def test_a_tree_survives_json():
    policy = POLICY.replace(decode=Tree(**MODELS))
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
    assert policy.decode.pruning.survivors == 32
    assert isinstance(policy.replace(decode=Plain()).decode, Plain)


def test_what_ranks_holds_no_more_than_it_reads():
    tree = Tree(**MODELS)
    assert tree.ranker.reward is None and tree.judge.dpo is None
    assert tree.replace(partial="simpo").ranker.dpo_reference is None
    assert tree.replace(partial="random").ranker.dpo is None
    assert tree.replace(partial="rm_prefix").ranker == tree.judge


def laid(store: Store, artifact: Artifact, content: pl.DataFrame | Path) -> None:
    """An artifact as a stage would have made it; a folder is copied."""
    draft = content
    if isinstance(content, Path):
        draft = store.root / f"{artifact.kind}-{artifact.key}"
        shutil.copytree(content, draft)
    store.write(artifact, Made(draft), Recipe.of("laid", 1, {}), time.time())


@pytest.fixture
def world(store, tiny, scorer) -> Store:
    """A store with two policies, a reward model and four prompts."""
    laid(store, POLICY, tiny)
    laid(store, MODELS["dpo"], tiny_model(store.root / "learned", seed=1))
    laid(store, MODELS["reward"], scorer)
    rows = [{"instruction": a, "input": b, "dataset": "world"} for a, b in PROMPTS]
    laid(store, START.instructions, frame(Instructions, rows))
    return store


def ran(store: Store) -> list[str]:
    return [event["stage"] for event in store.journal() if event["ran"]]


NARROW = Tree(**(MODELS | {"width": 4, "children": 2, "layers": 3, "top_p": 0.9}))
SHORT = Sampling(max_tokens=9, seed=1)


def test_a_search_is_made_once_and_says_what_it_took(world):
    policy = POLICY.replace(decode=NARROW)
    answers = tasks.generate(policy, START.instructions, SHORT)
    notes = world.manifest(answers).notes
    grown = [made for made in world.all("branches") if made.recipe.stage == "grow"]
    tables = sorted((world.read(made.artifact) for made in grown), key=lambda t: t["layer"][0])
    assert [table["layer"].unique().item() for table in tables] == [1, 2, 3]
    *cut, last = tables
    fresh = [table.filter(pl.col("sampled") > 0) for table in cut]
    assert notes == {
        "sampled_tokens": sum(int(table["sampled"].sum()) for table in tables),
        "partial_scores": sum(table.height for table in fresh),
        "scored_tokens": sum(int(table["output_ids"].list.len().sum()) for table in fresh),
        "reward_calls": last.height,
    }
    assert notes["sampled_tokens"] <= 4 * 9 * len(PROMPTS)
    read = world.read(answers)
    assert read["max_tokens"].to_list() == [9] * 4 and read["top_p"].to_list() == [0.9] * 4
    made = ran(world)
    assert tasks.generate(policy, START.instructions, SHORT) == answers
    assert ran(world) == made


def test_without_an_end_the_budget_is_that_of_best_of_n(world, monkeypatch):
    monkeypatch.setattr(
        decoding.TransformersSampler, "_sample", lambda _, drawn, __: endless(drawn)
    )
    policy = POLICY.replace(decode=NARROW)
    notes = world.manifest(tasks.generate(policy, START.instructions, SHORT)).notes
    prompts, width, layers = len(PROMPTS), 4, 3
    assert notes["sampled_tokens"] == prompts * width * 9
    assert notes["partial_scores"] == prompts * width * (layers - 1)
    assert notes["reward_calls"] == prompts * width


def endless(drawn: NamedTuple) -> Sample:
    """A segment of three tokens, none of which ends the answer."""
    return Sample([*(token for token in drawn.ids if token != 1), 5, 5, 5][:3], "length")


def test_another_ranking_draws_no_root_again(world):
    for changes in ({}, {"partial": "rm_prefix"}, {"partial": "random", "refill_finished": True}):
        decode = NARROW.replace(keep_finished_pool=True, **changes)
        tasks.generate(POLICY.replace(decode=decode), START.instructions, SHORT)
    roots = [m for m in world.all("branches") if m.recipe.settings.get("parents", 0) is None]
    assert len(roots) == 1
    assert ran(world).count("choose") == 3 and ran(world).count("leaves") == 3
    calls = [m.notes["reward_calls"] for m in world.all("candidates")]
    assert max(calls) > 4 * len(PROMPTS)  # prefixes too


def test_a_committee_picks_too(world, scorer):
    other = RewardModel(key=numbered(4))
    laid(world, other, scorer)
    both = Committee(members=(MODELS["reward"], other))
    plain, judged = (
        tasks.generate(
            POLICY.replace(decode=NARROW.replace(reward=reward)), START.instructions, SHORT
        )
        for reward in (MODELS["reward"], both)
    )
    assert world.read(plain)["output"].equals(world.read(judged)["output"])
    notes = [world.manifest(each).notes["reward_calls"] for each in (plain, judged)]
    assert notes[1] == 2 * notes[0]


def test_a_plan_of_a_search_names_its_stages_and_its_answers(world):
    planner = Planner(Setup(scale="smoke"), world, Ledger(world.root / "ledger.sqlite"))
    policy = POLICY.replace(decode=NARROW.replace(keep_finished_pool=True))
    answers = planner.generate(policy, START.instructions, SHORT)
    stages = [line.stage for line in planner.lines.values()]
    assert stages.count("grow") == 3 and stages[-1] == "choose"
    assert planner.lines[answers.folder].rows == len(PROMPTS)
    assert tasks.generate(policy, START.instructions, SHORT) == answers
