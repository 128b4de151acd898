"""Jobs side by side: on a CPU in lasting workers, on GPUs each in a process with its own GPUs."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alpacafarm_core.machine import Machine
from alpacafarm_core.train.job import call, call_each


def call_beside(function: str, calls: Sequence[tuple[Any, ...]], machine: Machine) -> list[Any]:
    """The same function on several lists of arguments, as many at once as the machine says."""
    if machine.data_parallel == 1 or not machine.is_apart():
        return call_each(function, calls, machine)
    with ThreadPoolExecutor(machine.data_parallel) as threads:
        sent = [
            threads.submit(call, function, *arguments, machine=machine.lent(number))
            for number, arguments in enumerate(calls)
        ]
        return [each.result() for each in sent]
