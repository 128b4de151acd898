"""The Batch API: half the price, the same keys, and a killed run pays nothing twice."""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from alpacafarm_core import batch_api
from alpacafarm_core.batch_api import MEMORY, BatchApi
from alpacafarm_core.endpoints import ask_for
from alpacafarm_core.llm import Answer, Message, Request


class Office(ThreadingHTTPServer):
    """A Batch API that answers `x` with `x!`, refuses `bad`, and is done after so many looks."""

    def __init__(self, looks: int = 1) -> None:
        super().__init__(("127.0.0.1", 0), Clerk)
        self.looks = looks
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.status = "completed"
        self.refuses = self.torn = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def asked(self) -> list[str]:
        """The prompts of all batches that were made."""
        lines = [self.files[b["input_file_id"]].splitlines() for b in self.batches.values()]
        return [text_of(json.loads(line)["body"]) for some in lines for line in some]

    def upload(self, content: str) -> dict[str, Any]:
        self.files[f"file-{len(self.files)}"] = content
        return {"id": f"file-{len(self.files) - 1}", "object": "file"}

    def make(self, body: dict[str, Any]) -> dict[str, Any]:
        batch = {"id": f"batch-{len(self.batches)}", "object": "batch", "status": "in_progress"}
        self.batches[batch["id"]] = batch | body | {"looks": 0}
        return batch

    def look(self, id: str) -> dict[str, Any]:
        batch = self.batches[id]
        batch["looks"] += 1
        if batch["looks"] == self.looks:
            batch["status"] = self.status
            lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
            good = [done(line) for line in lines if text_of(line["body"]) != "bad"]
            bad = [refused(line) for line in lines if text_of(line["body"]) == "bad"]
            whole = "".join(good)
            batch["output_file_id"] = self.upload(whole[: -9 if self.torn else None])["id"]
            batch["error_file_id"] = self.upload("".join(bad))["id"] if bad else None
        return batch


def text_of(body: dict[str, Any]) -> str:
    return str(body.get("prompt") or body["messages"][0]["content"])


