"""Hits and misses of a store on S3-compatible storage beside those of a folder.

    python -m benchmarks.remote_store [--artifacts 40] [--megabytes 4]

The storage is moto's server on loopback, so this tells what the store asks for and not what a
network adds: round trips and bandwidth come on top. Each figure is the time of one artifact.
"""

import argparse
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import polars as pl
from moto.server import ThreadedMotoServer

from alpacafarm_core.artifacts import Instructions
from alpacafarm_core.places import store_at
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.store import Made, Store

BUCKET = "farm-bench"
RECIPE = Recipe.of("instructions", 1, {})


def main() -> None:
    """Print a line for each kind of access, with the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=int, default=40)
    parser.add_argument("--megabytes", type=float, default=4.0, help="of each artifact")
    chosen = parser.parse_args()
    keys = [Instructions(key=f"{number:016x}") for number in range(chosen.artifacts)]
    with tempfile.TemporaryDirectory() as folder, storage():
        local = Store(Path(folder, "local"))
        os.environ["ALPACAFARM_CACHE"] = str(Path(folder, "here"))
        here = store_at(f"s3://{BUCKET}/x")
        made = [rows(chosen.megabytes) for _ in keys]
        tell("make and keep", *(timed(s, keys, lambda s, k, r: keep(s, k, r), made)
                                for s in (local, here)))  # fmt: skip
        tell("has, again", *(timed(s, keys, lambda s, k, _: s.has(k)) for s in (local, here)))
        tell("read, again", *(timed(s, keys, lambda s, k, _: s.read(k)) for s in (local, here)))
        os.environ["ALPACAFARM_CACHE"] = str(Path(folder, "there"))
        there = store_at(f"s3://{BUCKET}/x")
        tell("read, first on a machine",
             timed(local, keys, lambda s, k, _: s.read(k)),
             timed(there, keys, lambda s, k, _: s.read(k)))  # fmt: skip
        started = time.perf_counter()
        store_at(f"s3://{BUCKET}/x")
        print(f"opening, which lists {len(keys)} manifests: {time.perf_counter() - started:.4f} s")


def rows(megabytes: float) -> pl.DataFrame:
    """A table of about so many megabytes that nothing compresses."""
    text = [secrets.token_hex(512) for _ in range(int(megabytes * 2**20 / 512))]
    return pl.DataFrame({"instruction": text, "input": "", "dataset": "bench"})


def keep(store: Store, key: Instructions, held: pl.DataFrame) -> None:
    """What a stage does on a miss, apart from making the rows."""
    if not store.has(key):
        with store.lock(key):
            store.write(key, Made(held), RECIPE, time.time())


def timed(
    store: Store,
    keys: list[Instructions],
    access: Callable[[Store, Instructions, pl.DataFrame], object],
    tables: list[pl.DataFrame] | None = None,
) -> float:
    """Mean seconds of one access."""
    started = time.perf_counter()
    for number, key in enumerate(keys):
        access(store, key, tables[number] if tables else pl.DataFrame())
    return (time.perf_counter() - started) / len(keys)


def tell(what: str, local: float, shared: float) -> None:
    """One line."""
    print(f"{what:26} folder {local:.5f} s   S3 {shared:.5f} s   {shared / local:6.1f} x")


@contextmanager
def storage() -> Iterator[None]:
    """A server on loopback that forgets all in the end, and the variables that name it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    try:
        yield
    finally:
        server.stop()


if __name__ == "__main__":
    main()
