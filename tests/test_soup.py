"""Soups: what an average of weights is, what cannot be averaged, and the test of a soup."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tasks
from alpacafarm_core.errors import BadInput, ContractBroken
from alpacafarm_core.machine import Machine
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.reward import scores
from alpacafarm_core.settings import Lora
from alpacafarm_core.store import Made
from alpacafarm_core.train.lora import adapt, merged, trainable
from alpacafarm_core.train.models import load_policy, load_scorer, save
from alpacafarm_core.train.rl import kl
from alpacafarm_core.train.soup import average, averaged, check_weights, connected, loss_on
from alpacafarm_core.train.tokens import Tokens
from alpacafarm_core.weights import Policy
from tests.paper_farm import numbered
from tests.tiny import demonstrations, tiny_model

HERE = Machine(device="cpu", precision="float32")
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three models of one shape."""
    folder = tmp_path_factory.mktemp("models")
    return tuple(tiny_model(folder / f"policy{seed}", seed=seed) for seed in (0, 1, 2))


def soup(models, weights, out, held_out=None):
    average(tuple(models), out, tuple(weights), held_out, HERE)
    return load_file(out / WEIGHTS)


def test_a_soup_is_the_average_of_every_weight(models, tmp_path):
    first, second = (load_file(folder / WEIGHTS) for folder in models[:2])
    made = soup(models[:2], (0.25, 0.75), tmp_path / "soup")
    assert made.keys() == first.keys()
    for name, weight in made.items():
        torch.testing.assert_close(weight, 0.25 * first[name] + 0.75 * second[name])


def test_a_soup_loads_as_a_policy_with_its_parents_words(models, tmp_path):
    soup(models[:2], (0.5, 0.5), tmp_path / "soup")
    made, parent = load_policy(tmp_path / "soup", HERE), load_policy(models[0], HERE)
    assert made.tokenizer("a red fruit").input_ids == parent.tokenizer("a red fruit").input_ids
    assert made.model.config.hidden_size == parent.model.config.hidden_size


def test_a_soup_of_a_model_and_itself_is_the_model_bit_for_bit(models, tmp_path):
    one = load_file(models[0] / WEIGHTS)
    for at, weights in enumerate([(0.5, 0.5), (1.0, 0.0)]):
        made = soup((models[0], models[at]), weights, tmp_path / str(at))
        assert all(torch.equal(made[name], one[name]) for name in one)


def test_a_soup_of_soups_is_the_flat_soup_and_the_order_of_equal_parts_does_not_matter(
    models, tmp_path
):
    soup(models[:2], (0.5, 0.5), tmp_path / "two")
    nested = soup((tmp_path / "two", models[2]), (2 / 3, 1 / 3), tmp_path / "nested")
    flat = soup(models, (1 / 3, 1 / 3, 1 / 3), tmp_path / "flat")
    turned = soup(models[::-1], (1 / 3, 1 / 3, 1 / 3), tmp_path / "turned")
    for name, weight in flat.items():
        torch.testing.assert_close(nested[name], weight, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(turned[name], weight, atol=1e-6, rtol=1e-5)


def test_the_sum_is_in_float32_where_bfloat16_would_lose_it():
    near = [torch.tensor([1.0, 3.0]).bfloat16(), torch.tensor([1.0078125, 3.0]).bfloat16()]
    three = averaged([near[0], near[1], near[1]], (0.2, 0.4, 0.4))
    assert three.dtype == torch.bfloat16
    assert three.tolist() == [1.0078125, 3.0]
    by_halves = sum(w * t for w, t in zip((0.2, 0.4, 0.4), near[:1] + near[1:] * 2, strict=True))
    assert by_halves.tolist() != three.tolist()


def test_tied_weights_stay_tied(tmp_path):
    tied = [tiny_model(tmp_path / f"tied{seed}", tied=True, seed=seed) for seed in (0, 1)]
    made = soup(tied, (0.5, 0.5), tmp_path / "soup")
    assert "lm_head.weight" not in made
    model = load_policy(tmp_path / "soup", HERE).model
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def with_buffer(folder: Path, out: Path, steps: list[int]) -> Path:
    """A copy of a model that also keeps whole numbers."""
    out.mkdir()
    for file in folder.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    held = load_file(out / WEIGHTS) | {"steps": torch.tensor(steps)}
    save_file(held, out / WEIGHTS, metadata={"format": "pt"})
    return out


def test_whole_numbers_are_copied_where_they_agree_and_refused_where_they_do_not(models, tmp_path):
    one = with_buffer(models[0], tmp_path / "one", [1, 2])
    same = with_buffer(models[1], tmp_path / "same", [1, 2])
    other = with_buffer(models[1], tmp_path / "other", [1, 3])
    assert soup((one, same), (0.5, 0.5), tmp_path / "soup")["steps"].tolist() == [1, 2]
    with pytest.raises(BadInput, match=f"{one} and {other}: steps differs"):
        soup((one, other), (0.5, 0.5), tmp_path / "bad")


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ((1.0,), "1 weights for 2 models"),
        ((0.5, 0.6), "weights 0.5, 0.6 make 1.1; give shares from 0 that make 1"),
        ((1.5, -0.5), "give shares from 0 that make 1"),
    ],
)
def test_weights_that_are_no_shares_are_refused(weights, complaint):
    with pytest.raises(BadInput, match=complaint):
        check_weights(weights, 2)