def done(line: dict[str, Any]) -> str:
    said = text_of(line["body"]) + "!"
    choice = {"message": {"content": said}, "text": said, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    if line["url"] == "/v1/completions":
        del choice["message"]
    response = {"status_code": 200, "body": {"choices": [choice], "usage": usage}}
    held = {"custom_id": line["custom_id"], "response": response}
    return json.dumps(held, ensure_ascii=False) + "\n"


def refused(line: dict[str, Any]) -> str:
    response = {"status_code": 400, "body": {"error": {"message": "no"}}}
    return json.dumps({"custom_id": line["custom_id"], "response": response}) + "\n"


class Clerk(BaseHTTPRequestHandler):
    """Turns HTTP into the office's verbs."""

    server: Office

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.server.refuses:
            return self.reply({"error": {"message": "bad key sk-123"}}, 401)
        if self.path == "/v1/files":
            # One part of the form holds the JSON lines.
            lines = re.findall(r'^\{"custom_id".*$', body, re.MULTILINE)
            return self.reply(self.server.upload("\n".join(line.strip() for line in lines)))
        return self.reply(self.server.make(json.loads(body)))

    def do_GET(self) -> None:
        kind, id = [*self.path.split("?")[0].split("/"), ""][2:4]
        if kind == "files":
            return self.reply(self.server.files[id])
        if id:
            held = self.server.look(id) if id in self.server.batches else {}
            return self.reply(held, 200 if held else 404)
        held = {"object": "list", "data": list(self.server.batches.values()), "has_more": False}
        return self.reply(held)

    def reply(self, held: Any, status: int = 200) -> None:
        body = (held if isinstance(held, str) else json.dumps(held)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if held == str(held) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing."""


@pytest.fixture
def office() -> Iterator[Office]:
    with Office() as office:
        threading.Thread(target=office.serve_forever, args=(0.01,), daemon=True).start()
        yield office
        office.shutdown()


def requests_of(*texts: str, model: str = "m", role: str = "user") -> list[Request]:
    return [Request(model, (Message(role, text),), 1.0, 20) for text in texts]


def texts(answers: Sequence[Answer]) -> list[str]:
    return [answer.text or answer.error for answer in answers]


def test_answers_come_back_in_order_at_half_the_price(office: Office, tmp_path: Path) -> None:
    ask = BatchApi(office.url, tmp_path, poll=0.01)
    answers = ask(requests_of("a", "b", "a"))
    assert texts(answers) == ["a!", "b!", "a!"]
    assert {answer.discount for answer in answers} == {0.5}
    assert office.asked() == ["a", "b"]


def test_a_model_and_a_path_have_a_batch_each(office: Office, tmp_path: Path) -> None:
    ask = BatchApi(office.url, tmp_path, poll=0.01)
    requests = requests_of("a") + requests_of("b", model="n") + requests_of("c", role="text")
    assert texts(ask(requests)) == ["a!", "b!", "c!"]
    made = {batch["endpoint"] for batch in office.batches.values()}
    assert (len(office.batches), made) == (3, {"/v1/chat/completions", "/v1/completions"})


def test_a_large_batch_is_made_in_parts(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "MOST_REQUESTS", 2)
    assert len(BatchApi(office.url, tmp_path, poll=0.01)(requests_of(*"abcde"))) == 5
    assert len(office.batches) == 3


def test_what_is_refused_fails_alone(office: Office, tmp_path: Path) -> None:
    answers = BatchApi(office.url, tmp_path, poll=0.01)(requests_of("a", "bad"))
    assert texts(answers) == ["a!", "HTTP 400, in a batch"]
    assert answers[1].finish_reason == "rejected"


def test_a_killed_run_waits_for_its_batch_and_makes_none(office: Office, tmp_path: Path) -> None:
    office.looks = 3
    dying = BatchApi(office.url, tmp_path, poll=30.0)
    killed = threading.Thread(target=dying, args=(requests_of("a", "b"),), daemon=True)
    killed.start()
    while not office.batches or not next(iter(office.batches.values()))["looks"]:
        threading.Event().wait(0.01)
    answers = BatchApi(office.url, tmp_path, poll=0.01)(requests_of("a", "b", "c"))
    assert texts(answers) == ["a!", "b!", "c!"]
    assert office.asked() == ["a", "b", "c"]


def test_a_batch_whose_id_was_not_yet_written_down_is_found(office: Office, tmp_path: Path) -> None:
    BatchApi(office.url, tmp_path, poll=0.01)(requests_of("a"))
    memory = tmp_path / MEMORY
    first = memory.read_text().splitlines()[0]
    memory.write_text(first + '\n{"tag": "torn')
    assert texts(BatchApi(office.url, tmp_path, poll=0.01)(requests_of("a"))) == ["a!"]
    assert office.asked() == ["a"]


def test_answers_that_were_taken_are_not_waited_for_again(office: Office, tmp_path: Path) -> None:
    ask = BatchApi(office.url, tmp_path, poll=0.01)
    assert texts(ask(requests_of("bad"))) == ["HTTP 400, in a batch"]
    ask(requests_of("bad"))
    assert office.asked() == ["bad", "bad"]


def test_answers_that_nobody_took_are_kept(office: Office, tmp_path: Path) -> None:
    ask = BatchApi(office.url, tmp_path, poll=0.01)
    both = requests_of("a", "b")
    next(iter(ask.arrivals(both)))
    assert texts(ask(requests_of("a"))) == ["a!"]
    assert texts(ask(requests_of("b"))) == ["b!"]
    assert office.asked() == ["a", "b"]


def test_an_expired_batch_gives_what_it_has(office: Office, tmp_path: Path) -> None:
    office.status = "expired"
    assert texts(BatchApi(office.url, tmp_path, poll=0.01)(requests_of("a"))) == ["a!"]


def test_an_endpoint_that_refuses_fails_all_and_keeps_the_key(
    office: Office, tmp_path: Path
) -> None:
    office.refuses = True
    (answer,) = BatchApi(office.url, tmp_path)(requests_of("a"))
    assert answer.error == f"no batch from {office.url} (HTTP 401); run again to go on"


def test_ends_of_lines_inside_an_answer_do_not_tear_it(office: Office, tmp_path: Path) -> None:
    text = "one\u2028two\x85three"
    assert texts(BatchApi(office.url, tmp_path, poll=0.01)(requests_of(text))) == [text + "!"]


def test_a_torn_line_costs_one_answer(office: Office, tmp_path: Path) -> None:
    ask = BatchApi(office.url, tmp_path, poll=0.01)
    office.torn = True
    assert texts(ask(requests_of("a", "b")))[0] == "a!"
    assert texts(ask(requests_of("b"))) == ["the batch is completed and has no answer to this"]


def test_a_batch_that_is_gone_says_what_mends_it(office: Office, tmp_path: Path) -> None:
    ask = BatchApi(office.url, tmp_path, poll=0.01)
    arrivals = ask.arrivals(requests_of("a"))
    next(iter(arrivals))
    office.batches.clear()
    (answer,) = ask(requests_of("a"))
    assert "HTTP 404: set the key that it was made with, or forget it in batches" in answer.error


def test_the_environment_chooses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPACAFARM_BATCH_API", "1")
    assert isinstance(ask_for("http://localhost:1/v1", tmp_path), BatchApi)
