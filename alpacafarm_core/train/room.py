"""Room: the memory and the time that a training will take, from its shapes, and how it would fit.

Memory is weights, gradients, AdamW's two moments, frozen models, what the largest micro-batch keeps
for its backward pass (counted as Korthikanti et al. 2022 do, for a Llama), and what comes and goes:
a slab of logits, or the gradients inside one layer. Pure; `trial.py` holds it against a machine.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

from alpacafarm_core.train.logps import SLAB

FLOAT, HALF, MOMENTS = 4, 2, 8
RANK = 16  # of the adapters that are proposed
SETTINGS = {
    "examples": "ALPACAFARM_MICRO_BATCH={}",
    "again": "ALPACAFARM_ACTIVATION_CHECKPOINTING={}",
    "rank": "training.lora.rank={} (which changes the answer)",
    "processes": "ALPACAFARM_PROCESSES={}",
    "zero": "ALPACAFARM_ZERO={}",
    "offload": "ALPACAFARM_OFFLOAD={}",
}


class Shape(NamedTuple):
    """The sizes of one model that learns.

    `dense` and `edges` are the sums of in * out and of in + out over the backbone's linear layers;
    a scorer has no `vocabulary`. `eager` attention keeps every weight of it, `lean` is our own
    forward pass.
    """

    parameters: int
    trainable: int
    dense: int
    edges: int
    layers: int
    hidden: int
    inner: int
    heads: int
    vocabulary: int
    eager: bool = False
    lean: bool = False


class Work(NamedTuple):
    """The largest micro-batch, what a whole step adds up to, and how it is gone about.

    `examples` lie in `rows` of `length` tokens, at `predicted` of which the head looks; a step has
    `tokens`. `half` is bfloat16, `again` activations computed again, `rank` that of adapters.
    """

    examples: int
    rows: int
    length: int
    predicted: int
    tokens: int
    half: bool = False
    again: bool = False
    rank: int = 0
    processes: int = 1
    zero: int = 0
    offload: bool = False


class Frozen(NamedTuple):
    """Bytes of the models that only look on; with LoRA the reference is no model of its own."""

    reference: int = 0
    others: int = 0


class Case(NamedTuple):
    """All that a prediction is made from.

    `speed` is in floating point operations a second; `scale` is measured over predicted bytes of
    what is no certain size.
    """

    shapes: Sequence[Shape]
    frozen: Frozen
    work: Work
    speed: float = float("inf")
    scale: float = 1.0


class Need(NamedTuple):
    """What one process takes, in bytes, and how long a step takes, in seconds."""

    weights: int
    gradients: int
    optimiser: int
    frozen: int
    activations: int
    passing: int
    seconds: float

    @property
    def certain(self) -> int:
        """Bytes that are no estimate."""
        return self.weights + self.gradients + self.optimiser + self.frozen

    @property
    def total(self) -> int:
        """All bytes."""
        return self.certain + self.activations + self.passing

    def table(self) -> str:
        """A line each, and the sum."""
        sizes = [(name, getattr(self, name)) for name in (*self._fields[:-1], "total")]
        lines = [f"{name:12}{gib(size):>12}" for name, size in sizes]
        return "\n".join([*lines, f"{'a step':12}{self.seconds:>10.2f} s"])


Change = Callable[[Case], Case]


def gib(size: int) -> str:
    """Bytes in words."""
    return f"{size / 2**30:.2f} GiB"


def predict(case: Case) -> Need:
    """What the training takes: sums over the models that learn, divided as ZeRO divides them."""
    shapes, work, parts = case.shapes, case.work, case.work.processes
    stage = (work.zero or 2) if parts > 1 else 0
    parameters = sum(shape.parameters for shape in shapes)
    trainable = sum(shape.trainable for shape in shapes)
    kept, passing = zip(*(_working(shape, work) for shape in shapes), strict=True)
    moments = 0 if work.offload and (work.zero or parts > 1) else MOMENTS * trainable
    return Need(
        weights=FLOAT * parameters // (parts if stage == 3 else 1)
        + HALF * parameters * work.half,  # the copies that autocast keeps
        gradients=FLOAT * trainable // (parts if stage >= 2 else 1),
        optimiser=moments // parts,
        frozen=sum(case.frozen),
        activations=round(case.scale * sum(kept)),
        passing=round(case.scale * max(passing)),
        seconds=sum(_operations(shape, work) for shape in shapes) / case.speed / parts,
    )


def _working(shape: Shape, work: Work) -> tuple[int, int]:
    """Bytes kept for the backward pass, and the most that come and go meanwhile."""
    tokens, h, i = work.rows * work.length, shape.hidden, shape.inner
    looks = shape.heads * work.length if shape.eager else 0
    if shape.lean:
        layer = FLOAT * tokens * (6 * h + 3 * i + looks)
    elif work.half:
        layer = tokens * (34 * h + 8 * i + (FLOAT + HALF) * looks)
    else:
        layer = FLOAT * tokens * ((10 if shape.eager else 11) * h + 4 * i + looks)
    ends = FLOAT * tokens * (4 * h + work.length * shape.eager)
    folded = 2 * FLOAT * shape.dense * shape.lean
    layers = shape.layers * FLOAT * tokens * h + layer if work.again else shape.layers * layer
    slab = min(work.predicted * shape.vocabulary, SLAB)
    inside = FLOAT * tokens * max(2 * looks, 3 * i)
    return layers + ends + folded, max(3 * FLOAT * slab, inside)


def _operations(shape: Shape, work: Work) -> float:
    """Of a whole step: forward is one pass, backward two, of which a frozen base saves one."""
    tokens = work.rows * work.length
    head = shape.vocabulary * shape.hidden * work.predicted
    looks = 2 * shape.layers * shape.hidden * work.length * tokens
    passes = 3 + work.again - (work.rank > 0)
    return 2.0 * passes * (shape.dense * tokens + head + looks) * work.tokens / tokens


def smallest_change(case: Case, free: int, on_gpu: bool) -> tuple[str, Need] | None:
    """The fewest settings to change so that the training fits `free` bytes, and its needs then.

    Tried in this order: a smaller micro-batch, activations computed again, LoRA, more processes or
    a higher stage of ZeRO, offload; the last two on GPUs only.
    """
    options: list[list[Change]] = [list(_smaller(case.work)), [_again], [_thinner]]
    options += [list(_divided(case.work)), [_offloaded]] if on_gpu else []
    for size in range(1, len(options) + 1):
        for chosen in combinations(options, size):
            for changes in product(*chosen):
                changed = case
                for change in changes:
                    changed = change(changed)
                if (need := predict(changed)).total <= free:
                    return _difference(case.work, changed.work), need
    return None


def with_adapters(case: Case, rank: int) -> Case:
    """The same with LoRA: one base, an adapter for each model that learns, no reference beside."""
    base = case.shapes[0].parameters
    thin = [rank * shape.edges for shape in case.shapes]
    shapes = [
        shape._replace(parameters=added + base * (not place), trainable=added, lean=False)
        for place, (shape, added) in enumerate(zip(case.shapes, thin, strict=True))
    ]
    frozen = case.frozen._replace(reference=0)
    return _at_work(case._replace(shapes=shapes, frozen=frozen), rank=rank)


def _smaller(work: Work) -> Iterator[Change]:
    examples = work.examples // 2
    while examples:
        yield lambda case, few=examples: _cut(case, few)  # type: ignore[misc]
        examples //= 2


def _cut(case: Case, examples: int) -> Case:
    """With so many examples in the largest micro-batch; of a packed row, a part."""
    work = case.work
    tokens = -(-work.rows * work.length * examples // work.examples)
    predicted = -(-work.predicted * examples // work.examples)
    rows, length = max(1, tokens // work.length), min(work.length, tokens)
    return _at_work(case, examples=examples, rows=rows, length=length, predicted=predicted)


def _again(case: Case) -> Case:
    shapes = [shape._replace(lean=False) for shape in case.shapes]
    return _at_work(case._replace(shapes=shapes), again=True)


def _thinner(case: Case) -> Case:
    return case if case.work.rank else with_adapters(case, RANK)


def _divided(work: Work) -> Iterator[Change]:
    now, zero = work.processes, work.zero or 2
    for processes, stage in [(now, 3), (2 * now, zero), (4 * now, zero), (8 * now, zero),
                             (8 * now, 3)]:  # fmt: skip
        if processes > 1:
            yield lambda case, p=processes, z=stage: _at_work(case, processes=p, zero=z)  # type: ignore[misc]


def _offloaded(case: Case) -> Case:
    return _at_work(case, offload=True, zero=case.work.zero or 2)


def _at_work(case: Case, **changes: Any) -> Case:
    return case._replace(work=case.work._replace(**changes))


def _difference(before: Work, after: Work) -> str:
    """The settings that make one the other."""
    changed = {n: getattr(after, n) for n in SETTINGS if getattr(after, n) != getattr(before, n)}
    return ", ".join(SETTINGS[name].format(str(now).lower()) for name, now in changed.items())