def test_models_of_other_shapes_or_words_are_refused_by_both_names(models, tmp_path):
    def refused(change, complaint):
        other = with_buffer(models[1], tmp_path / complaint.split()[0], [])
        change(other)
        with pytest.raises(BadInput, match=complaint) as error:
            soup((models[0], other), (0.5, 0.5), tmp_path / "out")
        assert str(models[0]) in str(error.value) and str(other) in str(error.value)

    def layers(other):
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))

    def words(other):
        tokenizer = (other / "tokenizer.json").read_text()
        (other / "tokenizer.json").write_text(tokenizer.replace('"fruit"', '"tiurf"'))

    refused(layers, "num_hidden_layers is 2 in one and 3 in the other")
    refused(words, "tokenizers")
    refused(lambda other: None, "only one of them has steps")


def test_one_thinner_tensor_is_refused_by_its_name(models, tmp_path):
    thin = with_buffer(models[1], tmp_path / "thin", [])
    held = load_file(models[1] / WEIGHTS)
    held["lm_head.weight"] = held["lm_head.weight"][:-1].clone()
    save_file(held, thin / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"lm_head.weight is \[384, 32\] in one and \[383, 32\]"):
        soup((models[0], thin), (0.5, 0.5), tmp_path / "out")


def test_what_is_saved_of_several_files_is_averaged_file_by_file(models, tmp_path):
    parts = []
    for number, folder in enumerate(models[:2]):
        load_policy(folder, HERE).model.save_pretrained(
            tmp_path / f"parts{number}", max_shard_size="40KB"
        )
        load_policy(folder, HERE).tokenizer.save_pretrained(tmp_path / f"parts{number}")
        parts.append(tmp_path / f"parts{number}")
    assert len(list(parts[0].glob("*.safetensors"))) > 1
    average(tuple(parts), tmp_path / "soup", (0.5, 0.5), None, HERE)
    whole = soup(models[:2], (0.5, 0.5), tmp_path / "whole")
    made = load_policy(tmp_path / "soup", HERE).model.state_dict()
    assert all(torch.equal(made[name], weight) for name, weight in whole.items())


def test_models_that_learned_adapters_are_averaged_with_them_added_in(models, tmp_path):
    pytest.importorskip("peft")
    parents = []
    for seed in (1, 2):
        learned = load_policy(models[0], HERE)
        adapt(learned.model, Lora(rank=2), seed)
        for weight in trainable(learned.model).values():
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(seed))
        save(learned, tmp_path / f"learned{seed}")
        parents.append((tmp_path / f"learned{seed}", merged(learned.model)))
    made = soup([folder for folder, _ in parents], (0.5, 0.5), tmp_path / "soup")
    assert (parents[0][0] / "adapter").is_dir() and not (tmp_path / "soup/adapter").exists()
    for name, weight in made.items():
        whole = [weights[name] for _, weights in parents]
        torch.testing.assert_close(weight, sum(whole) / 2, atol=1e-6, rtol=1e-5)


# --- what an average of logits is: numbers of the notes ---

LOGITS = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]], dtype=torch.float64)


def test_a_soup_of_softmax_logits_is_the_geometric_mean_not_the_average_of_probabilities():
    mixed = averaged(list(LOGITS), (0.5, 0.5)).softmax(0)
    assert mixed.tolist() == pytest.approx([0.383652, 0.383652, 0.232697], abs=5e-7)
    geometric = LOGITS.softmax(1).prod(0).sqrt()
    torch.testing.assert_close(mixed, geometric / geometric.sum())
    arithmetic = LOGITS.softmax(1).mean(0)
    assert arithmetic.tolist() == pytest.approx([0.394029, 0.394029, 0.211942], abs=5e-7)


def test_the_start_is_not_at_the_soup_and_a_clamp_says_too_much_of_it():
    start, mixed = LOGITS[0].log_softmax(0), averaged(list(LOGITS), (0.5, 0.5)).log_softmax(0)
    means = {
        estimator: float((start.exp() * kl(start, mixed, estimator)).sum())
        for estimator in ("k1", "k3", "clamped")
    }
    assert means == pytest.approx({"k1": 0.088663, "k3": 0.088663, "clamped": 0.234235}, abs=5e-7)
    assert float((mixed.exp() * kl(mixed, mixed, "k1")).sum()) == 0


def best(reference: Tensor, reward: Tensor, eta: float) -> tuple[Tensor, float]:
    """What maximises reward less eta KL to a reference, [V], and its value."""
    raised = reference.log() + reward / eta
    return raised.softmax(0), eta * float(raised.logsumexp(0))


