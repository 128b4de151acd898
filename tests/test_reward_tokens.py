"""Reward tokens: grown, told, learned and never said."""

from pathlib import Path

import polars as pl
import pytest
import torch

from alpacafarm_core.artifacts import Candidates, Graded
from alpacafarm_core.decoding import TransformersSampler, without
from alpacafarm_core.errors import BadInput
from alpacafarm_core.generate import generate, open_sampler
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.select import graded
from alpacafarm_core.settings import Lora, Sampling, Training
from alpacafarm_core.train import offline
from alpacafarm_core.train.batches import padded
from alpacafarm_core.train.forward import response_logprobs
from alpacafarm_core.train.models import grow, load_policy, save
from alpacafarm_core.train.tokens import (
    asked,
    encode,
    reward_ids,
    tagged,
    tokenizer_digest,
)
from tests.test_training import EXACT
from tests.tiny import demonstrations, preferences, tiny_model

TRAINING = Training(learning_rate=3e-3, epochs=1, batch=8, max_length=256, schedule="constant")
EOS = 1


def rows_graded() -> pl.DataFrame:
    return graded(preferences(1))


def test_a_pair_is_learned_from_twice_behind_the_good_and_the_bad_token():
    rows = preferences(1)[:2].with_columns(preference=pl.Series([1.0, 2.0]))
    found = graded(rows)
    assert found.columns == list(Graded.columns)
    assert found["tag"].to_list() == [0, 1, 0, 1]
    first, second = rows.select("output_1", "output_2").rows()
    assert found["output"].to_list() == [*first, *reversed(second)]


def test_ties_are_not_learned_from_and_nothing_but_ties_is_refused():
    ties = preferences(1).with_columns(preference=pl.Series([1.5, None, 1.0, 1.5]))
    assert graded(ties).height == 2
    with pytest.raises(BadInput, match="none of 2 pairs is decided"):
        graded(ties[:2])


def test_new_rows_are_the_mean_of_the_old_ones_and_a_spread_of_their_own(tiny):
    loaded = load_policy(tiny, EXACT)
    old = loaded.model.get_input_embeddings().weight.detach().clone()
    grow(loaded, 200, seed=3)
    new = loaded.model.get_input_embeddings().weight.detach()
    assert torch.equal(new[:384], old) and len(new) == 384 + 200
    torch.testing.assert_close(new[384:].mean(0), old.mean(0), atol=0.06, rtol=0)
    torch.testing.assert_close(new[384:].std(0), old.std(0), atol=0.05, rtol=0)
    assert len({tuple(row) for row in new[384:].tolist()}) == 200


def test_growing_is_a_function_of_its_seed_and_leaves_tokens_that_are_there(tiny):
    once, again, other = (load_policy(tiny, EXACT) for _ in range(3))
    grow(once, 2, seed=3)
    grow(again, 2, seed=3)
    grow(other, 2, seed=4)
    first, second, third = (
        each.model.get_input_embeddings().weight.clone() for each in (once, again, other)
    )
    assert torch.equal(first, second) and not torch.equal(first, third)
    grow(once, 2, seed=9)
    assert torch.equal(first, once.model.get_input_embeddings().weight)
    grow(once, 4, seed=9)
    assert torch.equal(first, once.model.get_input_embeddings().weight[:386])
    assert reward_ids(once.tokenizer) == [384, 385, 386, 387]


def test_ids_sampled_before_a_tokenizer_had_reward_tokens_are_used_as_they_are_after(
    tiny, tmp_path
):
    loaded = load_policy(tiny, EXACT)
    before = tokenizer_digest(loaded.tokenizer)
    grow(loaded, 4, seed=0)
    save(loaded, tmp_path / "grown")
    after = load_policy(tmp_path / "grown", EXACT).tokenizer
    assert tokenizer_digest(loaded.tokenizer) == tokenizer_digest(after) == before
    odd = [77, 78, 79]
    rows = demonstrations(1)[:1].with_columns(
        output_ids=pl.Series([odd], dtype=pl.List(pl.Int32)), tokenizer=pl.lit(before)
    )
    assert encode(rows, "output", after)[0].response == odd


