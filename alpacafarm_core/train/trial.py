"""The fit check: one micro-step before a training starts, and a refusal where it would not fit.

What `room.py` predicts is shown as a table, then held against the peak and the time of one forward
and backward pass of the largest micro-batch. Gradients are dropped and random numbers put back, so
a training that passes is the one it would have been. Several processes that share the weights
cannot try out a step alone, so there the prediction decides.
"""

import ctypes
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import nlargest
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from alpacafarm_core.errors import DoesNotFit
from alpacafarm_core.machine import Machine
from alpacafarm_core.objective import Past
from alpacafarm_core.train import lean
from alpacafarm_core.train.batches import Padded, Room, alike
from alpacafarm_core.train.corpus import Corpus
from alpacafarm_core.train.engine import Learn
from alpacafarm_core.train.lora import is_adapted, rank_of
from alpacafarm_core.train.models import autocast, begin
from alpacafarm_core.train.room import (
    FLOAT,
    Case,
    Frozen,
    Need,
    Shape,
    Work,
    gib,
    predict,
    smallest_change,
)
from alpacafarm_core.train.team import Team
from alpacafarm_core.train.tokens import Example

log = logging.getLogger("alpacafarm.training")

UNLIMITED = 1 << 60
CONTROL = {
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}
MATRIX = 1024
NOTHING = Frozen()


class Found(NamedTuple):
    """What a training needs and the bytes it may take; `measured` in a micro-step, or predicted."""

    need: Need
    free: int
    measured: bool


class Trial(NamedTuple):
    """A training to be tried: who learns from which examples, so many a step, and who looks on.

    `lesson` takes a batch's rows, and what the steps before were like, and gives what is learned
    from one of its micro-batches; `batch` is such a micro-batch.
    """

    models: Sequence[Any]
    examples: Sequence[Example]
    size: int
    lesson: Callable[[list[int], Past], Learn]
    batch: Callable[[list[int]], Padded]
    frozen: Frozen = NOTHING


def check_on(trial: Trial, machine: Machine) -> Found | None:
    """Whether a training fits, tried on the longest batch there could be; see `check`."""
    if not wanted(machine, begin(machine)):
        return None
    models, examples, size, lesson, batch, frozen = trial
    rows = nlargest(size, range(len(examples)), key=lengths(examples).__getitem__)
    parts = [(batch(micro), micro) for micro in alike(examples, rows, Room.of(machine))]
    tokens = sum(part.ids.numel() for part, _ in parts)
    largest, micro = max(parts, key=lambda each: each[0].ids.numel())

    def micro_step() -> None:
        lesson(rows, Past())(micro)[0].backward()  # type: ignore[no-untyped-call]

    work = work_of(largest, len(micro), tokens, machine)
    return check(models, micro_step, work, machine, frozen)


def lengths(examples: Sequence[Example]) -> Sequence[int]:
    """Tokens of each; a corpus knows them without reading it."""
    if isinstance(examples, Corpus):
        return examples.lengths
    return [example.length for example in examples]


def check(
    models: Sequence[Any],
    micro_step: Callable[[], None],
    work: Work,
    machine: Machine,
    frozen: Frozen = NOTHING,
) -> Found | None:
    """Whether the training of these models fits; None where nobody asked.

    `micro_step` takes the forward and backward pass of the largest micro-batch, without an engine.
    Raises DoesNotFit naming what is needed, what is free and the smallest change that fits.
    """
    device = begin(machine)
    if not wanted(machine, device):
        return None
    work = work._replace(rank=rank_of(models[0]) if is_adapted(models[0]) else 0)
    case = Case([shape_of(m, machine) for m in models], frozen, work, _speed(device, work.half))
    found = Found(predict(case), available(case, device, machine), False)
    log.info("predicted, of %s:\n%s", gib(found.free), found.need.table())
    together = machine.trains_together()
    sure = found.need.total if together or device.type == "cpu" else found.need.certain
    if sure > found.free:
        raise DoesNotFit(refusal(case, found, device))
    if not together:
        case, found = _tried(models, micro_step, case, found, device)
        log.info("measured, of %s:\n%s", gib(found.free), found.need.table())
    if found.need.total > found.free:
        raise DoesNotFit(refusal(case, found, device))
    return found


def wanted(machine: Machine, device: torch.device) -> bool:
    """Whether trainings are checked on this machine: where told so, else on GPUs and in jobs."""
    if machine.fit_check == "auto":
        return device.type == "cuda" or machine.is_apart()
    return machine.fit_check == "yes"


def work_of(largest: Padded, examples: int, tokens: int, machine: Machine) -> Work:
    """What this batch is on this machine; `tokens` are those of a whole step, padding too."""
    with autocast(machine):
        half = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    rows, length = largest.ids.shape
    return Work(
        examples=examples,
        rows=rows,
        length=length,
        predicted=int(largest.mask.sum()),
        tokens=tokens,
        half=half,
        again=machine.activation_checkpointing,
        processes=Team.here().size,
        zero=machine.stage(),
        offload=machine.offload,
    )


