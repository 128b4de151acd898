"""Every loop with LoRA and with the fit check, on a tiny Llama, on a CPU."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from alpacafarm_core import reward
from alpacafarm_core.errors import DoesNotFit
from alpacafarm_core.machine import Machine
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.objective import Objective
from alpacafarm_core.proximal import Critic, ProximalObjective
from alpacafarm_core.settings import Fitting, Lora, Sampling, Training
from alpacafarm_core.train import offline, online
from alpacafarm_core.train.models import load_policy, load_scorer
from tests.tiny import demonstrations, preferences

EXACT = Machine(device="cpu", precision="float32", micro_batch=4)
TRAINING = Training(
    learning_rate=2e-2, epochs=4, batch=8, max_length=256, lora=Lora(rank=8, alpha=16)
)


def data(objective: Objective):
    return demonstrations() if isinstance(objective, SFT) else preferences()


def weights(folder: Path) -> dict[str, Tensor]:
    return load_policy(folder, EXACT).model.state_dict()


@pytest.mark.parametrize("objective", [SFT(training=TRAINING), DPO(training=TRAINING)])
def test_the_loss_falls_and_a_plain_model_is_saved(tiny, tmp_path, objective):
    out = tmp_path / "out"
    steps = offline.train((tiny, None), out, data(objective), objective, EXACT)["steps"]
    assert steps[-1]["loss"] < 0.8 * steps[0]["loss"]
    before, after = weights(tiny), weights(out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.split(".")[-2].endswith("_proj")}
    assert load_file(out / "adapter" / "adapter_model.safetensors")


def test_dpo_with_its_own_base_as_reference_starts_at_exactly_ln_2(tiny, tmp_path):
    objective = DPO(training=TRAINING)
    steps = offline.train((tiny, None), tmp_path / "out", preferences(), objective, EXACT)["steps"]
    assert steps[0]["margin"] == 0 and steps[0]["loss"] == pytest.approx(0.693147, abs=1e-6)


def test_the_reward_model_learns_an_adapter_and_its_head(tiny, tmp_path):
    out = tmp_path / "out"
    notes = reward.fit(tiny, out, preferences(12), Fitting(training=TRAINING, held_out=4), EXACT)
    assert notes["steps"][-1]["loss"] < 0.3 * notes["steps"][0]["loss"]
    assert notes["accuracy"] == 1.0
    assert "base_model.model.score.weight" in load_file(out / "adapter/adapter_model.safetensors")
    assert load_scorer(out, EXACT).model.score.weight.any()


@pytest.mark.parametrize("training", [TRAINING, TRAINING.replace(lora=None)])
def test_the_fit_check_changes_no_bit_of_the_result(tiny, tmp_path, training):
    objective = DPO(training=training.replace(epochs=1))
    for check in ("yes", "no"):
        machine = EXACT.replace(fit_check=check)
        offline.train((tiny, None), tmp_path / check, preferences(), objective, machine)
    one, other = weights(tmp_path / "yes"), weights(tmp_path / "no")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_that_does_not_fit_is_refused_before_its_first_step(tiny, tmp_path):
    machine = EXACT.replace(fit_check="yes", memory=3 << 20)
    with pytest.raises(DoesNotFit, match=r"smallest change that fits.*ALPACAFARM_MICRO_BATCH="):
        dpo = DPO(training=DPO().training.replace(max_length=256))
        offline.train((tiny, None), tmp_path / "out", preferences(), dpo, machine)
    with pytest.raises(DoesNotFit):
        reward.fit(tiny, tmp_path / "rm", preferences(), Fitting(), machine)
    assert not (tmp_path / "out").exists()


PPO = ProximalObjective(
    steps=2,
    rollouts=16,
    minibatch=8,
    critic=Critic(init="policy"),
    sampling=Sampling(temperature=1.0, max_tokens=12),
    training=TRAINING.replace(schedule="constant", warmup=0.0),
)


@pytest.fixture(scope="module")
def scorer(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorer")
    training = TRAINING.replace(epochs=1)
    reward.fit(tiny, folder, preferences(), Fitting(training=training, held_out=0), EXACT)
    return folder


def test_policy_critic_and_reference_of_ppo_stand_on_one_base(tiny, scorer):
    course = online.enrol((tiny, scorer, None), PPO, EXACT)
    assert course.reference is course.policy.model
    learners = [*course.policy.model.parameters(), *course.critic.parameters()]
    learnt = [weight for weight in learners if weight.requires_grad]
    # Two adapters of rank 8 on 2 layers of 7 matrices, the sums of whose sides are 96; a head.
    assert sum(weight.numel() for weight in learnt) == 2 * 8 * 2 * 7 * 96 + 32
    rollouts = online.experience(course, [[0, 9, 9 + n] for n in range(8)], 0)
    assert torch.equal(rollouts.logprobs, rollouts.ref_logprobs) and not rollouts.values.any()


@pytest.mark.parametrize("machine", [EXACT, EXACT.replace(activation_checkpointing=True)])
def test_ppo_learns_adapters_and_saves_a_plain_model(tiny, scorer, tmp_path, machine):
    checked = machine.replace(fit_check="yes")
    out = tmp_path / "out"
    steps = online.roll_out((tiny, scorer, None), out, demonstrations(), PPO, checked)["steps"]
    assert steps[0]["kl"] == 0 and steps[1]["kl_k3"] > 0
    assert steps[1]["explained_variance"] != 0  # the critic has learnt something
    before, after = weights(tiny), weights(out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.split(".")[-2].endswith("_proj")}
    held = load_file(out / "adapter" / "adapter_model.safetensors")
    assert not any("critic" in name or "score" in name for name in held)


def test_the_fit_check_changes_no_bit_of_ppo(tiny, scorer, tmp_path):
    plain = PPO.replace(training=PPO.training.replace(lora=None, learning_rate=1e-3), steps=1)
    for check in ("yes", "no"):
        machine = EXACT.replace(fit_check=check)
        online.roll_out((tiny, scorer, None), tmp_path / check, demonstrations(), plain, machine)
    one, other = weights(tmp_path / "yes"), weights(tmp_path / "no")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_ppo_that_does_not_fit_is_refused_before_anything_is_sampled(tiny, scorer, tmp_path):
    machine = EXACT.replace(fit_check="yes", memory=6 << 20)
    with pytest.raises(DoesNotFit, match="smallest change that fits"):
        online.roll_out((tiny, scorer, None), tmp_path / "out", demonstrations(), PPO, machine)
