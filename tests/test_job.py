"""Jobs: the same call gives the same result here, in a worker and in a process of its own."""

from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core.errors import TrainingFailed
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Fitting, Sampling, Training
from alpacafarm_core.train.job import call, call_each
from tests.test_resume import untimed
from tests.tiny import PROMPTS, preferences, tiny_model

HERE = Machine(device="cpu", precision="float32", engine="transformers", workers=1, apart="no")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("changes", [{"workers": 2}, {"apart": "yes"}])
def test_answers_are_the_same_wherever_they_are_drawn(folder, tmp_path, changes):
    rows = pl.DataFrame([{"instruction": i, "input": x, "dataset": "d"} for i, x in PROMPTS])
    sampling = Sampling(max_tokens=8, seed=3)

    def drawn(name: str, machine: Machine) -> pl.DataFrame:
        ledger = Ledger(tmp_path / f"{name}.sqlite")
        halves = [(folder, half, sampling, ledger) for half in (rows[:2], rows[2:])]
        return pl.concat(call_each("generate:generate", halves, machine))

    assert drawn("there", HERE.replace(**changes)).equals(drawn("here", HERE))


def test_weights_are_the_same_in_a_process_of_their_own(folder, tmp_path):
    fitting = Fitting(training=Training(epochs=1, batch=8), held_out=2)
    figures = []
    for name, machine in (("here", HERE), ("apart", HERE.replace(apart="yes"))):
        (tmp_path / name).mkdir()
        arguments = (folder, tmp_path / name, preferences(), fitting)
        notes = call("reward:fit", *arguments, machine=machine)
        figures.append(notes | {"steps": untimed(notes)})
    assert figures[0] == figures[1]
    here, apart = (tmp_path / name / "model.safetensors" for name in ("here", "apart"))
    assert here.read_bytes() == apart.read_bytes()


def test_a_job_that_fails_or_hangs_apart_is_a_failure_here(folder, tmp_path):
    apart = HERE.replace(apart="yes")
    undecided = preferences().with_columns(preference=1.5)
    with pytest.raises(TrainingFailed, match="no pair has a decision"):
        call("reward:fit", folder, tmp_path, undecided, Fitting(), machine=apart)
    slow = apart.replace(deadline=0.05)
    with pytest.raises(TrainingFailed, match="raise ALPACAFARM_DEADLINE"):
        call("reward:fit", folder, tmp_path, undecided, Fitting(), machine=slow)
