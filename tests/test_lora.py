"""Adapters on a tiny Llama: off they are nothing, on they learn alone, saved they are a model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.recipe import plain
from alpacafarm_core.settings import Lora, Training
from alpacafarm_core.train import lean, lora
from alpacafarm_core.train.batches import Tokens, padded
from alpacafarm_core.train.forward import response_logprobs, response_scores, response_values
from alpacafarm_core.train.models import Loaded, load_policy, load_scorer, recompute, save, weights
from tests.tiny import tiny_model

EXACT = Machine(device="cpu", precision="float32")
SMALL = Lora(rank=4, alpha=8)
ROWS = [Tokens([5, 6, 4, 9], [7, 1]), Tokens([5, 6, 4], [7, 8, 9, 1]), Tokens([3], [8, 1])]
BATCH = padded(ROWS)


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), tied=request.param)


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("untied"))


def adapted(folder: Path, settings: Lora = SMALL, machine: Machine = EXACT) -> Any:
    """A policy with an adapter that has learnt something: neither A nor B is zero."""
    model = load_policy(folder, machine).model
    lora.adapt(model, settings, seed=1)
    stirred(model)
    return model


def stirred(model: Any, name: str = lora.POLICY) -> None:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if f"lora_B.{name}" in key:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=BATCH.ids).logits


def with_gradient(model: Any) -> set[str]:
    """The names of weights that a gradient has reached."""
    return {n for n, w in model.named_parameters() if w.grad is not None and w.grad.any()}


def test_a_fresh_adapter_changes_nothing_and_one_that_has_learnt_does(folder):
    base = load_policy(folder, EXACT).model
    fresh = load_policy(folder, EXACT).model
    lora.adapt(fresh, SMALL, seed=1)
    assert torch.equal(logits(fresh), logits(base))
    assert not torch.allclose(logits(adapted(folder)), logits(base), atol=0.01)


def test_with_the_adapter_off_the_model_is_its_base_bit_for_bit(folder):
    base, model = load_policy(folder, EXACT).model, adapted(folder)
    recompute(base)  # so that transformers' own forward pass answers here too
    with lora.base_of(model), torch.no_grad():
        assert torch.equal(model(input_ids=BATCH.ids).logits, logits(base))
        off = response_logprobs(model, BATCH)
    with torch.no_grad():
        assert torch.equal(off, response_logprobs(base, BATCH))
        assert not torch.equal(off, response_logprobs(model, BATCH))


def test_only_adapters_learn(untied):
    model = adapted(untied)
    names = set(lora.trainable(model))
    assert len(names) == 2 * 2 * 7 and all(".lora_" in name for name in names)
    response_logprobs(model, BATCH).sum().backward()
    assert with_gradient(model) == names


def test_only_the_layers_asked_for_are_adapted(untied):
    model = adapted(untied, SMALL.replace(targets=("q_proj", "mlp.down_proj")))
    ends = {name.split(".lora_")[0].split(".", 3)[3] for name in lora.trainable(model)}
    assert ends == {"self_attn.q_proj", "mlp.down_proj"}
    with pytest.raises(BadInput, match=r"lora\.targets .*nose"):
        adapted(untied, SMALL.replace(targets=("nose",)))


def test_the_seed_draws_the_adapter_and_leaves_other_draws_alone(untied):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    models = [load_policy(untied, EXACT).model for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        lora.adapt(model, SMALL, seed)
    assert torch.equal(torch.rand(3), expected)
    one, same, other = (next(iter(lora.trainable(model).values())) for model in models)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_what_is_saved_is_a_plain_model_with_the_same_logits(folder, tmp_path):
    from transformers import AutoModelForCausalLM

    loaded = Loaded(adapted(folder), load_policy(folder, EXACT).tokenizer)
    before = {name: weight.clone() for name, weight in loaded.model.state_dict().items()}
    save(loaded, tmp_path)
    plain_model = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(plain_model), logits(loaded.model), atol=1e-5, rtol=0)
    saved = set(load_file(tmp_path / "model.safetensors"))
    assert saved <= set(load_policy(folder, EXACT).model.state_dict())
    after = loaded.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_adapter_beside_it_is_one_that_peft_reads(untied, tmp_path):
    from peft import PeftModel

    loaded = Loaded(adapted(untied), load_policy(untied, EXACT).tokenizer)
    save(loaded, tmp_path)
    read = PeftModel.from_pretrained(load_policy(untied, EXACT).model, tmp_path / "adapter")
    torch.testing.assert_close(logits(read), logits(loaded.model), atol=1e-6, rtol=0)
    said = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert said["r"] == 4 and said["target_modules"] == sorted(said["target_modules"])


def test_a_scorers_head_learns_too_and_is_saved_with_the_adapter(untied, tmp_path):
    from peft import PeftModel

    torch.manual_seed(3)
    scorer = load_scorer(untied, EXACT)
    base = load_scorer(untied, EXACT).model
    lora.adapt(scorer.model, SMALL, seed=1)
    stirred(scorer.model)
    assert set(lora.trainable(scorer.model)) == {
        name for name, _ in scorer.model.named_parameters() if "lora_" in name or "score" in name
    }
    save(scorer, tmp_path)
    with torch.no_grad():
        ours = response_scores(scorer.model, BATCH)
        theirs = response_scores(load_scorer(tmp_path, EXACT).model, BATCH)
        read = PeftModel.from_pretrained(base, tmp_path / "adapter").model
        again = response_scores(read, BATCH)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, again, atol=1e-5, rtol=0)


def test_the_critic_starts_at_zero_and_shares_the_base(untied):
    model = load_policy(untied, EXACT).model
    base = model.model.layers[0].self_attn.q_proj.weight
    lora.adapt(model, SMALL, seed=1)
    critic = lora.SharedCritic(model, SMALL, seed=2)
    assert model.model.layers[0].self_attn.q_proj.base_layer.weight is base
    assert [name for name, _ in critic.named_parameters()] == ["score.weight"]
    assert not response_values(critic, BATCH).any()


@pytest.mark.parametrize("machine", [EXACT, EXACT.replace(activation_checkpointing=True)])
def test_policy_and_critic_do_not_leak_into_one_another(untied, machine):
    model = adapted(untied, machine=machine)
    alone = logits(model)
    critic = lora.SharedCritic(model, SMALL, seed=2)
    torch.nn.init.ones_(critic.score.weight)
    stirred(model, lora.CRITIC)
    assert torch.equal(logits(model), alone)
    before = response_values(critic, BATCH).detach()
    policy = {name for name in lora.trainable(model) if ".policy." in name}
    others = {name for name in lora.trainable(model) if ".critic." in name}

    response_logprobs(model, BATCH).sum().backward()
    assert with_gradient(model) == policy and not with_gradient(critic)
    model.zero_grad()
    response_values(critic, BATCH).sum().backward()
    assert with_gradient(model) == others and with_gradient(critic) == {"score.weight"}

    with torch.no_grad():
        for name in policy:
            model.get_parameter(name).add_(1)
    assert torch.equal(response_values(critic, BATCH), before)
    assert not torch.equal(logits(model), alone)


def test_both_losses_may_wait_for_one_backward_pass(untied):
    """Also with activations computed again: each in the adapter of its own forward pass."""

    def gradients(machine: Machine, together: bool) -> dict[str, Tensor]:
        model = adapted(untied, machine=machine)
        critic = lora.SharedCritic(model, SMALL, seed=2)
        torch.nn.init.ones_(critic.score.weight)
        stirred(model, lora.CRITIC)
        losses = [response_logprobs(model, BATCH).sum(), response_values(critic, BATCH).sum()]
        with lora.base_of(model), torch.no_grad():
            response_logprobs(model, BATCH)
        for loss in [sum(losses)] if together else losses:
            loss.backward()
        return {n: w.grad for n, w in model.named_parameters() if "lora_" in n}

    apart = gradients(EXACT, together=False)
    assert all(gradient is not None for gradient in apart.values())
    for machine in (EXACT, EXACT.replace(activation_checkpointing=True)):
        for name, gradient in gradients(machine, together=True).items():
            torch.testing.assert_close(gradient, apart[name], atol=1e-5, rtol=1e-4)


def test_what_learns_can_be_taken_out_and_put_back(untied):
    model, other = adapted(untied), load_policy(untied, EXACT).model
    lora.adapt(other, SMALL, seed=9)
    taken = {name: weight.detach().clone() for name, weight in lora.trainable(model).items()}
    with torch.no_grad():
        for name, weight in lora.trainable(other).items():
            weight.copy_(taken[name])
    assert torch.equal(logits(other), logits(model))


def test_of_a_model_without_adapters_all_weights_are_its_own(untied):
    model = load_policy(untied, EXACT).model
    assert not lora.is_adapted(model) and lora.is_adapted(adapted(untied))
    assert weights(model).keys() == model.state_dict().keys() == weights(adapted(untied)).keys()


@pytest.mark.parametrize("ending", ["q_proj", "v_proj", "down_proj"])
def test_the_forward_pass_for_small_models_leaves_adapted_ones_alone(untied, ending):
    assert lean.suits(load_policy(untied, EXACT).model)
    assert not lean.suits(adapted(untied, SMALL.replace(targets=(ending,))))


def test_lora_without_peft_names_the_extra(untied, monkeypatch):
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"alpacafarm\[peft\]"):
        lora.adapt(load_policy(untied, EXACT).model, SMALL, seed=1)


def test_activations_computed_again_give_the_same_gradients(folder):
    found = []
    for again in (False, True):
        model = load_policy(folder, EXACT.replace(activation_checkpointing=again)).model
        assert lean.suits(model) is not again
        response_logprobs(model, BATCH).sum().backward()
        found.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-5, rtol=1e-4)


def test_activations_inside_layers_are_not_kept(untied):
    """What the backward pass is given, in bytes, weights and results apart."""

    def kept(again: bool) -> int:
        model = load_policy(untied, EXACT).model
        model.set_attn_implementation("eager")
        recompute(model)
        if not again:
            for layer in model.model.layers:
                del layer.forward
        own = {weight.data_ptr() for weight in model.parameters()}
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in own:
                sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            hidden = model.model(input_ids=BATCH.ids, use_cache=False).last_hidden_state
        assert hidden.requires_grad
        return sum(sizes.values())

    assert kept(again=True) < 0.3 * kept(again=False)


def test_keys_from_before_there_were_adapters_stay_valid():
    assert "lora" not in plain(Training())
    assert plain(Training(lora=SMALL))["lora"]["rank"] == 4
    for training in (Training(), Training(lora=SMALL)):
        assert Training.model_validate_json(training.model_dump_json()) == training
