"""What several tests stand on: a store in a temporary folder, Prefect without its services."""

import os
from pathlib import Path

for _name in ("ANALYTICS_ENABLED", "EPHEMERAL_ENABLED"):
    os.environ[f"PREFECT_SERVER_{_name}"] = "false"
for _name in (
    "EVENT_PERSISTER",
    "TRIGGERS",
    "TASK_RUN_RECORDER",
    "SCHEDULER",
    "LATE_RUNS",
    "FOREMAN",
    "CANCELLATION_CLEANUP",
    "PAUSE_EXPIRATIONS",
):
    os.environ[f"PREFECT_SERVER_SERVICES_{_name}_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ALPACAFARM_WORKERS"] = "1"
os.environ.pop("PREFECT_API_URL", None)

import pytest

from alpacafarm_core.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store, which stages use too."""
    monkeypatch.setenv("ALPACAFARM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ALPACAFARM_BUDGET", "")
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def prefect_server():
    """A Prefect server for this session."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def prefect(prefect_server, tmp_path: Path):
    """That server, quick and with records of its own."""
    from prefect.settings import (
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_LOCAL_STORAGE_PATH,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )

    with temporary_settings(
        {
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            PREFECT_LOCAL_STORAGE_PATH: tmp_path / "prefect",
            PREFECT_LOGGING_TO_API_ENABLED: False,
        }
    ):
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random Llama that trains in moments."""
    from tests.tiny import tiny_model

    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def scorer(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reward model fitted from it."""
    from alpacafarm_core import reward
    from alpacafarm_core.machine import Machine
    from alpacafarm_core.settings import Fitting, Training
    from tests.tiny import preferences

    training = Training(learning_rate=3e-3, epochs=3, batch=8, max_length=256)
    machine = Machine(device="cpu", precision="float32", micro_batch=4)
    folder = tmp_path_factory.mktemp("scorer")
    reward.fit(tiny, folder, preferences(12), Fitting(training=training, held_out=4), machine)
    return folder
