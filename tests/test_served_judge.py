"""A real judge over the real protocol: the world's base model behind vLLM's server on a CPU."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from alpacafarm_core.annotating import annotate_pairs
from alpacafarm_core.endpoints import ask_for
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.machine import Machine
from alpacafarm_core.panel import load
from alpacafarm_core.sources import WORLD_BASE

PATIENCE = 180
PANEL = """based_on: local
models:
  local: {{model: tiny, endpoint: '{url}'}}
"""
FRUIT = ["apple", "banana", "cherry", "date", "elder", "fig", "grape", "hops"]
PAIRS = [
    {"instruction": f"Name a fruit with {word[0]}.", "output_1": "No.", "output_2": word}
    for word in FRUIT
]


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's API while the module's tests run."""
    if not Machine().has_vllm():
        pytest.skip("vLLM is not installed here; `make demo` installs it where it can")
    model = tmp_path_factory.mktemp("served") / "tiny"
    shutil.copytree(WORLD_BASE, model)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}{{ m['content'] }}\n\n{% endfor %}"
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--host"]
    words += ["127.0.0.1", "--port", str(port), "--served-model-name", "tiny", "--enforce-eager"]
    words += ["--dtype", "float32", "--max-model-len", "1024", "--max-num-batched-tokens", "4096"]
    words += ["--no-enable-chunked-prefill"]  # a seeded request cannot be cut in two on a CPU
    environment = os.environ | {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    server = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE
        while not _answers(f"http://127.0.0.1:{port}"):
            assert server.poll() is None and time.monotonic() < until, "the server did not start"
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=60)


@pytest.mark.slow
def test_choices_and_log_probabilities_come_from_a_served_model(url: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(PANEL.format(url=url))
    panel = load(tmp_path / "mine.yaml")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for judge in panel.annotators:
        alone = panel.replace(annotators=(judge,))
        judged = annotate_pairs(PAIRS, alone, ask_for(panel.endpoint), ledger)
        assert set(judged.preferences["status"]) == {"ok"}, judged.spending.complaint
        graded = judged.preferences["preference"]
        if judge.name == "local_weighted":
            assert graded.n_unique() == len(PAIRS) and graded.is_between(1, 2).all()
        else:
            assert set(graded) <= {1.0, 2.0}
        again = annotate_pairs(PAIRS, alone, ask_for(panel.endpoint), ledger)
        assert again.spending.calls == 0 and again.preferences.equals(judged.preferences)
