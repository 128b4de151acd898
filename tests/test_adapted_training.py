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
from alpacafarm_core.settings import Fitting, Lora, Training
from alpacafarm_core.train import offline
from alpacafarm_core.train.models import load_policy, load_scorer
from tests.tiny import demonstrations, preferences, tiny_model

EXACT = Machine(device="cpu", precision="float32", micro_batch=4)
TRAINING = Training(
    learning_rate=2e-2, epochs=4, batch=8, max_length=256, lora=Lora(rank=8, alpha=16)
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


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
        offline.train((tiny, None), tmp_path / "out", preferences(), DPO(), machine)
    with pytest.raises(DoesNotFit):
        reward.fit(tiny, tmp_path / "rm", preferences(), Fitting(), machine)
    assert not (tmp_path / "out").exists()
