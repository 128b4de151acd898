"""The backbone for a CPU gives what transformers gives: the same states, the same gradients."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alpacafarm_core.machine import Machine
from alpacafarm_core.train import lean
from alpacafarm_core.train.batches import Padded, Pair, Tokens, batch_of, padded
from alpacafarm_core.train.forward import response_logprobs, response_scores
from alpacafarm_core.train.models import load_policy, load_scorer
from tests.tiny import tiny_model

PROMPT = [5, 6, 4, 9]
BATCHES = {
    "rows that begin alike": [Tokens([*PROMPT, 8], [7, 1]), Tokens([*PROMPT, 3, 2], [7, 8, 9, 1])],
    "nothing in common": [Tokens([5, 6], [7]), Tokens([6, 6, 5], [7, 8])],
    "one row": [Tokens(PROMPT, [7, 8, 1])],
    "one prompt": [Tokens(PROMPT, [7, 1]), Tokens(PROMPT, [7, 8, 1]), Tokens(PROMPT, [7, 8, 1])],
    "a prompt of one token": [Tokens([4], [7, 1]), Tokens([4], [8, 9, 1])],
    "pairs in one row": [
        Pair(Tokens([*PROMPT, 8, 8], [7, 1]), Tokens([*PROMPT, 8, 8], [9, 3, 1])),
        Pair(Tokens([*PROMPT, 3], [7, 7, 1]), Tokens([*PROMPT, 3], [7, 1])),
    ],
    "pairs apart": [Pair(Tokens([5, 6], [7, 1]), Tokens([6], [8, 9, 1]))],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize(("load", "read"), [(load_policy, response_logprobs),
                                            (load_scorer, response_scores)])  # fmt: skip
def test_values_and_gradients_are_those_of_transformers(folder, rows, load, read, monkeypatch):
    torch.manual_seed(0)
    model, batch = load(folder, Machine(device="cpu")).model, batch_of(rows, sharing=True)
    with torch.no_grad():  # norms of ones would hide one that is left out
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)

    def seen() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        found = read(model, batch)
        (found * torch.arange(1.0, found.numel() + 1).view_as(found)).sum().backward()
        return found.detach(), [weight.grad for weight in model.parameters()]

    assert lean.suits(model)
    ours, our_gradients = seen()
    monkeypatch.setattr(lean, "suits", lambda _: False)
    theirs, their_gradients = seen()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for one, other in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_what_all_rows_begin_with_is_computed_once():
    def common(*rows: Tokens) -> int:
        return lean.common(padded(rows))

    assert common(Tokens([5, 6, 4], [7]), Tokens([5, 6, 3], [7])) == 2
    assert common(Tokens([5, 6, 4], [7]), Tokens([5], [6, 4])) == 1
    assert common(Tokens([5, 6, 4], [7]), Tokens([5, 6, 4], [7])) == 3
    assert common(Tokens([5, 6], [7]), Tokens([6, 6], [7])) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"num_key_value_heads": 1},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"attention_dropout": 0.1},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        {"dtype": torch.bfloat16},
        {"attn_implementation": "sdpa"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_models_are_left_to_transformers(changes):
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 20,
             "num_attention_heads": 2}  # fmt: skip

    def model(changes: dict[str, object]) -> LlamaForCausalLM:
        attention = changes.pop("attn_implementation", "eager")
        kept = changes.pop("dtype", torch.float32)
        built = LlamaForCausalLM(LlamaConfig(**small, **changes))
        built.set_attn_implementation(attention)
        return built.to(kept)

    assert lean.suits(model({}))
    assert not lean.suits(model(dict(changes)))


def test_bfloat16_is_left_to_transformers(folder):
    model = load_policy(folder, Machine(device="cpu")).model
    with torch.autocast("cpu", torch.bfloat16):
        assert not lean.suits(model)


def test_hidden_states_without_gradient_keep_nothing(folder):
    model = load_policy(folder, Machine(device="cpu")).model
    batch: Padded = padded(BATCHES["one row"])
    with torch.no_grad():
        assert not lean.hidden_at(model, batch, batch.rows, batch.last).requires_grad
