"""Secrets of the environment reach no file, log, parameter or page."""

import json
import logging
from pathlib import Path

import pytest

from alpacafarm_core.errors import BadInput
from alpacafarm_core.llm import Answer
from flows.labelling import Labelling, panel_of
from tests.test_cli import typed
from tests.workplace import free_port

PLANTED = "planted-4f1c9e"
NAMED = {
    "OPENAI_API_KEY": f"sk-{PLANTED}",
    "PREFECT_SERVER_API_AUTH_STRING": f"farm:{PLANTED}",
    "AWS_SECRET_ACCESS_KEY": f"aws/{PLANTED}",
    "AWS_SESSION_TOKEN": f"token-{PLANTED}",
    "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://farm:{PLANTED}@host/prefect",
    "ALPACAFARM_NOTIFY_URL": f"https://hooks.example.org/{PLANTED}",
    "WANDB_API_KEY": PLANTED,
    "HF_TOKEN": f"hf_{PLANTED}",
}


def holding(folder: Path, word: str) -> list[str]:
    """Files below a folder that hold a word."""
    return [
        str(file.relative_to(folder))
        for file in sorted(folder.rglob("*"))
        if file.is_file() and word.encode() in file.read_bytes()
    ]


@pytest.fixture
def planted(monkeypatch):
    for name, secret in NAMED.items():
        monkeypatch.setenv(name, secret)


@pytest.fixture
def pairs(tmp_path):
    rows = [{"instruction": "do", "output_1": "x", "output_2": "y"}]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    return tmp_path / "pairs.json"


PANEL = """
annotators:
  - name: mine
    endpoint: https://judge.example.org/v1
    model: judge
    price_per_1k_tokens: 0.01
    prompt: guided_1.txt
    prompt_with_input: guided_1_with_input.txt
    answer: {form: choice, first: 'Output \\(a\\)', second: 'Output \\(b\\)'}
"""


def fake(requests):
    """A judge that answers all; nobody is asked."""
    return [Answer("Output (a)", "stop", 10, 3, 0.1) for _ in requests]


def test_a_flow_keeps_no_secret_in_store_ledger_logs_or_prefects_database(
    planted, store, pairs, tmp_path, prefect, monkeypatch, caplog, capsys
):
    from flows.annotate import annotate

    (tmp_path / "mine.yaml").write_text(PANEL)
    monkeypatch.setattr("alpacafarm_core.endpoints.ask_for", lambda *_: fake)
    caplog.set_level(logging.DEBUG, "alpacafarm")
    work = Labelling(pairs=pairs, panel=str(tmp_path / "mine.yaml"))
    state = annotate(work, tmp_path / "labels.json", return_state=True)
    assert state.is_completed()
    assert holding(tmp_path, "Output (a)"), "the answer is found, so a secret would be"
    assert holding(tmp_path, PLANTED) == []
    said = caplog.text + "".join(capsys.readouterr())
    assert "annotate" in said and PLANTED not in said


def test_a_server_that_does_not_answer_is_named_without_its_address(
    pairs, store, monkeypatch, capsys, caplog
):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    address = f"http://user:{PLANTED}@127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", address)
    with temporary_settings({PREFECT_API_URL: address}):
        assert typed("import", pairs, "--as", "preferences", "--dataset", "mine") == 0
        assert typed("serve", "--no-work") == 2
    said = caplog.text + "".join(capsys.readouterr())
    assert "was not told" in said and "did not take the deployments" in said
    assert PLANTED not in said


def test_a_key_in_an_address_is_refused_and_not_repeated(pairs, tmp_path):
    address = f"https://user:{PLANTED}@judge.example.org/v1"
    with pytest.raises(BadInput, match="leave out user and password") as refused:
        panel_of(Labelling(pairs=pairs, panel="world", base_url=address))
    assert PLANTED not in str(refused.value)
    complaints = {
        address: "should match pattern",
        f"https://judge.example.org/v1?api_key={PLANTED}": "holds a secret; set OPENAI_API_KEY",
    }
    for held, complaint in complaints.items():
        (tmp_path / "mine.yaml").write_text(PANEL.replace("https://judge.example.org/v1", held))
        with pytest.raises(BadInput, match=complaint) as refused:
            panel_of(Labelling(pairs=pairs, panel=str(tmp_path / "mine.yaml")))
        assert PLANTED not in str(refused.value)
