"""Going on from a checkpoint: stopped anywhere, the end is the same to the last bit."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from alpacafarm_core import reward
from alpacafarm_core.errors import BadInput, StoreNotWritable
from alpacafarm_core.fitting import Odin, Views
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.proximal import Critic, KLPenalty, ProximalObjective
from alpacafarm_core.settings import Fitting, Lora, Sampling, Training
from alpacafarm_core.train import checkpoint, models, offline, online
from alpacafarm_core.train.checkpoint import Checkpoints, State
from alpacafarm_core.train.engine import Alone
from alpacafarm_core.train.logbook import TIMED
from tests.test_training import EXACT
from tests.tiny import demonstrations, preferences

EVERY_STEP = EXACT.replace(checkpoint_seconds=0)
TRAINING = Training(learning_rate=3e-3, epochs=3, batch=8, max_length=256)
PPO = ProximalObjective(
    steps=3,
    rollouts=16,
    minibatch=8,
    kl=KLPenalty(coef=0.1, target=2.0),
    sampling=Sampling(temperature=0.8, max_tokens=12),
    training=TRAINING.replace(schedule="constant", warmup=0.0),
)
ADAPTED = PPO.replace(
    critic=Critic(init="policy"),
    training=PPO.training.replace(lora=Lora(rank=4, dropout=0.5)),
)
Run = Callable[[Path], dict[str, Any]]


def runs(tiny: Path, scorer: Path) -> dict[str, Run]:
    """Each loop with all that it needs but the folder its weights go to."""
    dpo, fitting = DPO(training=TRAINING), Fitting(training=TRAINING, held_out=4)
    folders, data = (tiny, scorer, None), demonstrations()
    samples = pl.concat([demonstrations(3), demonstrations(3)]).with_row_index("place")
    varied = samples.with_columns(pl.col("instruction") + " " + (pl.col("place") % 12).cast(str))
    judged = fitting.replace(odin=Odin(), penalty=0.01, views=Views(size=4, width=8))
    return {
        "dpo": lambda out: offline.train((tiny, None), out, preferences(), dpo, EVERY_STEP),
        "reward": lambda out: reward.fit(tiny, out, preferences(6), fitting, EVERY_STEP),
        "judged": lambda out: reward.fit(tiny, out, (preferences(6), varied), judged, EVERY_STEP),
        "ppo": lambda out: online.roll_out(folders, out, data, PPO, EVERY_STEP),
        "adapters": lambda out: online.roll_out(folders, out, data, ADAPTED, EVERY_STEP),
    }


@pytest.fixture(params=["dpo", "reward", "judged", "ppo", "adapters"])
def run(request: pytest.FixtureRequest, tiny: Path, scorer: Path) -> Run:
    return runs(tiny, scorer)[request.param]


class Killed(BaseException):
    """Stands for a process that is no more."""


def stopped_after(monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    """Let a training die right after that many checkpoints."""
    plain, done = Checkpoints.save, iter(range(saves - 1))

    def save(self: Checkpoints, *given: Any, **named: Any) -> bool:
        plain(self, *given, **named)
        if next(done, None) is None:
            raise Killed
        return True

    monkeypatch.setattr(Checkpoints, "save", save)


def untimed(notes: dict[str, Any]) -> list[dict[str, float]]:
    return [{n: v for n, v in one.items() if n not in TIMED} for one in notes["steps"]]


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("saves", [1, 2, 5])
def test_a_stopped_training_ends_as_if_it_had_not_been(run, saves, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stopped_after(patch, saves)
        run(tmp_path / "stopped")
    resumed = run(tmp_path / "stopped")
    assert untimed(resumed) == untimed(whole)
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_a_finished_training_is_not_trained_again(run, tmp_path, monkeypatch):
    run(tmp_path / "out")
    monkeypatch.setattr(Alone, "step", lambda *_: pytest.fail("it trained"))
    assert run(tmp_path / "out")["steps"]


def test_rollouts_in_hand_are_not_sampled_again(tiny, scorer, tmp_path, monkeypatch):
    def roll_out() -> dict[str, Any]:
        return online.roll_out(
            (tiny, scorer, None), tmp_path / "out", demonstrations(), PPO, EVERY_STEP
        )

    with monkeypatch.context() as patch, pytest.raises(Killed):
        stopped_after(patch, 1)
        roll_out()
    sampled, experience = list[int](), online.experience
    monkeypatch.setattr(
        online, "experience", lambda *given: sampled.append(given[-1]) or experience(*given)
    )
    roll_out()
    assert sampled == [1, 2]


def test_a_changed_setting_is_refused_by_its_name(tiny, tmp_path):
    out, data = tmp_path / "out", preferences()
    offline.train((tiny, None), out, data, DPO(training=TRAINING), EVERY_STEP)
    other = DPO(training=TRAINING.replace(learning_rate=1e-3))
    with pytest.raises(BadInput, match=r"settings.training.learning_rate was 0.003 and is 0.001"):
        offline.train((tiny, None), out, data, other, EVERY_STEP)
    with pytest.raises(BadInput, match="data was"):
        offline.train((tiny, None), out, data[:8], DPO(training=TRAINING), EVERY_STEP)
    with pytest.raises(BadInput, match=r'machine.precision was "float32" and is "bfloat16"'):
        rough = EVERY_STEP.replace(precision="bfloat16")
        offline.train((tiny, None), out, data, DPO(training=TRAINING), rough)


def test_what_is_computed_alike_is_gone_on_from_whatever_it_is_called(tiny, tmp_path, monkeypatch):
    out, objective = tmp_path / "out", DPO(training=TRAINING)
    offline.train((tiny, None), out, preferences(), objective, EVERY_STEP)
    monkeypatch.setattr(models, "_cpu_has_bfloat16", lambda: False)
    left_open = EVERY_STEP.replace(precision="auto", device="auto", engine="transformers")
    assert offline.train((tiny, None), out, preferences(), objective, left_open)["steps"]
    monkeypatch.setattr(models, "_cpu_has_bfloat16", lambda: True)
    with pytest.raises(BadInput, match=r'machine.precision was "float32" and is "bfloat16"'):
        offline.train((tiny, None), out, preferences(), objective, left_open)


def test_a_disk_that_is_full_is_said_with_the_mend(tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Alone, "save", full)
    made = Checkpoints(tmp_path / "out", {}, EVERY_STEP)
    with pytest.raises(StoreNotWritable, match=r"No space left on device\); make room"):
        made.save(Alone([torch.nn.Linear(2, 1)], TRAINING), State(1))


def test_a_micro_batch_is_speed_and_may_change(tiny, tmp_path):
    out, objective = tmp_path / "out", DPO(training=TRAINING)
    offline.train((tiny, None), out, preferences(), objective, EVERY_STEP)
    less = EVERY_STEP.replace(micro_batch=1)
    assert offline.train((tiny, None), out, preferences(), objective, less)["steps"]


def test_a_damaged_checkpoint_is_refused_with_the_mend(tiny, tmp_path):
    out, objective = tmp_path / "out", DPO(training=TRAINING)
    offline.train((tiny, None), out, preferences(), objective, EVERY_STEP)
    (held,) = (tmp_path / "out.checkpoints").glob("step-*")
    (held / "weights.safetensors").write_bytes(b"not weights")
    with pytest.raises(BadInput, match=r"step-000000006: .*remove it to begin anew"):
        offline.train((tiny, None), out, preferences(), objective, EVERY_STEP)


def test_one_checkpoint_is_kept_and_half_a_one_is_none(tmp_path):
    model = torch.nn.Linear(2, 1)
    engine, made = Alone([model], TRAINING), Checkpoints(tmp_path / "out", {}, EVERY_STEP)
    made.save(engine, State(1))
    made.save(engine, State(1, tensors={"held": torch.ones(2)}))
    made.save(engine, State(2, numbers={"kl_coef": 0.5}))
    (tmp_path / "out.checkpoints" / "draft").mkdir()
    assert [each.name for each in made._found()] == ["step-000000002"]
    found = made.latest(engine)
    assert found is not None and (found.step, found.numbers) == (2, {"kl_coef": 0.5})


def test_between_two_checkpoints_some_time_goes_by(tmp_path):
    engine = Alone([torch.nn.Linear(2, 1)], TRAINING)
    rare = Checkpoints(tmp_path / "out", {}, EXACT.replace(checkpoint_seconds=3600))
    assert not rare.save(engine, State(1))
    assert rare.save(engine, State(2), is_last=True)


def test_every_generator_goes_on_where_it_was(tmp_path):
    import random

    import numpy as np

    def drawn() -> list[float]:
        return [random.random(), float(np.random.random()), float(torch.rand(()))]

    checkpoint._save_random(tmp_path / "random")
    first = drawn()
    checkpoint._load_random(tmp_path / "random")
    assert drawn() == first


SOON, LATE = ["dpo", "ppo"], ["reward", "judged", "adapters"]


@pytest.mark.parametrize(
    "what", [*SOON, *(pytest.param(each, marks=pytest.mark.slow) for each in LATE)]
)
def test_a_process_that_is_killed_goes_on(what, tiny, scorer, tmp_path):
    run, out = runs(tiny, scorer)[what], tmp_path / "killed"
    command = [sys.executable, "-m", "tests.resumed", what, str(tiny), str(scorer), str(out)]
    with subprocess.Popen(command) as process:
        while not list(tmp_path.glob("killed.checkpoints/step-00000000[1-9]*")):
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -9 and not out.exists()
    killed, whole = run(out), run(tmp_path / "whole")
    assert untimed(killed) == untimed(whole)
    assert same_weights(out, tmp_path / "whole")
