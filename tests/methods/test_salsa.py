"""SALSA: its steps, what it is where its soup is the start, and where its gain is from."""

import pytest
import torch
from pydantic import ValidationError

from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.salsa import SALSA
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.proximal import ProximalObjective
from alpacafarm_core.settings import Sampling, Training
from alpacafarm_core.train import online
from alpacafarm_core.train.models import load_scorer, save
from alpacafarm_core.train.rollouts import below_reference
from alpacafarm_core.train.soup import average
from alpacafarm_core.weights import Policy
from benchmarks.toy_soup import compared, paired
from tests.methods import defaults_of, steps_of
from tests.methods.sampled import rollouts_of
from tests.paper_farm import START, PaperFarm
from tests.tiny import demonstrations, tiny_model

HERE = Machine(device="cpu", precision="float32")


def test_it_trains_the_base_again_and_takes_the_average_as_reference():
    assert steps_of("salsa") == [
        "train(base, demonstrations)",
        "demonstrations()",
        "soup(sft, train1, demonstrations2)",
        "fit_reward(sft, preferences)",
        "roll_out(sft, fit_reward4, instructions, soup3)",
    ]


def test_three_models_make_a_soup_that_may_also_be_the_start():
    assert steps_of("salsa", weights=(0.5, 0.25, 0.25), held_out=0, init="soup") == [
        "train(base, demonstrations)",
        "train(base, demonstrations)",
        "soup(sft, train1, train2)",
        "fit_reward(sft, preferences)",
        "roll_out(soup3, fit_reward4, instructions, soup3)",
    ]


def test_the_other_models_differ_from_the_start_in_their_seeds_alone():
    method = SALSA.at("small").seeded(3).replace(weights=(0.4, 0.3, 0.3))
    start = SFT.at("small").seeded(3)
    assert method.sft == start
    assert [one.training.seed for one in method.others()] == [4, 5]
    assert {one.seeded(0).training.replace(seed=3) for one in method.others()} == {start.training}


def test_the_start_is_never_averaged_with_itself():
    class Same(PaperFarm):
        def train(self, *_: object) -> Policy:
            return START.policy

    with pytest.raises(BadInput, match=r"would be averaged with itself; set sft\.training\.seed"):
        SALSA.at("smoke").optimise(Same(), START)


def test_weights_that_are_no_shares_are_refused():
    for weights in ((1.0,), (0.5, 0.6), (1.5, -0.5)):
        with pytest.raises(ValidationError, match="weights"):
            SALSA(weights=weights)


def test_its_defaults_are_the_papers():
    ours, ppo = defaults_of("salsa"), defaults_of("ppo")
    shared = {name for name in ours if name.split(".")[0] in ("objective", "fitting")}
    assert {name: ours[name][0] for name in shared} == {
        name: ppo[name][0] for name in ppo if name != "compat"
    }
    assert {name: ours[name] for name in ours.keys() - shared} == {
        "weights": ((0.5, 0.5), "Chegini et al. 2024: two models, alpha 0.5"),
        "init": ("first", "Chegini et al. 2024, from memory"),
        "held_out": (200, "ours: the test of a soup"),
        "sft.training.learning_rate": (2e-5, "AlpacaFarm, SFT10k"),
        "sft.training.epochs": (3, "AlpacaFarm, SFT10k"),
        "sft.training.batch": (128, "AlpacaFarm, SFT10k"),
    }
    assert ours["objective.kl.estimator"][0] == "k1"


