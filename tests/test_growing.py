"""Search trees on a tiny Llama: layers as rows, what is remembered, what equals best-of-n."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core import branches, growing
from alpacafarm_core.artifacts import Branches, Candidates, Instructions
from alpacafarm_core.errors import BadInput
from alpacafarm_core.generate import best_of, generate
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.machine import Machine
from alpacafarm_core.sampler import Batch, Sample
from alpacafarm_core.settings import Sampling
from alpacafarm_core.train.models import load_policy
from alpacafarm_core.train.prefixes import Readers, ranked
from alpacafarm_core.trees import Branching, Pruning, segments
from alpacafarm_core.weights import BestOf, Policy, Ranker, RewardModel
from tests.tiny import PROMPTS, frame, tiny_model

EXACT = Machine(device="cpu", precision="float32", engine="transformers", micro_batch=64)
REWARD = RewardModel(key="0" * 16)
DPO = Ranker(partial="weighted", dpo=Policy(key="1" * 16), dpo_reference=Policy(key="2" * 16))
JUDGE = Ranker(partial="rm_prefix", reward=REWARD)
TREE = Branching(width=8, children=4, layers=3)
ASKED = Sampling(n=8, temperature=1.0, max_tokens=12, seed=5)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another policy with the same tokenizer."""
    return tiny_model(tmp_path_factory.mktemp("learned"), seed=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def prompts() -> pl.DataFrame:
    rows = [{"instruction": a, "input": b, "dataset": "world"} for a, b in PROMPTS]
    return frame(Instructions, rows).with_row_index("row")


def grow(policy: Path, parents: pl.DataFrame | None, tokens: int, ledger: Ledger) -> pl.DataFrame:
    kept = None if parents is None else parents.filter("survives")
    asked = ASKED.replace(max_tokens=tokens)
    return growing.grown(policy, (prompts(), kept), asked, ledger, EXACT)


def weigh(rows: pl.DataFrame, readers: Readers, ranker: Ranker) -> pl.DataFrame:
    return pl.concat(ranked(readers, iter([rows]), ranker, EXACT))


def layers_of(
    policy: Path, ledger: Ledger, readers: Readers, ranker: Ranker = DPO, tree: Branching = TREE
) -> list[pl.DataFrame]:
    """Every layer of the trees, all but the last with its scores and survivors."""
    found: list[pl.DataFrame] = []
    for tokens in segments(ASKED.max_tokens, tree.layers):
        found.append(grow(policy, found[-1] if found else None, tokens, ledger))
        if len(found) < tree.layers:
            found[-1] = branches.pruned(weigh(found[-1], readers, ranker), tree.pruning)
    return found


@pytest.fixture(scope="module")
def layers(tiny, learned, tmp_path_factory) -> list[pl.DataFrame]:
    ledger = Ledger(tmp_path_factory.mktemp("layers") / "ledger.sqlite")
    return layers_of(tiny, ledger, Readers(learned, tiny))


def test_a_tree_of_one_layer_is_best_of_n_to_the_bit(tiny, scorer, ledger, tmp_path):
    roots = grow(tiny, None, ASKED.max_tokens, ledger)
    found = branches.chosen(weigh(roots, Readers(reward=scorer), JUDGE), width=8)
    how = (ASKED.replace(n=1, temperature=0.3), BestOf(n=8, reward=REWARD))
    other = Ledger(tmp_path / "other.sqlite")
    kept = best_of((tiny, scorer), prompts().drop("row"), how, other, EXACT)
    assert found.equals(kept.drop("score"))


def test_roots_are_the_samples_of_a_plain_generate(tiny, ledger, monkeypatch):
    plain = generate(tiny, prompts().drop("row"), ASKED, ledger, EXACT)
    monkeypatch.setattr(growing, "open_sampler", None)  # all of them are in the ledger
    roots = grow(tiny, None, ASKED.max_tokens, ledger)
    assert roots.select(list(Candidates.columns)).equals(plain)
    assert roots["root"].to_list() == [*range(8)] * 4 and roots["layer"].unique().to_list() == [1]


def test_two_answers_to_a_prompt_are_of_two_trees(tiny, scorer, ledger, tmp_path):
    roots = grow(tiny, None, ASKED.max_tokens, ledger)
    found = branches.chosen(weigh(roots, Readers(reward=scorer), JUDGE), width=4)
    how = (ASKED.replace(n=2), BestOf(n=4, reward=REWARD))
    kept = best_of((tiny, scorer), prompts().drop("row"), how, ledger, EXACT)
    assert found["output_ids"].to_list() == kept["output_ids"].to_list()
    assert found["sample_index"].to_list() == [0, 1] * 4


def test_a_layer_has_its_columns(layers):
    for number, layer in enumerate(layers, 1):
        assert dict(layer.schema) == Branches.columns
        assert layer["layer"].unique().to_list() == [number]
        assert layer["max_tokens"].unique().to_list() == [4 * number]


def test_every_branch_begins_as_its_parent_does_and_ends_anew(layers):
    for before, after in pairwise(layers):
        known = before.select("row", "sample_index", "output_ids").iter_rows()
        parents = {(row, index): ids for row, index, ids in known}
        for row, parent, ids, sampled in after.select(
            "row", "parent", "output_ids", "sampled"
        ).iter_rows():
            assert ids[: len(ids) - sampled] == parents[row, parent]
            assert sampled <= 4


def test_few_roots_have_leaves(layers):
    ancestors = layers[-1].group_by("row").agg(pl.col("root").n_unique())
    assert ancestors["root"].max() <= TREE.survivors


def test_a_layer_is_never_wider_than_the_first_and_takes_no_more_tokens(layers):
    for layer in layers:
        sizes = layer.group_by("row").agg(pl.len(), pl.col("sampled").sum())
        assert sizes["len"].max() <= 8 and sizes["sampled"].max() <= 8 * 4


def test_only_ranks_matter_to_a_tree(layers):
    whole = layers[0]
    for increasing in (pl.col("score") * 3 - 2, pl.col("score").exp(), pl.col("score").arctan()):
        assert (
            branches.pruned(whole.with_columns(score=increasing), TREE.pruning)
            .drop("score")
            .equals(whole.drop("score"))
        )


def test_a_policy_ranked_against_itself_keeps_the_first_branches(tiny, layers):
    same = weigh(layers[0], Readers(tiny, tiny), DPO.replace(dpo=DPO.dpo_reference))
    assert same["score"].unique().to_list() == [0.0]
    kept = branches.pruned(same, TREE.pruning).filter("survives")
    assert kept["sample_index"].to_list() == [0, 1] * 4


class Scribe:
    """An engine that answers with ids made of the seed; every third answer ends."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def stream(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[list[Sample]]:
        for batch in batches:
            self.asked += batch.prompts
            yield [self.answer(seed, sampling.max_tokens) for seed in batch.seeds]

    def answer(self, seed: int, most: int) -> Sample:
        ids = [10 + seed % 300, 10 + seed // 300 % 300, *[7] * most][:most]
        return Sample([*ids[:1], 1], "stop") if seed % 3 == 0 else Sample(ids, "length")

    def close(self) -> None:
        pass


@pytest.fixture
def scribe(monkeypatch: pytest.MonkeyPatch) -> Scribe:
    engine = Scribe()
    monkeypatch.setattr(growing, "open_sampler", lambda *_: engine)
    return engine


def random_layers(tiny: Path, ledger: Ledger, **changes: object) -> list[pl.DataFrame]:
    tree = TREE.replace(**changes)
    return layers_of(tiny, ledger, Readers(), Ranker(partial="random"), tree)


def test_children_go_on_from_the_ids_of_their_parents(tiny, ledger, scribe):
    first, second, _ = random_layers(tiny, ledger)
    asked = scribe.asked[first.height :]
    prefixes = first.filter("survives", finish_reason="length")["output_ids"].to_list()
    for number, ids in enumerate(asked[: (second["sampled"] > 0).sum()]):
        parent = prefixes[number // 4]
        assert ids[-len(parent) :] == parent


def test_a_finished_branch_is_carried_on_once_at_no_cost(tiny, ledger, scribe):
    first, second, _ = random_layers(tiny, ledger)
    ended = first.filter("survives", finish_reason="stop")
    assert ended.height
    carried = second.filter(pl.col("sampled") == 0)
    assert carried["output_ids"].to_list() == ended["output_ids"].to_list()
    assert carried["parent"].to_list() == ended["sample_index"].to_list()
    assert ended["children"].unique().to_list() == [0]


def test_a_branch_that_was_carried_on_keeps_its_score_until_another_ranks_it(tiny, ledger, scribe):
    first, second, _ = random_layers(tiny, ledger)
    ended = first.filter("survives", finish_reason="stop")
    carried = second.filter(pl.col("sampled") == 0)
    assert carried["score"].to_list() == ended["score"].to_list()
    kept = second.with_columns(score=pl.when(pl.col("sampled") == 0).then(99.0).otherwise("score"))
    again = weigh(kept, Readers(), Ranker(partial="random"))
    assert again.equals(kept)  # nobody is asked twice
    other = weigh(kept, Readers(), Ranker(partial="random", decay=0.5))
    assert other["score"].max() < 1


def test_refilled_layers_are_as_wide_as_the_first(tiny, ledger, scribe):
    plain = random_layers(tiny, ledger)[-1].group_by("row").len()["len"]
    full = random_layers(tiny, ledger, refill_finished=True)[-1].group_by("row").len()["len"]
    assert plain.min() < 8 and full.max() == 8 and full.mean() > plain.mean()


def test_the_pool_has_every_finished_branch_once_and_never_lowers_the_best(tiny, ledger, scribe):
    layers = random_layers(tiny, ledger)
    pool = branches.leaves(layers)
    last = layers[-1]
    ended = {
        (row["row"], row["own_seed"])
        for layer in layers[:-1]
        for row in layer.filter(finish_reason="stop").to_dicts()
    }
    keys = list(pool.select("row", "own_seed").iter_rows())
    assert len(keys) == len(set(keys))
    assert set(keys) == ended | set(last.select("row", "own_seed").iter_rows())
    assert pool["max_tokens"].unique().to_list() == [12]
    worth = pl.col("own_seed").mod(1000).cast(pl.Float64)
    best = [rows.group_by("row").agg(worth.max()).sort("row")["own_seed"] for rows in (last, pool)]
    assert (best[1] >= best[0]).all()


def test_branches_with_equal_tokens_grow_differently(tiny, ledger, scribe, monkeypatch):
    monkeypatch.setattr(scribe, "answer", lambda *_: Sample([50, 51], "length"))
    first = grow(tiny, None, 2, ledger)
    kept = first.with_columns(survives=pl.lit(True), children=pl.lit(1), score=pl.lit(0.0))
    monkeypatch.undo()
    monkeypatch.setattr(growing, "open_sampler", lambda *_: Scribe())
    second = grow(tiny, kept, 2, ledger)
    assert first["output_ids"].n_unique() == 1 and second["own_seed"].n_unique() == 32
    assert second["output_ids"].n_unique() > 20


def test_known_branches_are_not_drawn_again(tiny, ledger, scribe, monkeypatch):
    layers = random_layers(tiny, ledger)
    monkeypatch.setattr(growing, "open_sampler", None)
    again = random_layers(tiny, ledger)
    assert all(one.equals(two) for one, two in zip(layers, again, strict=True))


def test_one_more_prompt_draws_its_own_branches_only(tiny, ledger, scribe):
    rows = prompts()
    before = growing.grown(tiny, (rows[:3], None), ASKED, ledger, EXACT)
    drawn = len(scribe.asked)
    after = growing.grown(tiny, (rows, None), ASKED, ledger, EXACT)
    assert (drawn, len(scribe.asked) - drawn) == (24, 8)
    assert after[:24].equals(before)


def test_a_tree_without_pruning_keeps_every_branch(tiny, ledger, scribe):
    layers = random_layers(tiny, ledger, children=1)
    assert all(layer["survives"].all() for layer in layers[:-1])
    assert [layer["root"].to_list() for layer in layers] == [[*range(8)] * 4] * 3


def test_a_prompt_that_leaves_no_room_is_refused_by_its_row(tiny, ledger):
    with pytest.raises(BadInput, match=r"row 0: .* and 250 of answer exceed the 256"):
        grow(tiny, None, 250, ledger)


def test_a_policy_with_another_vocabulary_is_refused_by_name(tiny, layers, tmp_path):
    other = tmp_path / "policy" / "stranger"
    stranger = load_policy(tiny, EXACT)
    stranger.tokenizer.add_tokens(["harbour"])
    stranger.model.save_pretrained(other)
    stranger.tokenizer.save_pretrained(other)
    with pytest.raises(BadInput, match=r"policy/stranger cannot rank .* another vocabulary"):
        weigh(layers[0], Readers(other, tiny), DPO)


def test_no_prompts_make_an_empty_layer(tiny, ledger, scribe):
    rows = growing.grown(tiny, (prompts()[:0], None), ASKED, ledger, EXACT)
    assert rows.is_empty() and dict(rows.schema) == Branches.columns
    assert branches.pruned(rows, Pruning(width=8)).is_empty()
    assert dict(branches.chosen(rows, 8).schema) == Candidates.columns


def test_a_layer_whose_survivors_have_all_ended_is_carried_on(tiny, ledger, scribe):
    first = grow(tiny, None, 2, ledger).with_columns(finish_reason=pl.lit("stop"))
    kept = branches.pruned(first.with_columns(score=pl.lit(0.0)), TREE.pruning)
    drawn = len(scribe.asked)
    second = grow(tiny, kept, 2, ledger)
    assert len(scribe.asked) == drawn and second["sampled"].sum() == 0
    assert second["output"].to_list() == kept.filter("survives")["output"].to_list()
