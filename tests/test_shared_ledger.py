"""The ledger that machines share: what one has bought no other buys."""

import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from alpacafarm_core import places
from alpacafarm_core.errors import BadInput, Missing, StoreNotWritable, Unreachable
from alpacafarm_core.ledger import Call, Counts, Ledger, Purchase, Record, digest, reopened
from alpacafarm_core.shared_ledger import SharedRecords, named
from tests.workplace import free_port, postgres, postgres_programs

psycopg = pytest.importorskip("psycopg")

needs_postgres = pytest.mark.skipif(postgres_programs() is None, reason="no Postgres here")


def call(key: str = "call", text: str = "Output (a)", size: int = 1, price: float = 0.5) -> Call:
    return Call(key, size, "judge", text, "stop", 10, 2, 0.1, price)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a Postgres of these tests."""
    with postgres() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """A database of this test's own."""
    name = f"farm_{os.urandom(6).hex()}"
    with psycopg.connect(server, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}")
    return f"{server.rpartition('/')[0]}/{name}"


@pytest.fixture
def ledger(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setenv("ALPACAFARM_LEDGER", url)
    opened = reopened("")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:planted@db.example:6543/farm", "postgresql://db.example:6543/farm"),
        ("postgres://db/farm?password=planted", "postgresql://db/farm"),
        ("postgresql:///farm?host=/run/postgresql", "postgresql:///farm"),
        ("postgresql://me:planted@[::1]:5432/farm", "postgresql://[::1]:5432/farm"),
    ],
)
def test_a_database_is_shown_without_its_user_and_password(url, shown):
    assert named(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:p@planted@db/farm",
        "postgresql://me:p/planted@db/farm",
        "postgresql://me:planted",
        "postgresql://me:p#planted@db/farm",
        "mysql://me:planted@db/farm",
        "ledger.sqlite",
        "",
    ],
)
def test_an_address_that_does_not_split_cleanly_is_refused_and_not_repeated(url):
    with pytest.raises(BadInput, match="ALPACAFARM_LEDGER is no postgresql://") as refusal:
        named(url)
    assert "planted" not in str(refusal.value)


def test_a_database_that_does_not_answer_is_named_without_its_password():
    url = f"postgresql://me:planted@127.0.0.1:{free_port()}/farm"
    with pytest.raises(Unreachable, match=r"127.0.0.1:\d+/farm does not answer") as refusal:
        SharedRecords(url)
    assert "planted" not in str(refusal.value) and refusal.value.__cause__ is None


def test_a_traceback_shows_nothing_of_the_address():
    url = "postgresql://me:a@127.0.0.1:9/farm?port=planted"
    with pytest.raises(Unreachable) as refused:
        SharedRecords(url)
    assert "planted" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.slow
@needs_postgres
def test_no_such_database_and_a_wrong_right_are_named_with_the_mend(server, url):
    with pytest.raises(Missing, match="no such database; make it with createdb"):
        SharedRecords(f"{server.rpartition('/')[0]}/nowhere")
    with psycopg.connect(server, autocommit=True) as session:
        session.execute("CREATE ROLE guest LOGIN")
    with (
        closing(SharedRecords(url.replace("farm:planted@", "guest@"))) as guest,
        pytest.raises(StoreNotWritable, match="GRANT CREATE ON DATABASE"),
    ):
        guest.lay({"samples": [("a", b"x")]})


@pytest.mark.slow
@needs_postgres
def test_looking_at_a_new_database_makes_nothing_in_it(ledger, url, tmp_path):
    with places.looked_into(str(tmp_path / "none")) as (_, seen):
        assert seen.known(["row"]) == {} and seen.counts() == Counts(0, 0, 0, 0.0)
    with psycopg.connect(url) as session:
        assert session.execute("SELECT to_regclass('alpacafarm.calls')").fetchone() == (None,)


@pytest.mark.slow
@needs_postgres
def test_it_remembers_as_the_file_does(ledger, tmp_path):
    both = (ledger, Ledger(tmp_path / "ledger.sqlite"))
    for each in both:
        each.append([Purchase(call("batch", "a NUL \x00 ä", size=5), ("first", "second"))])
        each.append([Purchase(call("Batch", "other", size=5), ("second",))])
        each.append([Purchase(call("alone", "Output (b)"), ("second",))])
        each.append([Purchase(call("alone", "changed"), ("second",))])
        each.append_samples({"a": b'{"text": "hm"}', "b": b"\x00"})
        each.append_samples({"a": b"later"})
    keys = ["second", "first", "never", "second"]
    assert both[0].known(keys) == both[1].known(keys)
    assert ledger.known(["first"])["first"] == Record(call("batch", "a NUL \x00 ä", size=5), 0)
    assert ledger.known(["second"])["second"].call.text == "Output (b)"
    assert ledger.samples_known(["a", "b", "c"]) == {"a": b'{"text": "hm"}', "b": b"\x00"}
    assert ledger.calls_known(["alone", "never"]) == {"alone"}
    assert both[0].counts() == both[1].counts() == Counts(3, 2, 2, 1.5)


@pytest.mark.slow
@needs_postgres
def test_many_machines_begin_at_the_same_moment(ledger):
    def write(number: int) -> None:
        keys = [f"row {row}" for row in range(200)]
        with closing(reopened("")) as mine:
            mine.append([Purchase(call(f"{number} {key}"), (key,)) for key in keys])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    assert ledger.counts()[:2] == (1600, 200)


@pytest.mark.slow
@needs_postgres
def test_twenty_thousand_rows_are_claimed_at_once_and_are_free_afterwards(ledger):
    keys = [digest(number) for number in range(20_000)]
    for _ in range(2):
        with ledger.claimed(keys):
            pass


@pytest.mark.slow
@needs_postgres
def test_rows_that_one_buys_another_waits_for_and_others_go_on(ledger):
    order: list[str] = []

    def second() -> None:
        with closing(reopened("")) as other, other.claimed(["b", "c"]):
            order.append("second")

    with ThreadPoolExecutor(1) as threads:
        with ledger.claimed(["a", "b"]):
            with closing(reopened("")) as other, other.claimed(["d"]):
                waiting = threads.submit(second)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            order.append("first")
        waiting.result(timeout=20)
    assert order == ["first", "second"]


HOLDER = """
import sys, time
from alpacafarm_core.ledger import reopened
with reopened("").claimed(["a", "b"]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
@needs_postgres
def test_what_a_killed_machine_claimed_is_free_at_once(ledger):
    doomed = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert doomed.stdout is not None and doomed.stdout.readline() == "held\n"
    doomed.kill()
    doomed.communicate()
    with ledger.claimed(["b", "c"]):
        pass


@pytest.mark.slow
@needs_postgres
def test_a_connection_that_breaks_is_opened_again_and_nothing_is_lost(ledger, server):
    ledger.append([Purchase(call("one"), ("row 1",))])
    with psycopg.connect(server, autocommit=True) as session:
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname <> 'postgres'"
        )
    ledger.append([Purchase(call("two"), ("row 2",))])
    assert set(ledger.known(["row 1", "row 2"])) == {"row 1", "row 2"}


@pytest.mark.slow
@needs_postgres
def test_a_job_in_another_process_is_told_no_password(ledger, tmp_path):
    from alpacafarm_core.train.job import _packed, _unpacked

    said = _packed(ledger, tmp_path, 0)
    assert said == {"ledger": ""}
    with closing(_unpacked(said, tmp_path)) as there:
        assert there.name == ledger.name