def test_the_best_policy_about_the_soup_earns_more_than_the_one_about_the_start():
    reward = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    start, mixed = LOGITS[0].softmax(0), averaged(list(LOGITS), (0.5, 0.5)).softmax(0)
    policy, value = best(mixed, reward, 1.0)
    assert policy.tolist() == pytest.approx([0.274069, 0.274069, 0.451863], abs=1e-6)
    assert value == pytest.approx(0.336357, abs=1e-6)
    policy, value = best(start, reward, 1.0)
    assert policy.tolist() == pytest.approx([0.422319, 0.155362, 0.422319], abs=1e-6)
    assert value == pytest.approx(0.310550, abs=1e-6)
    earned = [float(best(each, reward, 0.5)[0] @ reward) for each in (mixed, start)]
    assert earned == pytest.approx([0.691438, 0.665241], abs=1e-6)


def nats(policy: Tensor, other: Tensor) -> float:
    """KL(policy || other)."""
    return float((policy * (policy / other).log()).sum())


def test_at_equal_distance_from_the_start_nothing_earns_more_than_the_one_about_the_start():
    reward = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    start, mixed = LOGITS[0].softmax(0), averaged(list(LOGITS), (0.5, 0.5)).softmax(0)
    salsa = best(mixed, reward, 1.0)[0]
    low, high = 1e-3, 1e3
    for _ in range(80):
        eta = (low * high) ** 0.5
        far = nats(best(start, reward, eta)[0], start) > nats(salsa, start)
        low, high = (eta, high) if far else (low, eta)
    ppo = best(start, reward, low)[0]
    assert nats(ppo, start) == pytest.approx(nats(salsa, start))
    assert float(ppo @ reward) > float(salsa @ reward) + 0.01


def test_a_soup_of_linear_heads_on_one_trunk_gives_the_mean_reward():
    heads, hidden = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([0.5, 1.0])
    assert (heads @ hidden).tolist() == [2.5, 1.5]
    assert float(averaged(list(heads), (0.5, 0.5)) @ hidden) == 2.0


def test_a_soup_of_reward_models_that_differ_in_their_heads_gives_the_mean_reward(models, tmp_path):
    rows, found, folders = [Tokens([0, 5, 6], [7, 8]), Tokens([0, 9], [10, 11, 12])], [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        scorer = load_scorer(models[0], HERE)
        save(scorer, tmp_path / f"reward{seed}")
        folders.append(tmp_path / f"reward{seed}")
        found.append(torch.tensor(scores(scorer, rows, HERE)))
    average(tuple(folders), tmp_path / "soup", (0.5, 0.5), None, HERE)
    mean = scores(load_scorer(tmp_path / "soup", HERE), rows, HERE)
    assert mean == pytest.approx(((found[0] + found[1]) / 2).tolist(), abs=1e-5)


# --- the test of a soup ---


def test_a_soup_may_be_a_little_worse_than_its_parents_and_no_more():
    connected(2.0199, [1.9, 2.1])
    with pytest.raises(ContractBroken, match=r"2.021 nats a token, its parents' 1.900, 2.100"):
        connected(2.021, [1.9, 2.1])
    with pytest.raises(ContractBroken, match="they cannot be averaged; train all from one start"):
        connected(float("nan"), [1.9, 2.1])


def test_strangers_are_found_out_on_held_out_demonstrations(models, tmp_path):
    rows = tmp_path / "rows.parquet"
    demonstrations().write_parquet(rows)
    same = average((models[0],) * 2, tmp_path / "same", (0.5, 0.5), rows, HERE)
    loss = loss_on(models[0], rows, HERE)
    assert same == {"loss": loss, "losses_of_parents": [loss, loss], "barrier": 0.02}
    # All of the worse parent is worse than the parents are on average.
    louder = tmp_path / "louder"
    with_buffer(models[0], louder, [])
    held = {name: 2 * weight for name, weight in load_file(models[0] / WEIGHTS).items()}
    save_file(held, louder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ContractBroken, match="nats a token"):
        average((models[0], louder), tmp_path / "bad", (0.0, 1.0), rows, HERE)


def test_a_soup_is_an_artifact_that_names_its_parents_and_weights(store, models):
    parents = tuple(Policy(key=numbered(number)) for number in (1, 2))
    for parent, folder in zip(parents, models, strict=False):
        lay(store, parent, folder)
    made = tasks.soup(parents, (0.5, 0.5))
    manifest = store.manifest(made)
    assert manifest.notes == {"parents": [p.folder for p in parents], "weights": [0.5, 0.5]}
    assert manifest.recipe.inputs == {"policies": [p.folder for p in parents]}
    assert tasks.soup(parents, (0.5, 0.5)) == made
    assert tasks.soup.receipt(parents, (0.4, 0.6)) != made


def lay(store, artifact, folder: Path) -> None:
    """Put a folder into the store as if a stage had made it."""
    draft = store.scratch()
    shutil.copytree(folder, draft, dirs_exist_ok=True)
    store.write(artifact, Made(draft), Recipe.of("laid", 1, {}), time.time())
