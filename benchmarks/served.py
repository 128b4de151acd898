"""The judges of the world as a server on loopback, for the benchmarks that need one."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def served(*options: str) -> Iterator[str]:
    """The URL of a server while the block runs; `options` are those of `world.server`."""
    words = [sys.executable, "-m", "alpacafarm_core.world.server", "--port", "0", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