def test_at_a_small_scale_it_spends_what_ppo_does():
    for scale in ("smoke", "small"):
        assert SALSA.at(scale).objective == METHODS["ppo"].at(scale).objective


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two policies of one shape and a reward model."""
    folder = tmp_path_factory.mktemp("models")
    policies = [tiny_model(folder / f"policy{seed}", seed=seed) for seed in (0, 1)]
    torch.manual_seed(0)
    save(load_scorer(policies[0], HERE), folder / "reward")
    return policies, folder / "reward"


PPO = ProximalObjective(
    steps=2,
    rollouts=4,
    minibatch=4,
    inner_epochs=1,
    sampling=Sampling(temperature=1.0, max_tokens=6),
    training=Training(learning_rate=1e-3, max_length=128),
)


def traced(models, reference, out, objective=PPO):
    (start, _), reward = models
    return online.roll_out((start, reward, reference), out, demonstrations(), objective, HERE)[
        "steps"
    ]


def test_with_all_weight_on_the_start_it_is_ppo_step_by_step(models, tmp_path):
    average(tuple(models[0]), tmp_path / "soup", (1.0, 0.0), None, HERE)
    ours, theirs = (
        traced(models, reference, tmp_path / f"run{at}")
        for at, reference in enumerate((tmp_path / "soup", None))
    )
    timed = ("seconds", "tokens_per_second")
    for one, other in zip(ours, theirs, strict=True):
        assert {n: f for n, f in one.items() if n not in timed} == {
            n: f for n, f in other.items() if n not in timed
        }
    assert theirs[0]["kl"] == pytest.approx(0, abs=1e-5)


def test_with_no_weight_on_the_start_the_other_model_is_the_reference(models, tmp_path):
    average(tuple(models[0]), tmp_path / "soup", (0.0, 1.0), None, HERE)
    ours = traced(models, tmp_path / "soup", tmp_path / "ours")
    theirs = traced(models, models[0][1], tmp_path / "theirs")
    assert [one["kl"] for one in ours] == [one["kl"] for one in theirs]
    assert ours[0]["kl_k3"] > 0.01


def test_a_start_that_is_not_at_the_soup_is_away_from_it_at_step_one(models, tmp_path):
    average(tuple(models[0]), tmp_path / "soup", (0.5, 0.5), None, HERE)
    assert traced(models, tmp_path / "soup", tmp_path / "run")[0]["kl_k3"] > 0.01


def test_a_policy_that_earns_by_being_less_sure_than_its_reference_is_noticed():
    surer = torch.full((4, 2), -0.5) + torch.tensor([[0.1], [-0.1], [0.1], [-0.1]])
    assert below_reference(rollouts_of([0.0] * 4, surer))
    assert not below_reference(rollouts_of([0.0] * 4, -surer))
    assert not below_reference(rollouts_of([0.0] * 4, torch.zeros(4, 2)))
    noise = torch.tensor([[-3.0, 0.0], [2.0, 0.0], [-2.0, 0.0], [2.5, 0.0]])
    assert not below_reference(rollouts_of([0.0] * 4, noise))
    padded = torch.tensor([[1.0, 0.0]] * 4)
    assert not below_reference(rollouts_of([0.0] * 4, torch.tensor([[0.1, -9.0]] * 4), padded))


@pytest.fixture(scope="module")
def toy():
    """Twelve targets, twenty sequences an SFT model, 0.3 points a nat."""
    return compared(seeds=12, n=20, eta=0.3)


def test_a_soup_of_noisy_models_is_nearer_to_their_target_than_they_are(toy):
    gain, error = paired(toy[0].losses.mean(0), toy[0].soups[2])
    assert gain > 0.5 and gain > 3 * error


def test_with_noisy_sft_models_the_soup_as_reference_earns_more_at_the_same_price(toy):
    ppo, salsa = toy[1][1], toy[1][2]
    gain, error = paired(salsa.reward, ppo.reward)
    assert gain > 3 * error
    assert float(salsa.own.mean()) == pytest.approx(float(ppo.own.mean()), rel=0.05)


def test_and_it_goes_further_from_the_start(toy):
    further, error = paired(toy[1][2].start, toy[1][1].own)
    assert further > 3 * error
    torch.testing.assert_close(toy[1][1].start, toy[1][1].own)
