"""The hub's files through a stand-in on this machine; the client reads its settings at import."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from alpacafarm_core.errors import Missing
from alpacafarm_core.hub import NAMES, fetch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = b'[{"instruction": "Say hi", "input": "", "output": "hi"}]'
FOLDER = "/datasets/tatsu-lab/alpaca_farm/resolve/"

PROGRAM = f"""
import sys
from alpacafarm_core import files, hub
from alpacafarm_core.errors import FarmError
try:
    path = hub.fetch(sys.argv[1], sys.argv[2])
    assert hub.commit(sys.argv[2]) == "{COMMIT}"
    print(files.read(path, "demonstrations").row(0, named=True)["output"])
except FarmError as error:
    print(type(error).__name__, error)
"""


SOURCE = """
from alpacafarm_core import sources
from alpacafarm_core.setup import Hub
hub = sources.pinned(Hub(revision="main", preferences="human"))
shown = sources.demonstrations(hub, 5)["output"].to_list()
asked = sources.instructions(hub, "preference", 5)["instruction"].to_list()
print(hub.revision, shown, asked, sources.pinned(hub) == hub)
"""


class StandIn(BaseHTTPRequestHandler):
    """A hub with one commit, `main` and every table but the evaluation set."""

    asked: list[str] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        revision, _, name = self.path.removeprefix(FOLDER).partition("/")
        if revision not in (COMMIT, "main"):
            self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        elif name.removesuffix(".json") not in NAMES or "evaluation" in name:
            self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self.answer(200, {"ETag": '"etag"', "X-Repo-Commit": COMMIT}, CONTENT)

    do_GET = do_HEAD

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The address of a hub that runs while the test does."""
    StandIn.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def told(tmp_path):
    """Fetch in a process of its own, with an empty cache, and return what it printed."""

    def run(name: str, revision: str = COMMIT, program: str = PROGRAM, **settings: str) -> str:
        bare = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-c", program, name, revision]
        env = {**os.environ, **bare, **settings}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return run


def test_a_table_is_downloaded_once_and_then_read_without_a_hub(told, endpoint):
    assert told("alpaca_instructions/sft", HF_ENDPOINT=endpoint) == "hi"
    assert f"GET {FOLDER}{COMMIT}/alpaca_instructions/sft.json" in StandIn.asked
    before = len(StandIn.asked)
    assert told("alpaca_instructions/sft", HF_ENDPOINT=endpoint) == "hi"
    assert told("alpaca_instructions/sft", HF_HUB_OFFLINE="1") == "hi"
    assert len(StandIn.asked) == before


def test_a_branch_name_is_followed_and_its_commit_known(told, endpoint):
    assert told("alpaca_human_preference", "main", HF_ENDPOINT=endpoint) == "hi"
    assert told("alpaca_human_preference", "main", HF_HUB_OFFLINE="1") == "hi"


def test_a_source_at_a_branch_is_the_one_at_its_commit(told, endpoint):
    said = told("", program=SOURCE, HF_ENDPOINT=endpoint)
    assert said == f"{COMMIT} ['hi'] ['Say hi'] True"


def test_an_unknown_revision_or_file_is_missing(told, endpoint):
    assert told("alpaca_instructions/val", "f" * 40, HF_ENDPOINT=endpoint).startswith("Missing")
    line = told("alpaca_farm_evaluation", HF_ENDPOINT=endpoint)
    assert line.startswith("Missing alpaca_farm_evaluation.json of tatsu-lab/alpaca_farm")


def test_offline_and_uncached_the_mend_is_told(told):
    line = told("alpaca_instructions/sft", HF_HUB_OFFLINE="1")
    assert line.startswith("BadInput alpaca_instructions/sft.json")
    assert "go online" in line


@pytest.mark.slow  # the client tries again for 20 seconds
def test_a_hub_that_does_not_answer_is_told_alike(told):
    assert "go online" in told("alpaca_instructions/sft", HF_ENDPOINT="http://127.0.0.1:9")


def test_an_unknown_table_is_refused_before_the_hub_is_asked():
    with pytest.raises(Missing, match="there are alpaca_instructions/sft"):
        fetch("alpaca_instructions/test", COMMIT)
