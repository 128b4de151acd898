"""Rows to tensors: ids that are never changed, positions, masks, and the order of steps."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Training
from alpacafarm_core.train import lean
from alpacafarm_core.train.batches import (
    Padded,
    Pair,
    Room,
    Tokens,
    alike,
    batch_of,
    encode,
    first_fit,
    labelled,
    padded,
    paired,
    pairs,
    plan,
    prompt_ids,
    prompt_texts,
    responses_of,
    tokenizer_digest,
)
from alpacafarm_core.train.descent import rate
from alpacafarm_core.train.forward import response_logprobs, response_scores
from alpacafarm_core.train.logps import entropies, token_logprobs
from alpacafarm_core.train.models import (
    SHARING,
    load_policy,
    load_scorer,
    load_tokenizer,
    sharing,
)
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
    again.add_tokens(["<another>"])
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


def model_of(kind: str, attention: str, of: type = AutoModelForCausalLM):
    """A random model of two layers and twenty tokens."""
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 20,
             "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0,
             "sliding_window": None, "initializer_range": 0.3, "num_labels": 1}  # fmt: skip
    if kind == "gpt_neox":
        small.pop("num_key_value_heads")
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **small)
    model = of.from_config(config, attn_implementation=attention).eval()
    assert sharing(model)
    return model


@pytest.mark.parametrize("kind", SHARING)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_sharing_a_row_changes_no_logprob(kind, attention):
    model = model_of(kind, attention)
    couples = [
        Pair(Tokens([5, 6, 4], [7, 8, 2]), Tokens([5, 6, 4], [9, 2])),
        Pair(Tokens([3, 6, 4, 5], [2]), Tokens([3, 6, 4, 5], [7, 7, 2])),
    ]
    batches = [batch_of(couples, way) for way in (True, False)]
    assert [len(batch.ids) for batch in batches] == [2, 4]
    together, apart = (response_logprobs(model, batch) for batch in batches)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


ALIKE = [5, 6, 4]
EXAMPLES = {
    "answers": [
        Tokens([*ALIKE, 9, 3], [7, 8, 9, 3, 2]),
        Tokens([*ALIKE, 8], [9, 2]),
        Tokens(ALIKE, [7]),
    ],
    "pairs": [
        Pair(Tokens(ALIKE, [7, 8, 9, 9, 2]), Tokens(ALIKE, [9, 2])),
        Pair(Tokens([4], [2]), Tokens([4], [7, 2])),
        Pair(Tokens([5], [9]), Tokens([5], [7, 2])),
    ],
    "pairs of cut prompts": [
        Pair(Tokens([*ALIKE, 3], [7, 8, 9, 9, 2]), Tokens(ALIKE, [9, 2])),
        Pair(Tokens([4, 5], [2]), Tokens([5], [7, 2])),
    ],
}


def seen(model, batch: Padded, read) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What is read of each response, and the gradient of a sum in which each counts otherwise."""
    model.zero_grad()
    found = read(model, batch)
    (found * torch.arange(1.0, found.numel() + 1).view_as(found)).sum().backward()
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    return found.detach(), [weight.grad.clone() for weight in weights]


@pytest.mark.parametrize("examples", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize("kind", [*SHARING, "lean"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packing_rows_changes_no_logprob_reward_or_gradient(kind, attention, examples, folder):
    for of, load, read in (
        (AutoModelForCausalLM, load_policy, response_logprobs),
        (AutoModelForSequenceClassification, load_scorer, response_scores),
    ):
        machine = Machine(device="cpu")
        model = load(folder, machine).model if kind == "lean" else model_of(kind, attention, of)
        assert lean.suits(model) == (kind == "lean")
        batches = [batch_of(examples, True, packing=True), padded(responses_of(examples))]
        assert len(batches[0].ids) < len(batches[1].ids)
        assert batches[0].ids.shape[1] <= batches[1].ids.shape[1] + 2
        (one, gradient), (other, other_gradient) = (seen(model, batch, read) for batch in batches)
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        for ours, theirs in zip(gradient, other_gradient, strict=True):
            torch.testing.assert_close(
                ours, theirs, atol=1e-5 * float(theirs.abs().max()) + 1e-7, rtol=1e-5
            )


def test_packed_examples_stand_end_to_end_and_see_only_their_own():
    rows = [Tokens([5, 6, 4], [7, 8]), Tokens([5], [9]), Tokens([6, 4], [8])]
    batch = batch_of(rows, sharing=True, packing=True)
    assert batch.ids.tolist() == [[5, 6, 4, 7, 8], [6, 4, 8, 5, 9]]
    assert batch.positions is not None and batch.attention is not None
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]]
    assert (batch.rows.tolist(), batch.last.tolist()) == ([0, 1, 1], [4, 4, 2])
    assert batch.where.tolist() == [[2, 3], [3, 0], [1, 0]]
    assert batch.targets.tolist() == [[7, 8], [9, 0], [8, 0]]
    assert (batch.attention[1, 0] == 0).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


def test_rows_are_packed_only_where_that_saves_some_and_the_model_allows_it():
    uneven = rows_of([9, 4, 4])
    assert batch_of(uneven, sharing=True, packing=True).ids.shape == (2, 10)
    assert batch_of(uneven, sharing=False, packing=True).ids.shape == (3, 10)
    assert batch_of(rows_of([9, 9, 8]), sharing=True, packing=True).positions is None
    assert first_fit([4, 9, 5, 2]) == [[1], [2, 0], [3]] and first_fit([2, 4, 2]) == [[1], [0, 2]]


def test_examples_are_packed_by_default_where_a_gpu_computes():
    assert Machine(device="cuda").packs() and not Machine(device="cpu").packs()
    assert Machine(device="cpu", packing="yes").packs()
    assert not Machine(device="cuda", packing="no").packs()


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


def test_a_micro_batch_holds_no_more_padded_tokens_than_the_budget():
    rows = rows_of([5, 9, 1, 7, 1])  # with a prompt of one: 6, 10, 2, 8, 2 tokens
    assert alike(rows, range(5), Room(rows=32, tokens=20)) == [[1, 3], [0, 2, 4]]
    assert alike(rows, range(5), Room(rows=2, tokens=20)) == [[1, 3], [0, 2], [4]]
    assert alike(rows, range(5), Room(rows=32)) == [[1, 3, 0, 2, 4]]


def test_a_pair_counts_both_sides_and_a_row_alone_always_fits():
    pairs = [Pair(row, row) for row in rows_of([3, 3, 9, 3])]
    assert alike(pairs, range(4), Room(rows=32, tokens=16)) == [[2], [0, 1], [3]]


def test_the_machine_says_what_fits():
    assert Room.of(Machine(micro_batch=8, micro_tokens=4096)) == (8, 4096)
    assert Room.of(Machine()) == (32, 0)


def test_a_budget_of_tokens_changes_no_step():
    rows, training = rows_of(range(1, 21)), Training(epochs=2, batch=8, seed=3)
    free, tight = (plan(rows, training, Room(8, tokens)) for tokens in (0, 40))
    assert [sorted(chain.from_iterable(step)) for step in free] == [
        sorted(chain.from_iterable(step)) for step in tight
    ]
    assert len(tight[0]) > len(free[0])


def test_a_step_of_a_plan_is_worked_out_when_asked_for_in_any_order():
    made = plan(rows_of([1] * 10), Training(epochs=3, batch=4, seed=3), 8)
    steps = list(made)
    assert len(made) == len(steps) == 9
    assert [made[at] for at in (8, 0, 4, -1)] == [steps[8], steps[0], steps[4], steps[8]]
    assert made[3:5] == steps[3:5]


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
