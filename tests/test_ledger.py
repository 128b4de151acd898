"""The ledger: what was answered stays answered."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alpacafarm_core.errors import Damaged, StoreNotWritable
from alpacafarm_core.ledger import Call, Counts, Ledger, Purchase, Record, call_key, digest
from alpacafarm_core.llm import Message, Request
from alpacafarm_core.records import FileRecords


def call(key: str = "call", text: str = "Output (a)", size: int = 1, price: float = 0.5) -> Call:
    return Call(key, size, "judge", text, "stop", 10, 2, 0.1, price)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_a_row_is_found_at_its_place_in_the_call(ledger: Ledger) -> None:
    bought = call(size=2)
    ledger.append([Purchase(bought, ("first", "second"))])
    held = ledger.known(["second", "first", "never"])
    assert held == {"first": Record(bought, 0), "second": Record(bought, 1)}
    assert ledger.counts() == Counts(calls=1, rows=2, samples=0, price=0.5)


def test_what_is_there_is_never_overwritten(ledger: Ledger) -> None:
    ledger.append([Purchase(call(text="Output (a)"), ("row",))])
    ledger.append([Purchase(call(text="Output (b)"), ("row",))])
    assert ledger.known(["row"])["row"].call.text == "Output (a)"


def test_a_row_asked_for_alone_counts_more_than_its_batch(ledger: Ledger) -> None:
    ledger.append([Purchase(call("alone", "Output (b)"), ("row",))])
    ledger.append([Purchase(call("batch", "?", size=5), ("row", "other"))])
    assert ledger.known(["row"])["row"].call.key == "alone"


def test_an_interrupt_waits_for_the_answers_in_hand(tmp_path: Path) -> None:
    presses = ["Ctrl-C"]

    class Interrupted(FileRecords):
        @contextmanager
        def _transaction(self) -> Iterator[sqlite3.Connection]:
            with super()._transaction() as file:
                if presses and presses.pop():
                    signal.raise_signal(signal.SIGINT)
                yield file

    ledger = Ledger(Interrupted(tmp_path / "ledger.sqlite"))
    with pytest.raises(KeyboardInterrupt):
        ledger.append([Purchase(call(), ("row",))])
    assert list(ledger.known(["row"])) == ["row"]


def test_thousands_of_keys_are_looked_up_at_once(ledger: Ledger) -> None:
    keys = [f"row {number}" for number in range(2500)]
    ledger.append([Purchase(call(key), (key,)) for key in keys])
    assert list(ledger.known(keys + keys)) and len(ledger.known(keys + keys)) == 2500


def test_samples_are_kept_as_they_are(ledger: Ledger) -> None:
    ledger.append_samples({"a": b'{"text": "hm"}', "b": b"\x00"})
    ledger.append_samples({"a": b"later"})
    assert ledger.samples_known(["a", "b", "c"]) == {"a": b'{"text": "hm"}', "b": b"\x00"}


def test_a_second_opening_sees_the_same(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.sqlite"
    Ledger(path).append([Purchase(call(), ("row",))])
    assert list(Ledger(path).known(["row"])) == ["row"]


def test_parts_of_a_key_cannot_run_into_each_other() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("1") != digest(1)
    assert len(digest("\ud800")) == 64


def test_a_call_is_keyed_by_all_that_reaches_the_model() -> None:
    plain = Request("judge", (Message("user", "hm"),), 1.0, 20)
    others = [
        Request("other", (Message("user", "hm"),), 1.0, 20),
        Request("judge", (Message("system", "hm"),), 1.0, 20),
        Request("judge", (Message("user", "hm"),), 0.0, 20),
        Request("judge", (Message("user", "hm"),), 1.0, 20, seed=1),
        Request("judge", (Message("user", "hm"),), 1.0, 20, endpoint="http://elsewhere"),
    ]
    assert len({call_key(request) for request in [plain, *others]}) == 6


def test_a_file_that_is_no_ledger_is_named_with_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"no database at all, but long enough to have a header" * 20)
    with pytest.raises(Damaged, match=r"ledger\.sqlite.*move it away"):
        Ledger(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreNotWritable, match="file/ledger"):
        Ledger(tmp_path / "file" / "ledger.sqlite")


WRITER = """
import sys
from alpacafarm_core.ledger import Call, Ledger, Purchase
ledger, name, count = Ledger(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(count):
    key = f"{name} {number}"
    ledger.append([Purchase(Call(key, 1, "judge", "x", "stop", 1, 1, 0.0, 0.0), (key,))])
    print(number, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_write_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writers = [writer(path, name, 20) for name in "abc"]
    for each in writers:
        each.communicate()
    assert [each.returncode for each in writers] == [0, 0, 0]
    assert Ledger(path).counts().rows == 60


def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    doomed = writer(path, "a", 100_000)
    assert doomed.stdout is not None
    seen = [int(doomed.stdout.readline()) for _ in range(10)]
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.communicate()
    assert len(Ledger(path).known(f"a {number}" for number in seen)) == 10
