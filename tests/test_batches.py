"""Rows to tensors: ids that are never changed, positions, masks, and the order of steps."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from alpacafarm_core.settings import Training
from alpacafarm_core.train.batches import (
    Pair,
    Tokens,
    alike,
    batch_of,
    encode,
    labelled,
    padded,
    paired,
    pairs,
    plan,
    prompt_ids,
    prompt_texts,
    tokenizer_digest,
)
from alpacafarm_core.train.descent import rate
from alpacafarm_core.train.forward import response_logprobs
from alpacafarm_core.train.logps import entropies, token_logprobs
from alpacafarm_core.train.models import SHARING, load_tokenizer, sharing
from tests.tiny import ANSWERS, demonstrations, preferences, tiny_model

EOS = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path):
    return load_tokenizer(folder)


def test_text_is_tokenised_after_its_prompt_and_ends_with_the_end_token(tokenizer):
    rows = demonstrations(1)
    for row, prompt, answer in zip(
        encode(rows, "output", tokenizer), prompt_texts(rows), ANSWERS, strict=True
    ):
        assert row.response[-1] == EOS and EOS not in row.response[:-1]
        assert tokenizer.decode(row.prompt) == prompt
        assert tokenizer.decode(row.response[:-1]) == answer


def test_sampled_ids_are_used_as_they_are_only_under_our_own_tokenizer(tokenizer):
    odd = [70, 71, 70, 99]
    rows = demonstrations(1).with_columns(
        output_ids=pl.Series([odd] * 4, dtype=pl.List(pl.Int32)),
        tokenizer=pl.Series([tokenizer_digest(tokenizer), "another", None, ""], dtype=pl.String),
    )
    first, *others = encode(rows, "output", tokenizer)
    assert first.response == odd
    assert all(row.response[-1] == EOS and row.response != odd for row in others)


def test_the_digest_survives_saving_and_use_and_tells_tokenizers_apart(tokenizer, tmp_path):
    before = tokenizer_digest(tokenizer)
    tokenizer(["a", "b b b"], padding=True, truncation=True, max_length=2)
    assert tokenizer_digest(tokenizer) == before
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert tokenizer_digest(again) == before
    again.add_tokens(["<reward_0>"])
    assert tokenizer_digest(again) != before


def test_prompts_are_encoded_alike_one_by_one_and_together(tokenizer):
    texts = prompt_texts(demonstrations(1))
    assert prompt_ids(tokenizer, texts) == [prompt_ids(tokenizer, [text])[0] for text in texts]
    assert prompt_ids(tokenizer, []) == []


def test_pairs_are_ordered_by_their_label_and_undecided_ones_left_out(tokenizer):
    rows = preferences(1).with_columns(preference=pl.Series([2.0, 1.0, 1.5, None]))
    kept = labelled(rows)
    assert kept.height == 2
    for pair, answer in zip(pairs(kept, tokenizer), ANSWERS[:2], strict=True):
        assert tokenizer.decode(pair.chosen.response[:-1]) == answer
        assert pair.length == max(pair.chosen.length, pair.rejected.length)


def test_padding_is_on_the_right_and_positions_predict_the_response():
    batch = padded([Tokens([5, 6], [7, 8, 9]), Tokens([5, 6, 7, 8], [9])])
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9], [5, 6, 7, 8, 9]]
    assert batch.where.tolist() == [[1, 2, 3], [3, 0, 0]]
    assert batch.targets.tolist() == [[7, 8, 9], [9, 0, 0]]
    assert batch.mask.tolist() == [[True] * 3, [True, False, False]]
    found = batch.ids.gather(1, batch.where + 1)[batch.mask]
    assert found.tolist() == batch.targets[batch.mask].tolist()


def test_a_pair_in_one_row_keeps_its_responses_apart():
    batch = paired([Pair(Tokens([5, 6], [7, 8]), Tokens([5, 6], [9]))])
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9]]
    assert batch.positions is not None and batch.attention is not None
    assert batch.positions.tolist() == [[0, 1, 2, 3, 2]]
    assert (batch.rows.tolist(), batch.last.tolist()) == ([0, 0], [3, 4])
    assert batch.where.tolist() == [[1, 2], [1, 0]]
    assert batch.targets.tolist() == [[7, 8], [9, 0]]
    assert (batch.attention[0, 0] == 0).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


@pytest.mark.parametrize("kind", SHARING)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_sharing_a_row_changes_no_logprob(kind, attention):
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 20,
             "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0,
             "sliding_window": None, "initializer_range": 0.3}  # fmt: skip
    if kind == "gpt_neox":
        small.pop("num_key_value_heads")
    config = AutoConfig.for_model(kind, **small)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    assert sharing(model)
    couples = [
        Pair(Tokens([5, 6, 4], [7, 8, 2]), Tokens([5, 6, 4], [9, 2])),
        Pair(Tokens([3, 6, 4, 5], [2]), Tokens([3, 6, 4, 5], [7, 7, 2])),
    ]
    batches = [batch_of(couples, way) for way in (True, False)]
    assert [len(batch.ids) for batch in batches] == [2, 4]
    together, apart = (response_logprobs(model, batch) for batch in batches)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


def test_pairs_whose_prompts_differ_stand_in_rows_of_their_own():
    cut = Pair(Tokens([5, 6], [7]), Tokens([6], [8, 9]))
    assert batch_of([cut], sharing=True).positions is None


def test_a_row_is_shared_only_where_the_prompt_is_long_enough_to_save_something():
    prompt, response = [5] * 20, [7] * 20
    fair = Pair(Tokens(prompt, response), Tokens(prompt, response))
    short = Pair(Tokens([5], response), Tokens([5], response))
    assert batch_of([fair], sharing=True).ids.shape == (1, 60)
    assert batch_of([short], sharing=True).ids.shape == (2, 21)


def rows_of(lengths: Iterable[int]) -> list[Tokens]:
    return [Tokens([3], [7] * length) for length in lengths]


def test_every_epoch_has_every_row_once_in_another_order():
    training = Training(epochs=2, batch=4, seed=3)
    steps = list(plan(rows_of([1] * 10), training, micro=3))
    assert [sum(map(len, step)) for step in steps] == [4, 4, 2] * 2
    epochs = [
        [row for step in part for micro in step for row in micro] for part in (steps[:3], steps[3:])
    ]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and epochs[0] != epochs[1]


def test_the_plan_is_the_seeds_and_the_micro_batch_does_not_change_its_steps():
    rows, training = rows_of(range(1, 21)), Training(epochs=1, batch=8, seed=3)

    def steps(training: Training, micro: int) -> list[list[int]]:
        return [sorted(chain.from_iterable(step)) for step in plan(rows, training, micro)]

    assert steps(training, 1) == steps(training, 8)
    assert steps(training, 8) != steps(training.replace(seed=4), 8)


def test_micro_batches_hold_rows_of_similar_length():
    assert alike(rows_of([5, 9, 1, 7]), range(4), 2) == [[1, 3], [0, 2]]


def test_micro_batches_are_of_one_template_where_there_are_few():
    one, other = [1] * 9, [2] * 9
    rows = [Tokens(one, [7] * 3), Tokens(other, [7] * 4), Tokens(one, [7] * 5), Tokens(one, [7])]
    assert alike(rows, range(4), 2) == [[2, 0], [3], [1]]
    prompts = [Tokens([first] * 9, [7] * first) for first in range(1, 7)]
    assert alike(prompts, range(6), 3) == [[5, 4, 3], [2, 1, 0]]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("linear", [0.5, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.5, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
def test_rates_warm_up_and_then_follow_the_schedule(schedule, rates):
    training = Training(learning_rate=1.0, warmup=0.2, schedule=schedule)
    assert [rate(training, step, 5) for step in range(5)] == pytest.approx(rates, abs=1e-6)


def test_logprobs_in_slabs_equal_those_at_once_with_the_same_gradient():
    torch.manual_seed(0)
    hidden, targets = torch.randn(10, 6, requires_grad=True), torch.randint(0, 11, (10,))
    head = torch.nn.Linear(6, 11)
    at_once = head(hidden).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    for slab in (11 * 3, 10_000):
        found = token_logprobs(hidden, targets, head, slab)
        torch.testing.assert_close(found, at_once)
        gradients = [
            torch.autograd.grad(t.sum(), hidden, retain_graph=True)[0] for t in (found, at_once)
        ]
        torch.testing.assert_close(*gradients)
    uniform = entropies(torch.zeros(3, 6), lambda h: h @ torch.zeros(6, 8), slab=8)
    assert uniform.tolist() == pytest.approx([2.0794415] * 3)


def test_a_pad_token_is_added_with_the_mean_of_the_embeddings(folder, tmp_path):
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from alpacafarm_core.machine import Machine
    from alpacafarm_core.train.models import load_policy

    bare = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>"
    )
    bare.save_pretrained(tmp_path)
    old = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    old.resize_token_embeddings(len(bare), mean_resizing=False)
    old.save_pretrained(tmp_path)
    model, tokenizer = load_policy(tmp_path, Machine(device="cpu"))
    new = tokenizer.convert_tokens_to_ids("[PAD]")
    assert tokenizer.pad_token == "[PAD]" and model.config.pad_token_id == new
    assert new == len(bare)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert table.weight.shape[0] == len(bare) + 1
        torch.testing.assert_close(table.weight[new], table.weight[:new].mean(0))
