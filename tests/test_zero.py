"""Two processes on a CPU learn what one process learns: DeepSpeed's stages 2 and 3."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alpacafarm_core import reward
from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.grpo import GroupObjective
from alpacafarm_core.settings import Fitting
from alpacafarm_core.train import engine
from alpacafarm_core.train.engine import share
from alpacafarm_core.train.job import _surroundings, call_together, launcher
from alpacafarm_core.train.team import TOGETHER, Team
from tests.test_fitting import EACH, ranked, samples
from tests.test_resume import PPO, TRAINING, untimed
from tests.test_training import EXACT
from tests.tiny import demonstrations, preferences

SLOW = 1e-4  # epsilon of AdamW, which else makes a rounding error in a tiny gradient a whole step
HERE = EXACT.replace(threads=1, checkpoint_seconds=0)
STEADY = TRAINING.replace(adam_epsilon=SLOW)
REASON = "DeepSpeed builds its channel between processes with a C++ compiler"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason=REASON)


def trainings(tiny: Path, scorer: Path, out: Path, machine: Machine) -> dict[str, Any]:
    """DPO, reward models, PPO and GRPO, each with its figures; the weights go below `out`.

    The one group of GRPO is sampled by all processes together.
    """
    from alpacafarm_core.train import offline, online

    fitting = Fitting(training=STEADY, held_out=4)
    judged = EACH["all"].replace(training=STEADY)
    ppo, models = PPO.replace(training=STEADY), (tiny, scorer, None)
    group = PPO.sampling.replace(n=16)
    grpo = GroupObjective(steps=2, rollouts=16, minibatch=8, sampling=group, training=STEADY)
    return {
        "dpo": offline.train(
            (tiny, None), out / "dpo", preferences(), DPO(training=STEADY), machine
        ),
        "reward": reward.fit(tiny, out / "reward", preferences(6), fitting, machine),
        "judged": reward.fit(tiny, out / "judged", (ranked(), samples()), judged, machine),
        "ppo": online.roll_out(models, out / "ppo", demonstrations(), ppo, machine),
        "grpo": online.roll_out(models, out / "grpo", demonstrations(), grpo, machine),
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
def alone(tiny: Path, scorer: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("alone")
    return out, trainings(tiny, scorer, out, HERE)


def launched(*words: str) -> None:
    start = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--module"]
    command = [sys.executable, "-m", *start, "tests.test_zero", *words]
    subprocess.run(command, check=True, env=_surroundings() | {TOGETHER: "yes"})


@needs_compiler
@pytest.mark.parametrize("stage", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_learns(stage, tiny, scorer, alone, tmp_path):
    launched(str(tiny), str(scorer), str(tmp_path), str(stage))
    folder, expected = alone
    found = json.loads((tmp_path / "notes.json").read_text())
    for what in ("dpo", "reward", "judged", "ppo", "grpo"):
        for one, other in zip(untimed(found[what]), untimed(expected[what]), strict=True):
            one.pop("accuracy", None)  # a margin of zero but for rounding has either sign
            assert one == pytest.approx({n: other[n] for n in one}, abs=2e-4, rel=2e-3)
        ours, theirs = (load_file(f / what / "model.safetensors") for f in (tmp_path, folder))
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], atol=2e-4, rtol=1e-3)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_job_of_two_processes_that_is_killed_goes_on(stage, tiny, scorer, alone, tmp_path):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words += ["--module", "tests.test_zero", str(tiny), str(scorer), str(tmp_path), str(stage)]
    surroundings = _surroundings() | {TOGETHER: "yes"}
    with subprocess.Popen(words, env=surroundings, start_new_session=True) as process:
        while not list(tmp_path.glob("dpo.checkpoints/step-00000000[2-4]")):
            assert process.poll() is None
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    (begun,) = tmp_path.glob("dpo.checkpoints/step-*")
    assert begun.name < "step-000000006" and not (tmp_path / "dpo").exists()
    machine = HERE.replace(processes=2, zero=stage)
    given = ((tiny, None), tmp_path / "dpo", preferences(), DPO(training=STEADY))
    notes = call_together("train.offline:train", *given, machine=machine)
    assert len(notes["steps"]) == 6
    ours, theirs = (load_file(f / "dpo" / "model.safetensors") for f in (tmp_path, alone[0]))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-4, rtol=1e-3)


@needs_compiler
@pytest.mark.slow
def test_a_hostfile_names_the_machines(tiny, tmp_path):
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    machine = HERE.replace(hostfile=str(tmp_path / "hosts"), zero=2)
    given = ((tiny, None), tmp_path / "out", preferences(), DPO(training=STEADY))
    notes = call_together("train.offline:train", *given, machine=machine)
    assert len(notes["steps"]) == 6 and (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_failure_in_one_of_the_processes_is_the_jobs(tiny, tmp_path):
    machine = HERE.replace(processes=2)
    given = ((tiny, None), tmp_path / "out", preferences()[:0], DPO(training=STEADY))
    with pytest.raises(BadInput, match="none of 0 rows"):
        call_together("train.offline:train", *given, machine=machine)


def test_only_trainings_are_launched_together():
    two = Machine(processes=2)
    assert "torch.distributed.run" in launcher(two, "train.offline:train", Path("job"))
    assert "torch.distributed.run" not in launcher(two, "generate:generate", Path("job"))


def test_a_clusters_variables_are_not_a_launchers(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert Team.here() == Team(0, 1)
    monkeypatch.setenv(TOGETHER, "yes")
    assert Team.here() == Team(0, 8)


def test_a_hostfile_says_where_all_meet(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("# the cluster\nworker-1 slots=8\nworker-2 slots=8\n")
    words = launcher(Machine(hostfile=str(hosts)), "reward:fit", tmp_path)
    assert "deepspeed.launcher.runner" in words and "worker-1" in words
    hosts.write_text("# nobody yet\n")
    with pytest.raises(BadInput, match="no machine in it"):
        Machine(hostfile=str(hosts)).check()
    with pytest.raises(BadInput, match="no such file"):
        Machine(hostfile=str(tmp_path / "none")).check()


def test_every_process_looks_equally_often():
    micro_batches = [[0], [1], [2]]
    first, second = (share(micro_batches, Team(rank, 2)) for rank in (0, 1))
    assert first == [([0], 1.0), ([2], 1.0)]
    assert second == [([1], 1.0), ([0], 0.0)]


if __name__ == "__main__":
    main()
