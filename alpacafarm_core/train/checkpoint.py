"""Checkpoints: all that a loop needs to go on as if it had never stopped.

Beside the folder that the weights will go to: weights, optimiser, random numbers of every library,
place in the data, rollouts in hand, KL coefficient and the figures so far. One is written next to
the last and renamed, so a kill leaves a whole one. Safetensors and JSON, but for DeepSpeed's own
files. A checkpoint made under other settings is refused by the name of the setting.
"""

import hashlib
import json
import random
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alpacafarm_core.errors import BadInput, StoreNotWritable
from alpacafarm_core.generate import weights_digest
from alpacafarm_core.machine import Machine
from alpacafarm_core.train.engine import Engine, gathered
from alpacafarm_core.train.models import begin, precision
from alpacafarm_core.train.team import Team
from alpacafarm_core.values import Value

SAID, HELD, RANDOM = "checkpoint.json", "held.safetensors", "random-{}"
NOTHING = object()
UNREADABLE = (
    OSError, ValueError, KeyError, RuntimeError, AssertionError, SafetensorError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class State:
    """Where a loop is: steps done, their figures, and what it holds."""

    step: int
    history: Sequence[Mapping[str, float]] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


class Checkpoints:
    """Those of one training: beside `out`, of a recipe that says what it is, in plain values."""

    def __init__(self, out: Path, recipe: Mapping[str, Any], machine: Machine) -> None:
        self.folder = out.with_name(f"{out.name}.checkpoints")
        leads = Team.here().leads
        self.feed = out.with_name(f"{out.name}.progress.jsonl") if leads else None
        self.recipe = json.loads(json.dumps(recipe))
        self.every, self.last = machine.checkpoint_seconds, time.monotonic()

    def save(self, engine: Engine, state: State, is_last: bool = False) -> bool:
        """Write one if the last was long ago, or if this is the last state; whether it was.

        All processes call it, and the first one's clock counts.
        """
        due = is_last or time.monotonic() - self.last >= self.every
        if not gathered(due)[0]:
            return False
        draft, done = self.folder / "draft", self.folder / _name(state)
        if engine.team.leads:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        gathered(None)
        self._write(engine, draft)
        gathered(None)
        if engine.team.leads:
            self._say(draft, state)
            # The same state may be there from before a kill; it stays until a newer one is.
            shutil.rmtree(draft) if done.exists() else draft.rename(done)
            for each in self._found():
                if each != done:
                    shutil.rmtree(each)
        gathered(None)
        self.last = time.monotonic()
        return True

    def _write(self, engine: Engine, draft: Path) -> None:
        try:
            engine.save(draft)
            _save_random(draft / RANDOM.format(engine.team.rank))
        except (OSError, SafetensorError) as error:
            raise StoreNotWritable(
                f"{draft}: a checkpoint cannot be written ({error}); make room, or raise "
                "ALPACAFARM_CHECKPOINT_SECONDS, and run again"
            ) from error

    def latest(self, engine: Engine) -> State | None:
        """Bring engine and random numbers to where the last checkpoint was; None without one.

        Raises BadInput when it is not of this recipe, naming the setting, or cannot be read.
        """
        for folder in self._found()[-1:]:
            try:
                said = json.loads((folder / SAID).read_text())
                self._compare(folder, said["recipe"])
                engine.load(folder)
                _load_random(folder / RANDOM.format(engine.team.rank))
                held = load_file(folder / HELD)
            except UNREADABLE as error:
                raise BadInput(
                    f"{folder}: cannot be gone on from ({error}); remove it to begin anew"
                ) from error
            return State(said["step"], said["history"], said["numbers"], held)
        return None

    def _found(self) -> list[Path]:
        """Whole ones, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def _say(self, draft: Path, state: State) -> None:
        save_file(
            {name: tensor.contiguous() for name, tensor in state.tensors.items()}, draft / HELD
        )
        said = {
            "recipe": self.recipe,
            "step": state.step,
            "numbers": dict(state.numbers),
            "history": [dict(figures) for figures in state.history],
        }
        (draft / SAID).write_text(json.dumps(said))

    def _compare(self, folder: Path, then: Mapping[str, Any]) -> None:
        before, now = dict(_flat(then)), dict(_flat(self.recipe))
        for name in sorted(before.keys() | now.keys()):
            was, is_ = before.get(name, NOTHING), now.get(name, NOTHING)
            if was != is_:
                raise BadInput(
                    f"{folder}: {name} was {_said(was)} and is {_said(is_)}; set it back to go "
                    "on, or remove the folder to begin anew"
                )


def origin(
    models: Sequence[Path | None], examples: Iterable[Any], settings: Value, machine: Machine
) -> dict[str, Any]:
    """What a training is: its models, the ids it learns from, its settings, and how it computes."""
    whole = hashlib.sha256()
    for example in examples:
        for ids in _ids(example):
            whole.update(len(ids).to_bytes(4, "big") + np.asarray(ids, dtype=np.int32).tobytes())
    return {
        "settings": settings.model_dump(mode="json"),
        "models": {str(i): _weights(folder) for i, folder in enumerate(models)},
        "data": whole.hexdigest(),
        "machine": {"precision": precision(machine), "device": begin(machine).type}
        | {"processes": Team.here().size, "zero": machine.stage()},
    }


def _ids(example: Any) -> Iterator[Sequence[int]]:
    """The lists of ids in an example, in order."""
    if example and isinstance(example[0], int | np.integer):
        yield example
        return
    for part in example:
        yield from _ids(part)


def _weights(folder: Path | None) -> str | None:
    """A model's folder by what is in it: its artifact's key, or a hash."""
    if folder is None:
        return None
    with suppress(OSError, ValueError):
        manifest = json.loads((folder / "manifest.json").read_text())
        return f"{manifest['kind']}/{manifest['key']}"
    return weights_digest(folder)


def _name(state: State) -> str:
    """Sorted by age: rollouts in hand come after the step before."""
    return f"step-{state.step:09d}{'-held' if state.tensors else ''}"


def _flat(thing: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, held in thing.items():
        if isinstance(held, Mapping):
            yield from _flat(held, f"{before}{name}.")
        else:
            yield f"{before}{name}", held


def _said(held: Any) -> str:
    return "not there" if held is NOTHING else json.dumps(held)


def _save_random(folder: Path) -> None:
    """The state of every generator that this process has."""
    folder.mkdir()
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda-{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    save_file(states, folder / "torch.safetensors")
    kind, keys, *rest = np.random.get_state(legacy=True)
    said = {"python": random.getstate(), "numpy": [kind, np.asarray(keys).tolist(), *rest]}
    (folder / "random.json").write_text(json.dumps(said))


def _load_random(folder: Path) -> None:
    states = load_file(folder / "torch.safetensors")
    torch.set_rng_state(states.pop("torch"))
    if states:
        torch.cuda.set_rng_state_all([states[f"cuda-{i}"] for i in range(len(states))])
    said = json.loads((folder / "random.json").read_text())
    version, numbers, gauss = said["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = said["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
