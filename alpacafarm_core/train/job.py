"""Jobs: functions called here, in one of a few lasting workers, or each in a process of its own.

On a GPU a stage's memory must be gone before the next begins and a hang must be killed, so a call
goes to `python -m alpacafarm_core.train.job FOLDER`: arguments in as JSON and Parquet, the result
out the same way. On a CPU two workers with half the cores each do nearly twice the work of one
process with all of them on small models; they last, so imports are paid once, and go when the
process they work for is gone.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl

from alpacafarm_core import errors
from alpacafarm_core.errors import TrainingFailed
from alpacafarm_core.ledger import Ledger, reopened
from alpacafarm_core.machine import Machine
from alpacafarm_core.train.team import TOGETHER, Team
from alpacafarm_core.values import Value

CALL, RESULT, ROWS = "call.json", "result.json", "result.parquet"

TRAININGS = (
    "reward:fit",
    "pairwise:fit",
    "train.offline:train",
    "train.online:roll_out",
    "train.conditioned:roll_out",
)

# One job at a time in this process: loading a model is not safe in several threads at once.
HERE = threading.Lock()


def call(function: str, *arguments: Any, machine: Machine) -> Any:
    """Call `module:name` of the core with the arguments and the machine; gives figures or a frame.

    Raises TrainingFailed when a process of its own dies or outlives `machine.deadline` seconds.
    """
    return call_each(function, [arguments], machine)[0]


def call_together(function: str, *arguments: Any, machine: Machine) -> Any:
    """The same for a training, which the machine may have several processes do together."""
    if machine.trains_together():
        return _call_apart(function, arguments, machine)
    return call(function, *arguments, machine=machine)


def call_each(function: str, calls: Sequence[tuple[Any, ...]], machine: Machine) -> list[Any]:
    """The same function on several lists of arguments, side by side where the machine can."""
    if machine.is_apart():
        return [_call_apart(function, arguments, machine) for arguments in calls]
    if machine.at_once() == 1:
        with HERE:
            return [_found(function)(*arguments, machine) for arguments in calls]
    pool = _workers(machine.at_once())
    sent = [pool.submit(_work, function, held, machine.shared()) for held in calls]
    return [_awaited(each, function) for each in sent]


@cache
def _workers(number: int) -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(number, get_context("spawn"), _enlist, (os.getpid(),))
    for _ in range(number):
        pool.submit(importlib.import_module, "transformers.models.llama.modeling_llama")
    return pool


def _enlist(master: int) -> None:
    """Begin as a worker: leave interrupts to the master, and go when it has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _follow(master)


