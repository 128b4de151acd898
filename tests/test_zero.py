"""Two processes on a CPU learn what one process learns: DeepSpeed's stages 2 and 3."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alpacafarm_core import reward
from alpacafarm_core.errors import BadInput, TrainingFailed
from alpacafarm_core.machine import Machine
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.settings import Fitting
from alpacafarm_core.train import engine
from alpacafarm_core.train.engine import Team, share
from alpacafarm_core.train.job import _surroundings, call_together, launcher
from tests.test_resume import PPO, TRAINING, untimed
from tests.test_training import EXACT
from tests.tiny import demonstrations, preferences, tiny_model

SLOW = 1e-4  # epsilon of AdamW, which else makes a rounding error in a tiny gradient a whole step
HERE = EXACT.replace(threads=1, checkpoint_seconds=0)
STEADY = TRAINING.replace(adam_epsilon=SLOW)
REASON = "DeepSpeed builds its channel between processes with a C++ compiler"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason=REASON)


def trainings(tiny: Path, scorer: Path, out: Path, machine: Machine) -> dict[str, Any]:
    """DPO, a reward model and PPO, each with its figures; the weights go below `out`."""
    from alpacafarm_core.train import offline, online

    fitting = Fitting(training=STEADY, held_out=4)
    ppo, models = PPO.replace(training=STEADY), (tiny, scorer, None)
    return {
        "dpo": offline.train(
            (tiny, None), out / "dpo", preferences(), DPO(training=STEADY), machine
        ),
        "reward": reward.fit(tiny, out / "reward", preferences(6), fitting, machine),
        "ppo": online.roll_out(models, out / "ppo", demonstrations(), ppo, machine),
    }


def main() -> None:
    """What each of the processes does: the trainings, one after the other."""
    tiny, scorer, out = map(Path, sys.argv[1:4])
    machine = HERE.replace(processes=2, zero=int(sys.argv[4]))
    with engine.together(machine) as team:
        notes = trainings(tiny, scorer, out, machine)
        if team.leads:
            (out / "notes.json").write_text(json.dumps(notes))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def scorer(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorer")
    reward.fit(tiny, folder, preferences(12), Fitting(training=TRAINING, held_out=4), EXACT)
    return folder


@pytest.fixture(scope="module")
def alone(tiny: Path, scorer: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("alone")
    return out, trainings(tiny, scorer, out, HERE)


def launched(*words: str) -> None:
    start = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--module"]
    command = [sys.executable, "-m", *start, "tests.test_zero", *words]
    subprocess.run(command, check=True, env=_surroundings())


@needs_compiler
@pytest.mark.parametrize("stage", [2, 3])
def test_two_processes_learn_what_one_learns(stage, tiny, scorer, alone, tmp_path):
    launched(str(tiny), str(scorer), str(tmp_path), str(stage))
    folder, expected = alone
    found = json.loads((tmp_path / "notes.json").read_text())
    for what in ("dpo", "reward", "ppo"):
        for one, other in zip(untimed(found[what]), untimed(expected[what]), strict=True):
            one.pop("accuracy", None)  # a margin of zero but for rounding has either sign
            assert one == pytest.approx({n: other[n] for n in one}, abs=2e-4, rel=2e-3)
        ours, theirs = (load_file(f / what / "model.safetensors") for f in (tmp_path, folder))
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], atol=2e-4, rtol=1e-3)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_job_of_two_processes_goes_on_from_its_checkpoint(stage, tiny, tmp_path):
    machine = HERE.replace(processes=2, zero=stage)
    long, short = DPO(training=STEADY), DPO(training=STEADY.replace(epochs=2))

    def train(out: str, objective: DPO) -> dict[str, Any]:
        given = ((tiny, None), tmp_path / out, preferences(), objective)
        return call_together("train.offline:train", *given, machine=machine)

    train("out", long)
    # As if it had been stopped before the last checkpoint, and that one were all there is.
    whole = load_file(tmp_path / "out" / "model.safetensors")
    (tmp_path / "out" / "model.safetensors").unlink()
    again = train("out", long)
    assert len(again["steps"]) == 6
    for name, weight in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(weight, whole[name])
    with pytest.raises(Exception, match=r"settings.training.epochs was 3 and is 2"):
        train("out", short)


@needs_compiler
@pytest.mark.slow
def test_a_hostfile_names_the_machines(tiny, tmp_path):
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    machine = HERE.replace(hostfile=str(tmp_path / "hosts"), zero=2)
    given = ((tiny, None), tmp_path / "out", preferences(), DPO(training=STEADY))
    notes = call_together("train.offline:train", *given, machine=machine)
    assert len(notes["steps"]) == 6 and (tmp_path / "out" / "model.safetensors").is_file()


def test_a_failure_in_one_of_the_processes_is_the_jobs(tiny, tmp_path):
    machine = HERE.replace(processes=2)
    given = ((tiny, None), tmp_path / "out", preferences()[:0], DPO(training=STEADY))
    with pytest.raises(TrainingFailed, match="none of 0 rows"):
        call_together("train.offline:train", *given, machine=machine)


def test_only_trainings_are_launched_together():
    two = Machine(processes=2)
    assert "torch.distributed.run" in launcher(two, "train.offline:train")
    assert "torch.distributed.run" not in launcher(two, "generate:generate")


def test_a_hostfile_says_where_all_meet(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("# the cluster\nworker-1 slots=8\nworker-2 slots=8\n")
    words = launcher(Machine(hostfile=str(hosts)), "reward:fit")
    assert "deepspeed.launcher.runner" in words and "worker-1" in words
    with pytest.raises(BadInput, match="no machine in it"):
        launcher(Machine(hostfile=str(tmp_path / "none")), "reward:fit")


def test_every_process_looks_equally_often():
    micro_batches = [[0], [1], [2]]
    first, second = (share(micro_batches, Team(rank, 2)) for rank in (0, 1))
    assert first == [([0], 1.0), ([2], 1.0)]
    assert second == [([1], 1.0), ([0], 0.0)]


if __name__ == "__main__":
    main()
