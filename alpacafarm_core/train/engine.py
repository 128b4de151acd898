"""Engines: who turns gradients into new weights, one process alone or several together.

A loop says what to look at, hands over a loss and asks for a step; it does not know whether other
processes take part. Every process holds all rows, looks at its share of each batch's micro-batches
and gets the figures of the whole batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Module

from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Training
from alpacafarm_core.train.team import Team

T = TypeVar("T")

WEIGHTS, OPTIMISER = "weights.safetensors", "optimiser.safetensors"

MicroBatches = Sequence[Sequence[int]]
Learn = Callable[[Sequence[int]], tuple[Tensor, dict[str, float]]]


class Engine(Protocol):
    """Learns with some models; gradients add up between steps."""

    team: Team

    def see(self, look: Callable[[], T]) -> T:
        """What `look` sees with the models, which may keep their weights in parts."""

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add a gradient; `last` on the last micro-batch before a step."""

    def step(self, rate: float) -> float:
        """One step at this learning rate; the gradient norm before clipping. Gradients are gone."""

    def total(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Sums over all processes."""

    def whole(self) -> AbstractContextManager[None]:
        """Within it every process can use the models as ordinary modules, without gradients."""

    def save(self, folder: Path) -> None:
        """Write weights and optimiser into a folder that exists; every process calls it."""

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""


def engaged(models: Sequence[Module], training: Training, machine: Machine) -> Engine:
    """The engine that the machine asks for: DeepSpeed for several processes, else one alone."""
    if Team.here().size == 1 and not machine.stage():
        return Alone(models, training)
    from alpacafarm_core.train.zero import Zero

    return Zero(models, training, machine)


def adamw(weights: Sequence[Tensor], training: Training) -> torch.optim.Optimizer:
    """The one optimiser of the farm."""
    return torch.optim.AdamW(
        weights,
        lr=training.learning_rate,
        betas=(0.9, 0.999),
        eps=training.adam_epsilon,
        weight_decay=training.weight_decay,
        fused=True,
    )


class Alone:
    """One process, plain torch."""

    team = Team(0, 1)

    def __init__(self, models: Sequence[Module], training: Training) -> None:
        self.named = dict(learning(models))
        self.weights = list(self.named.values())
        self.optimiser, self.clip = adamw(self.weights, training), training.clip

    def see(self, look: Callable[[], T]) -> T:
        """Look straight."""
        return look()

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add a gradient to the weights'."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, rate: float) -> float:
        """Clip, step and forget the gradient, unless its norm is not a number."""
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.clip)
        if norm.isfinite():
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.optimiser.step()
        self.optimiser.zero_grad()
        return float(norm)

    def total(self, figures: Mapping[str, float]) -> dict[str, float]:
        """There is nobody to add."""
        return dict(figures)

    def whole(self) -> AbstractContextManager[None]:
        """They always are."""
        return nullcontext()

    def save(self, folder: Path) -> None:
        """Safetensors, by the weights' names."""
        save_file({n: w.detach().contiguous() for n, w in self.named.items()}, folder / WEIGHTS)
        held = {
            f"{name}/{kind}": tensor
            for name, weight in self.named.items()
            for kind, tensor in self.optimiser.state[weight].items()
        }
        save_file(held, folder / OPTIMISER)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """The same weights and moments, to the bit."""
        for name, tensor in load_file(folder / WEIGHTS).items():
            self.named[name].copy_(tensor)
        for name, tensor in load_file(folder / OPTIMISER).items():
            weight, kind = name.rsplit("/", 1)
            on = "cpu" if kind == "step" else self.named[weight].device
            self.optimiser.state[self.named[weight]][kind] = tensor.to(on)


def learning(models: Sequence[Module]) -> Iterator[tuple[str, Tensor]]:
    """Every weight that is learned, once, with a name of its own."""
    seen = set[int]()
    for place, model in enumerate(models):
        for name, weight in model.named_parameters():
            if weight.requires_grad and id(weight) not in seen:
                seen.add(id(weight))
                yield f"{place}.{name}", weight


def accumulate(engine: Engine, micro_batches: MicroBatches, learn: Learn) -> dict[str, float]:
    """Add the gradient of one whole batch; its figures, summed over micro-batches and processes.

    `learn` gives a micro-batch's part of the batch's loss, with gradient, and of its figures.
    """
    mine = share(micro_batches, engine.team)
    figures: dict[str, float] = {}
    for at, (micro, weight) in enumerate(mine):
        loss, part = engine.see(lambda micro=micro: learn(micro))  # type: ignore[misc]
        engine.backward(loss * weight, last=at == len(mine) - 1)
        for name, value in part.items():
            figures[name] = figures.get(name, 0.0) + weight * value
    return engine.total(figures)


def share(micro_batches: MicroBatches, team: Team) -> list[tuple[Sequence[int], float]]:
    """The micro-batches of this process with their weight, 1.

    All processes get equally many, since they wait for each other after each one: who would have
    fewer looks at one again, with weight 0.
    """
    mine = [(micro, 1.0) for micro in micro_batches[team.rank :: team.size]]
    rounds = -(-len(micro_batches) // team.size)
    return mine + [(micro_batches[0], 0.0)] * (rounds - len(mine))


@contextmanager
def together(machine: Machine) -> Iterator[Team]:
    """The processes of this run, able to talk to each other until the end of the block."""
    team = Team.here()
    is_open = torch.distributed.is_available() and torch.distributed.is_initialized()
    if is_open or (team.size == 1 and not machine.stage()):
        yield team
        return
    from alpacafarm_core.train.zero import connect

    connect(machine)
    try:
        yield team
    finally:
        torch.distributed.destroy_process_group()


def gathered(part: Any) -> list[Any]:
    """What every process holds, in order of rank; for plain values and tensors on the CPU."""
    team = Team.here()
    if team.size == 1:
        return [part]
    parts: list[Any] = [None] * team.size
    torch.distributed.all_gather_object(parts, part)
    return parts