def _follow(master: int, is_here: bool = True) -> None:
    """Let this process end soon after its parent does, or its master where that one runs here."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent and not (is_here and _is_gone(master)):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _work(function: str, arguments: tuple[Any, ...], machine: Machine) -> Any:
    return _found(function)(*arguments, machine)


def _awaited(sent: "Future[Any]", function: str) -> Any:
    try:
        return sent.result()
    except BrokenProcessPool as error:
        raise TrainingFailed(
            f"a worker died during {function}, perhaps for want of memory; "
            "set ALPACAFARM_WORKERS=1 and run again"
        ) from error


def _call_apart(function: str, arguments: tuple[Any, ...], machine: Machine) -> Any:
    # Other machines see the store, but not this one's temporary files.
    within = arguments[1].parent if machine.hostfile else None
    with tempfile.TemporaryDirectory(prefix="alpacafarm-", dir=within) as name:
        folder = Path(name)
        held = [_packed(each, folder, i) for i, each in enumerate((*arguments, machine))]
        asked = {"function": function, "arguments": held, "master": os.getpid()}
        asked |= {"host": socket.gethostname(), "together": is_together(machine, function)}
        (folder / CALL).write_text(json.dumps(asked))
        words = [*launcher(machine, function, folder), str(folder)]
        _run(words, function, folder, machine.deadline)
        if (folder / ROWS).is_file():
            return pl.read_parquet(folder / ROWS)
        match json.loads((folder / RESULT).read_text()):
            case {"error": kind, "message": message}:
                raise getattr(errors, kind)(message)
            case {"result": result}:
                return result


def is_together(machine: Machine, function: str) -> bool:
    """Whether a launcher starts this job: only trainings have something to do together."""
    return machine.trains_together() and function in TRAININGS


def launcher(machine: Machine, function: str, folder: Path) -> list[str]:
    """The words that start a job: alone, or a training in several processes here or elsewhere."""
    job, python = "alpacafarm_core.train.job", [sys.executable, "-m"]
    if not is_together(machine, function):
        return [*python, job]
    if machine.hostfile:
        hosts = ["--hostfile", machine.hostfile, "--master_addr", machine.first_host()]
        options = ["--no_ssh_check", "--no_local_rank", "--module"]
        return [*python, "deepspeed.launcher.runner", *hosts, *options, job]
    here = ["--standalone", "--nproc_per_node", str(machine.processes)]
    return [*python, "torch.distributed.run", *here, f"--log_dir={folder / 'log'}", "--module", job]


def _run(words: Sequence[str], function: str, folder: Path, deadline: float) -> None:
    """Run a process group until it ends or its time is over."""
    with subprocess.Popen(words, start_new_session=True, env=_surroundings()) as process:
        try:
            status = process.wait(deadline)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise TrainingFailed(
                f"{function} ran past {deadline:.0f} s and was stopped; raise ALPACAFARM_DEADLINE"
            ) from error
    if status and not (folder / RESULT).is_file():
        raise TrainingFailed(f"{function} ended with status {status}; its words are above")


def _surroundings() -> dict[str, str]:
    """The environment with this Python's programs first: DeepSpeed calls some of them by name."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path}


def _found(thing: str) -> Any:
    module, _, name = thing.partition(":")
    return getattr(importlib.import_module(f"{str(__package__).partition('.')[0]}.{module}"), name)


def _packed(thing: Any, folder: Path, number: int) -> dict[str, Any]:
    if isinstance(thing, pl.DataFrame):
        thing.write_parquet(folder / f"{number}.parquet")
        return {"rows": f"{number}.parquet"}
    if isinstance(thing, Value):
        kind = type(thing)
        name = f"{kind.__module__.partition('.')[2]}:{kind.__qualname__}"
        return {"value": name, "is": thing.model_dump_json()}
    if isinstance(thing, Path):
        return {"path": str(thing)}
    if isinstance(thing, Ledger):
        return {"ledger": thing.records.address}
    if isinstance(thing, tuple):
        return {"tuple": [_packed(each, folder, 100 * (number + 1) + i) for i, each in
                          enumerate(thing)]}  # fmt: skip
    return {"plain": thing}


def _unpacked(held: dict[str, Any], folder: Path) -> Any:
    match held:
        case {"rows": name}:
            return pl.read_parquet(folder / name)
        case {"value": kind, "is": text}:
            return _found(kind).model_validate_json(text)
        case {"path": path}:
            return Path(path)
        case {"ledger": address}:
            return reopened(address)
        case {"tuple": each}:
            return tuple(_unpacked(one, folder) for one in each)
    return held["plain"]


def _serve(folder: Path) -> None:
    """Do what the folder asks; of several processes the first writes the result, any an error."""
    asked = json.loads((folder / CALL).read_text())
    if asked["together"]:
        os.environ[TOGETHER] = "yes"
    leads = Team.here().leads
    _follow(asked["master"], is_here=asked["host"] == socket.gethostname())
    arguments = [_unpacked(held, folder) for held in asked["arguments"]]
    try:
        result = _found(asked["function"])(*arguments)
    except errors.FarmError as error:
        said = {"error": type(error).__name__, "message": str(error)}
        _write(folder, said)
        # The others may wait for this one; the launcher ends them when it sees the status.
        sys.exit(error.exit_code)
    if not leads:
        return
    if isinstance(result, pl.DataFrame):
        return result.write_parquet(folder / ROWS)
    _write(folder, {"result": result})


def _write(folder: Path, said: dict[str, Any]) -> None:
    """Whole, or not at all."""
    draft = folder / f"{RESULT}-{os.getpid()}"
    draft.write_text(json.dumps(said))
    draft.rename(folder / RESULT)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
