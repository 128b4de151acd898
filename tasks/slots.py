"""A place at the GPU: jobs of all flow runs take turns there, and what is cached waits for nobody.

A slot is held by the job alone, after it is known that the stage must be made. Prefect's own limits
on tasks would hold up cached ones too, as they are taken before the cache is looked into.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from alpacafarm_core.machine import Machine
from tasks.stage import in_flow_run

VARIABLE = "ALPACAFARM_GPU_LIMIT"


def limit() -> str:
    """The concurrency limit on the server that this machine's GPU jobs count towards."""
    return os.environ.get(VARIABLE) or "gpu"


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Hold a slot while the block computes on a GPU; without a GPU or a flow run, just the block.

    A limit that is not on the server holds nobody up, and a slot that cannot be renewed does not
    end the job.
    """
    if not (in_flow_run() and Machine.here().uses_gpu()):
        yield
        return
    from prefect.concurrency.sync import concurrency

    with concurrency(limit(), occupy=1, strict=False):
        yield
