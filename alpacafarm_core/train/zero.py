"""DeepSpeed ZeRO: several processes learn as one, each keeping a part of what one would keep whole.

Stage 1 divides the optimiser's state, 2 the gradients as well, 3 the weights as well. Weights are
float32, the forward pass is autocast where the machine asks for bfloat16, clipping and AdamW are
those of one process, and so are losses and weights, to rounding. Reference and reward model stay
whole in every process. Imported only in a job with several processes.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Training
from alpacafarm_core.train.engine import adamw, learning
from alpacafarm_core.train.models import begin
from alpacafarm_core.train.team import Team

T = TypeVar("T")

STATE = "deepspeed"


def connect(machine: Machine) -> None:
    """Open the channel between the processes: gloo on a CPU, NCCL on GPUs."""
    on_cpu = begin(machine).type == "cpu"
    # DeepSpeed builds its operators with the ninja of this environment.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # What its own calls of torch will one day be called.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import deepspeed

    deepspeed.init_distributed("gloo" if on_cpu else "nccl", verbose=False)


class Zero:
    """One DeepSpeed engine over all models that learn."""

    def __init__(self, models: Sequence[nn.Module], training: Training, machine: Machine) -> None:
        import deepspeed

        self.team = Team.here()
        everybody = _Everybody(models)
        weights = [weight for _, weight in learning(models)]
        width = next(m.config.hidden_size for m in cast("Sequence[Any]", models))
        self.engine, self.optimiser, *_ = deepspeed.initialize(
            model=everybody,
            optimizer=adamw(weights, training),
            config=configuration(training, machine, width),
        )
        self.stage = machine.stage()

    def see(self, look: Callable[[], T]) -> T:
        """Look through the engine, which fetches weights that are elsewhere."""
        seen: T = self.engine(look)
        return seen

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add a gradient; DeepSpeed averages over processes, and we mean the sum."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * self.team.size)

    def step(self, rate: float) -> float:
        """Clip and step on all processes."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def total(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Sums over all processes."""
        sums = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.engine.device)
        torch.distributed.all_reduce(sums)
        return dict(zip(figures, sums.tolist(), strict=True))

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Under stage 3 every process fetches all weights, and DeepSpeed lets go of the modules."""
        if self.stage < 3:
            yield
            return
        import deepspeed

        weights = list(self.engine.module.parameters())
        with deepspeed.zero.GatheredParameters(weights), self._unhooked(weights):
            yield

    @contextmanager
    def _unhooked(self, weights: Sequence[Any]) -> Iterator[None]:
        """Without the hooks that fetch weights and drop them after each module."""
        offload = self.engine.optimizer.parameter_offload
        for weight in weights:
            weight.ds_active_sub_modules.clear()
        for hook in (*offload.forward_hooks, *offload.backward_hooks):
            hook.remove()
        offload.forward_hooks, offload.backward_hooks = [], []
        try:
            yield
        finally:
            offload._register_deepspeed_module(offload.module)

    def save(self, folder: Path) -> None:
        """Every process writes its part."""
        self.engine.save_checkpoint(str(folder), tag=STATE)

    def load(self, folder: Path) -> None:
        """Every process reads its part."""
        self.engine.load_checkpoint(str(folder), tag=STATE)


class _Everybody(nn.Module):
    """All models that learn as one module, which does what it is asked."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, look: Callable[[], T]) -> T:
        return look()


def configuration(training: Training, machine: Machine, width: int) -> dict[str, Any]:
    """What DeepSpeed is told; batches and precision are ours.

    Weights of at most ten times the model's width, norms above all, stay in every process.
    """
    zero: dict[str, Any] = {
        "stage": machine.stage(),
        "overlap_comm": False,
        "contiguous_gradients": True,
        "reduce_bucket_size": 50_000_000,
        "allgather_bucket_size": 50_000_000,
        "stage3_param_persistence_threshold": 10 * width,
    }
    if machine.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
        if machine.stage() == 3:
            zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": training.clip,
        "steps_per_print": 1_000_000_000,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
    }
