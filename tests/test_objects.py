"""Storage that speaks S3, as a server on loopback does."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from alpacafarm_core.errors import BadInput, Missing, StoreNotWritable, Unreachable
from alpacafarm_core.leases import Leases
from alpacafarm_core.objects import S3Objects, probe
from alpacafarm_core.places import store_at

pytestmark = pytest.mark.skipif(find_spec("flask") is None, reason="needs moto's server")
boto3 = pytest.importorskip("boto3")

SECRET = "planted-secret"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a server that forgets all in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # In a process of its own: vLLM touches every name of every module, and Flask's may not be.
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        while not _listens(port):
            assert server.poll() is None
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def address(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A store's address in a bucket of this test."""
    for name, held in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "planted",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "ALPACAFARM_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, held)
    bucket = f"farm-{time.monotonic_ns()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/team/one"


@pytest.fixture
def objects(address: str) -> S3Objects:
    return S3Objects(address)


def test_what_is_laid_is_read_copied_listed_and_dropped(objects, tmp_path):
    objects.lay("a/1", b"one")
    (tmp_path / "two").write_bytes(b"two!")
    objects.lay("a/2", tmp_path / "two")
    content, tag = objects.read("a/1") or (b"", "")
    listing = objects.listing("a/")
    assert content == b"one" and tag == listing.held[0].tag
    assert [(each.name, each.size) for each in listing.held] == [("a/1", 3), ("a/2", 4)]
    assert abs((listing.now - listing.held[0].laid).total_seconds()) <= 10
    assert objects.fetch("a/2", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"two!"
    objects.drop("a/1")
    objects.drop("a/1")
    assert objects.read("a/1") is None and not objects.fetch("a/1", tmp_path / "none")
    assert [each.name for each in objects.listing("").held] == ["a/2"]


def test_of_many_that_lay_one_name_one_has_it(objects):
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda n: objects.lay_new("lease", b"%d" % n), range(8)))
    assert sum(won) == 1 and objects.read("lease")[0] == b"%d" % won.index(True)
    assert objects.lay_new("lease", b"%d" % won.index(True))  # its own, told a second time
    probe(objects, "probe")
    assert objects.read("probe") is None


def test_leases_on_it_are_held_by_one_and_run_out(objects):
    leases = Leases(objects, ttl=1, turn=0.1)
    objects.lay_new("leases/x/00000001", b"dead")
    with leases.held("x"):
        assert [each.name for each in objects.listing("leases/").held] == ["leases/x/00000002"]


def test_a_bucket_that_is_not_there_is_named(address):
    with pytest.raises(Missing, match="no bucket nowhere-at-all; make it"):
        store_at("s3://nowhere-at-all/x")


def test_a_storage_that_is_not_there_is_named_with_the_mend(address, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("alpacafarm_core.objects.TRIES", 1)
    with pytest.raises(Unreachable, match=r"does not answer \(EndpointConnection.*AWS_ENDPOINT"):
        store_at(address)


def test_an_endpoint_that_is_none_is_named(address, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(BadInput, match="AWS_ENDPOINT_URL is http"):
        store_at(address)


def test_no_credentials_are_asked_for_by_their_names(address, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(BadInput, match="set AWS_ACCESS_KEY_ID"):
        store_at(address)


@pytest.mark.parametrize(
    ("code", "kind"),
    [("AccessDenied", StoreNotWritable), ("SlowDown", Unreachable), ("NotImplemented", BadInput)],
)
def test_a_refusal_is_told_without_the_secret(objects, code, kind):
    from botocore.exceptions import ClientError

    def refused() -> None:
        raise ClientError({"Error": {"Code": code, "Message": SECRET}}, "PutObject")

    with pytest.raises(kind, match=r"s3://farm-\d+/team/one") as refusal:
        objects._answer(refused)
    assert SECRET not in str(refusal.value)


MAKER = """
import sys, time
import polars as pl
from pathlib import Path
from alpacafarm_core.artifacts import Instructions
from alpacafarm_core.places import store_at
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.store import Made

store, one = store_at(sys.argv[1]), Instructions(key="0" * 16)
store.leases.ttl, store.leases.turn = 2.0, 0.1
rows = pl.DataFrame({"instruction": ["x"], "input": [""], "dataset": [sys.argv[2]]})
with store.lock(one):
    if not store.has(one):
        print("making", flush=True)
        time.sleep(float(sys.argv[3]))
        store.write(one, Made(rows), Recipe.of("instructions", 1, {}), time.time())
print("read", store.read(one)["dataset"][0], flush=True)
"""


def maker(address: str, cache: Path, name: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAKER, address, name, str(seconds)]
    surroundings = os.environ | {"ALPACAFARM_CACHE": str(cache)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings)


@pytest.mark.slow
def test_two_machines_that_want_one_key_do_the_work_once(address, tmp_path):
    both = [maker(address, tmp_path / name, name, 0.5) for name in ("a", "b")]
    words = [process.communicate(timeout=60)[0].split() for process in both]
    assert sum("making" in each for each in words) == 1
    assert words[0][-1] == words[1][-1]


@pytest.mark.slow
def test_a_machine_that_is_killed_at_work_is_followed_by_another(address, tmp_path):
    killed = maker(address, tmp_path / "a", "a", 60)
    assert killed.stdout is not None and killed.stdout.readline() == "making\n"
    killed.kill()
    killed.communicate()
    follower = maker(address, tmp_path / "b", "b", 0)
    assert follower.communicate(timeout=60)[0].split() == ["making", "read", "b"]