def test_a_reward_token_stands_behind_the_begin_token_and_before_the_prompt(tiny):
    loaded = load_policy(tiny, EXACT)
    grow(loaded, 2, seed=0)
    assert tagged([0, 7, 8], 385, loaded.tokenizer) == [0, 385, 7, 8]
    assert tagged([7, 8], 385, loaded.tokenizer) == [385, 7, 8]
    rows = demonstrations(1)[:2].with_columns(tag=pl.Series([1, None]))
    plain = asked(rows.drop("tag"), loaded.tokenizer)
    assert asked(rows, loaded.tokenizer) == [tagged(plain[0], 385, loaded.tokenizer), plain[1]]


def test_a_token_that_a_policy_does_not_have_is_refused_by_its_row(tiny):
    tokenizer = load_policy(tiny, EXACT).tokenizer
    rows = demonstrations(1).with_columns(tag=pl.Series([None, 0, 0, 0]))
    with pytest.raises(BadInput, match=r"row 1: this policy has no token <reward_0>"):
        asked(rows, tokenizer)


def test_responses_are_the_same_ids_behind_a_tag_as_without(tiny):
    loaded = load_policy(tiny, EXACT)
    grow(loaded, 2, seed=0)
    rows = rows_graded()
    told, plain = (encode(each, "output", loaded.tokenizer) for each in (rows, rows.drop("tag")))
    assert [row.response for row in told] == [row.response for row in plain]
    ids = reward_ids(loaded.tokenizer)
    assert [row.prompt for row in told] == [
        tagged(row.prompt, ids[tag], loaded.tokenizer)
        for row, tag in zip(plain, rows["tag"], strict=True)
    ]


def test_training_on_tagged_answers_teaches_what_the_tokens_mean(tiny, tmp_path):
    objective = SFT(training=TRAINING.replace(epochs=12))
    offline.train((tiny, None), tmp_path / "out", rows_graded(), objective, EXACT)
    loaded = load_policy(tmp_path / "out", EXACT)
    assert len(reward_ids(loaded.tokenizer)) == 2
    good = rows_graded().filter(pl.col("tag") == 0)
    said = []
    for tag in (0, 1):
        told = encode(good.with_columns(tag=pl.lit(tag)), "output", loaded.tokenizer)
        with torch.no_grad():
            said.append(float(response_logprobs(loaded.model, padded(told)).sum()))
    assert said[0] > said[1] + 5


def test_an_adapter_cannot_learn_reward_tokens(tiny, tmp_path):
    objective = SFT(training=TRAINING.replace(lora=Lora(rank=2)))
    with pytest.raises(BadInput, match="reward tokens are learned with all weights"):
        offline.train((tiny, None), tmp_path / "out", rows_graded(), objective, EXACT)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied model with reward tokens that it would love to say."""
    loaded = load_policy(tiny_model(tmp_path_factory.mktemp("plain"), tied=True), EXACT)
    grow(loaded, 2, seed=0)
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight[384:] *= 20
    folder = tmp_path_factory.mktemp("grown")
    save(loaded, folder)
    return folder


def test_a_policy_answers_behind_a_token_and_never_says_one(grown, tmp_path):
    tags = pl.Series([None] * 4 + [0] * 4 + [1] * 4, dtype=pl.Int64)
    rows = pl.concat([demonstrations(1)] * 3).with_columns(tag=tags)
    sampling = Sampling(temperature=1.0, max_tokens=16, n=4)
    found = generate(grown, rows, sampling, Ledger(tmp_path / "ledger"), EXACT)
    assert not {token for ids in found["output_ids"] for token in ids} & {384, 385}
    plain, good, bad = (part["output_ids"].to_list() for part in found.iter_slices(16))
    assert plain != good != bad
    assert found.columns == list(Candidates.columns)


def test_it_would_say_reward_tokens_if_it_could(grown):
    model = load_policy(grown, EXACT).model
    free = TransformersSampler(model, EOS)
    drawn = free.sample([[0, 5]] * 8, Sampling(temperature=1.0, max_tokens=8), list(range(8)))
    assert {384, 385} & {token for one in drawn for token in one.ids}
    assert open_sampler(grown, 64, EXACT).never == [384, 385]


def test_what_is_never_said_has_no_chance_and_the_rest_is_as_before():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert without(logits, [1]).tolist() == [[1.0, -torch.inf, 3.0]]
    assert logits.tolist() == [[1.0, 2.0, 3.0]]
