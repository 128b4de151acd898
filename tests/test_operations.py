"""The examples of docs/operations hold: they load, and what they name is there."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from prefect.settings import Settings
from prefect.settings.legacy import _get_valid_setting_names

from flows.cli import app

DOCS = Path("docs")
PLACES = [DOCS / "operations.md", *sorted((DOCS / "operations").iterdir())]
NAME = re.compile(r"\b(?:PREFECT|ALPACAFARM)_[A-Z_]+\b")
PYTHON = [
    *Path("flows").glob("*.py"),
    *Path("tasks").glob("*.py"),
    *Path("alpacafarm_core").glob("*.py"),
]


def understood(words):
    """Parse a command line as the program would, without running it."""
    command, *rest = words
    found = typer.main.get_command(app).commands[command]
    return found.make_context(command, list(rest)).params


@pytest.fixture(scope="module")
def ours():
    """Every variable of ours that the code reads."""
    from alpacafarm_core.machine import Machine

    text = "".join(file.read_text() for file in PYTHON)
    named = {f"ALPACAFARM_{name.upper()}" for name in Machine.model_fields}
    return named | set(re.findall(r'"(ALPACAFARM_[A-Z_]+)', text))


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_every_variable_that_is_named_is_read(place, ours):
    prefects = _get_valid_setting_names(Settings) | {"PREFECT_HOME"}
    for name in NAME.findall(place.read_text()):
        assert name in (prefects if name.startswith("PREFECT") else ours), name


def test_the_services_of_compose_run_commands_that_exist():
    held = yaml.safe_load((DOCS / "operations/compose.yaml").read_text())
    commands = {name: each.get("command") for name, each in held["services"].items()}
    server = understood(commands.pop("server"))
    assert server["with_server"] and server["host"] == "0.0.0.0" and not server["work"]
    secret = held["services"]["server"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    assert secret == held["x-client"]["PREFECT_API_AUTH_STRING"]
    queues = [understood(words)["queue"] for words in commands.values() if words]
    assert queues == [["default"], ["gpu"]]
    for each in held["services"].values():
        for volume in each.get("volumes", ()):
            name = volume.partition(":")[0]
            assert name in held["volumes"] or (DOCS / "operations" / name).is_file()


def test_kubernetes_manifests_name_what_they_hold():
    text = (DOCS / "operations/kubernetes.yaml").read_text()
    kinds = list(yaml.safe_load_all(text))
    workers = [each for each in kinds if each["kind"] == "Deployment"]
    claims = {each["metadata"]["name"] for each in kinds if each["kind"] == "PersistentVolumeClaim"}
    for each in workers:
        pod = each["spec"]["template"]
        assert each["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
        (container,) = pod["spec"]["containers"]
        understood(container["args"])
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or claim["claimName"] in claims
    queues = [each["spec"]["template"]["spec"]["containers"][0]["args"] for each in workers]
    assert [words[words.index("--queue") + 1] for words in queues[1:]] == ["default", "gpu"]


def test_the_service_of_systemd_starts_a_worker():
    lines = (DOCS / "operations/alpacafarm-worker.service").read_text().splitlines()
    (start,) = [line for line in lines if line.startswith("ExecStart=")]
    program, *words = shlex.split(start.partition("=")[2])
    assert program.endswith("/alpacafarm") and understood(words)["queue"] == ["gpu"]


def test_the_commands_of_the_page_exist():
    text = (DOCS / "operations.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("alpacafarm ")]
    assert len(lines) == 3
    for line in lines:
        understood(shlex.split(line)[1:])
