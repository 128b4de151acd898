"""One job: a function called here, or in a process of its own with a deadline.

On a GPU a stage's memory must be gone before the next begins and a hang must be killed, so the call
goes to `python -m alpacafarm_core.train.job FOLDER`: arguments in as JSON and Parquet, the result
out the same way. On a CPU the call is made in this process and imports are paid once.
"""

import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from alpacafarm_core.errors import TrainingFailed
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.machine import Machine
from alpacafarm_core.values import Value

CALL, RESULT, ROWS = "call.json", "result.json", "result.parquet"


def call(function: str, *arguments: Any, machine: Machine) -> Any:
    """Call `module:name` of the core with the arguments and the machine; gives figures or a frame.

    Raises TrainingFailed when a process of its own dies or outlives `machine.deadline` seconds.
    """
    if not machine.is_apart():
        return _found(function)(*arguments, machine)
    with tempfile.TemporaryDirectory(prefix="alpacafarm-") as name:
        folder = Path(name)
        held = [_packed(each, folder, i) for i, each in enumerate((*arguments, machine))]
        (folder / CALL).write_text(json.dumps({"function": function, "arguments": held}))
        _run(folder, function, machine.deadline)
        if (folder / ROWS).is_file():
            return pl.read_parquet(folder / ROWS)
        return json.loads((folder / RESULT).read_text())


def _run(folder: Path, function: str, deadline: float) -> None:
    words = [sys.executable, "-m", "alpacafarm_core.train.job", str(folder)]
    try:
        subprocess.run(words, check=True, timeout=deadline)
    except subprocess.TimeoutExpired as error:
        raise TrainingFailed(
            f"{function} ran past {deadline:.0f} s and was stopped; raise ALPACAFARM_DEADLINE"
        ) from error
    except subprocess.CalledProcessError as error:
        raise TrainingFailed(
            f"{function} ended with status {error.returncode}; its words are above"
        ) from error


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
        return {"ledger": str(thing.path)}
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
        case {"ledger": path}:
            return Ledger(path)
        case {"tuple": each}:
            return tuple(_unpacked(one, folder) for one in each)
    return held["plain"]


def _serve(folder: Path) -> None:
    asked = json.loads((folder / CALL).read_text())
    arguments = [_unpacked(held, folder) for held in asked["arguments"]]
    result = _found(asked["function"])(*arguments)
    if isinstance(result, pl.DataFrame):
        result.write_parquet(folder / ROWS)
    else:
        (folder / RESULT).write_text(json.dumps(result))


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