def shape_of(model: Any, machine: Machine) -> Shape:
    """The sizes of a policy, a scorer or a critic."""
    configuration = model.config.get_text_config()
    linear = [m for m in model.base_model.modules() if isinstance(m, nn.Linear)]
    adapted = is_adapted(model)
    with autocast(machine):
        is_lean = not adapted and lean.suits(model)
    weights = list(model.parameters())
    return Shape(
        parameters=sum(map(size_of, weights)),
        trainable=sum(size_of(weight) for weight in weights if weight.requires_grad),
        dense=sum(each.in_features * each.out_features for each in linear),
        edges=0 if adapted else sum(each.in_features + each.out_features for each in linear),
        layers=configuration.num_hidden_layers,
        hidden=configuration.hidden_size,
        inner=getattr(configuration, "intermediate_size", 4 * configuration.hidden_size),
        heads=configuration.num_attention_heads,
        vocabulary=0 if hasattr(model, "score") else configuration.vocab_size,
        eager=configuration._attn_implementation == "eager",
        lean=is_lean,
    )


def frozen_of(reference: Sequence[nn.Module], others: Sequence[nn.Module]) -> Frozen:
    """Bytes of models that only look on."""
    sides = (chain(*(model.parameters() for model in side)) for side in (reference, others))
    return Frozen(*(FLOAT * sum(map(size_of, weights)) for weights in sides))


def size_of(weight: Any) -> int:
    """Numbers in a weight, also in one that DeepSpeed keeps elsewhere."""
    return int(getattr(weight, "ds_numel", weight.numel()))


def refusal(case: Case, found: Found, device: torch.device) -> str:
    """The line for a training that does not fit."""
    change = smallest_change(case, found.free, device.type == "cuda")
    mend = "no setting makes it fit: take a smaller model or more memory"
    if change is not None:
        mend = f"the smallest change that fits, with {gib(change[1].total)}: {change[0]}"
    how = "measured" if found.measured else "predicted"
    need = found.need.total
    return (
        f"this training needs {need:,} bytes ({gib(need)}, {how}) and {found.free:,} "
        f"({gib(found.free)}) are free; {mend}. ALPACAFARM_FIT_CHECK=no tries anyway"
    )


def available(case: Case, device: torch.device, machine: Machine) -> int:
    """Bytes that one process may fill, with those that the models fill already."""
    if machine.memory:
        return machine.memory
    held = sum(case.frozen) + FLOAT * sum(shape.parameters for shape in case.shapes)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused + held
    return free_of_host() // Team.here().size + held


def free_of_host(root: Path = Path("/")) -> int:
    """Bytes that the host, or the control group that this process is in, can still give."""
    free = [UNLIMITED]
    meminfo = root / "proc/meminfo"
    if meminfo.is_file():
        lines = (line.split() for line in meminfo.read_text().splitlines())
        free += [1024 * int(words[1]) for words in lines if words[0] == "MemAvailable:"]
    for folder, (limit, used) in CONTROL.items():
        group = root / "sys/fs/cgroup" / folder
        if (group / limit).is_file() and (most := (group / limit).read_text().strip()) != "max":
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            files = int(stat.get("inactive_file", 0))  # copies of files, dropped when need be
            free.append(int(most) - int((group / used).read_text()) + files)
    return max(0, min(free))


def _tried(
    models: Sequence[Any],
    micro_step: Callable[[], None],
    case: Case,
    found: Found,
    device: torch.device,
) -> tuple[Case, Found]:
    """Case and find after one micro-step; one that runs out of a GPU's memory needs more than all.

    The gradients are there from the start, as they are in every micro-batch but the first.
    """
    weights = [w for w in chain(*(model.parameters() for model in models)) if w.requires_grad]
    devices = [device.index or 0] if device.type == "cuda" else []
    before = time.perf_counter()
    try:
        with torch.random.fork_rng(devices):
            for weight in weights:
                weight.grad = torch.zeros_like(weight)
            before = time.perf_counter()
            with _peak(device) as took:
                micro_step()
    except torch.OutOfMemoryError:
        took = [max(2 * found.free - found.need.certain, 1)]
    finally:
        for weight in weights:
            weight.grad = None
    seconds = time.perf_counter() - before
    predicted = found.need.activations + found.need.passing
    case = case._replace(scale=took[0] / predicted)
    work = case.work
    steps = work.tokens / (work.rows * work.length) / work.processes
    return case, Found(predict(case)._replace(seconds=seconds * steps), found.free, True)


@contextmanager
def _peak(device: torch.device) -> Iterator[list[int]]:
    """A list that has, after the block, the most bytes that were in use within it."""
    took: list[int] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield took
        took.append(torch.cuda.max_memory_allocated(device) - before)
        torch.cuda.empty_cache()
        return
    _forget_high_water()
    before = _high_water()
    yield took
    took.append(max(1, _high_water() - before))


def _forget_high_water() -> None:
    """Start the high-water mark of this process anew, where the system lets it."""
    try:
        # What was freed but not given back would be used again and not be seen.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        log.debug("the high-water mark of memory is the whole process's")


def _high_water() -> int:
    """Resident bytes at the highest."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = (line.split() for line in status.read_text().splitlines())
        return next(1024 * int(words[1]) for words in lines if words[0] == "VmHWM:")
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _speed(device: torch.device, half: bool) -> float:
    """Floating point operations a second, of a product of two matrices."""
    kind = torch.bfloat16 if half else torch.float32
    one = torch.ones(MATRIX, MATRIX, device=device, dtype=kind)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        float((one @ one)[0, 0])
        best = min(best, time.perf_counter() - start)
    return float(2 * MATRIX**3 / best)
