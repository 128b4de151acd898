"""Machine: what only changes speed, read from the environment and never part of a key.

Every field is set by `ALPACAFARM_<FIELD>`, for example `ALPACAFARM_MICRO_BATCH=8`.
"""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, field_validator

from alpacafarm_core.errors import BadInput
from alpacafarm_core.values import Value

PREFIX = "ALPACAFARM_"
_GPU = re.compile(r"\d+|(GPU|MIG)-[\w-]+")


class Machine(Value):
    """Devices and engines of the machine this process runs on, and how it asks endpoints."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    micro_batch: int = Field(default=32, ge=1, description="Rows per forward pass")
    micro_tokens: int = Field(default=0, ge=0, description="Padded tokens in one; 0 is no limit")
    packing: Literal["auto", "yes", "no"] = "auto"
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that hold one model of vLLM's")
    data_parallel: int = Field(default=1, ge=1, description="Jobs on GPUs of their own, at a time")
    gpus: str = Field(default="", description="GPUs to use, as 0,1; left empty, those there are")
    threads: int = Field(default=0, ge=0, description="0 shares the cores among workers")
    workers: int = Field(default=0, ge=0, description="Jobs at a time; 0 is two on a CPU")
    apart: Literal["auto", "yes", "no"] = "auto"
    deadline: float = Field(default=86_400, gt=0, description="Seconds a job apart may take")
    processes: int = Field(default=1, ge=1, description="That train as one, on this machine")
    hostfile: str = Field(default="", description="Machines that train as one, and their slots")
    zero: int = Field(default=0, ge=0, le=3, description="DeepSpeed's stage; 0 is 2 where it runs")
    activation_checkpointing: bool = Field(
        default=False, description="Activations computed again in the backward pass, not kept"
    )
    fit_check: Literal["auto", "yes", "no"] = "auto"
    memory: int = Field(default=0, ge=0, description="Bytes a training may take; 0 is what is free")
    offload: bool = Field(default=False, description="Optimiser state in the host's memory")
    checkpoint_seconds: float = Field(default=300, ge=0, description="Between two checkpoints")
    concurrency: int = Field(default=16, ge=1, description="Requests under way at an endpoint")
    timeout: float = Field(default=120, gt=0, description="Seconds an answer may take, each try")
    batch_api: bool = Field(default=False, description="Ask endpoints in batches, at half price")

    @field_validator("gpus")
    @classmethod
    def _are_gpus(cls, named: str) -> str:
        if named and not all(_GPU.fullmatch(each) for each in named.split(",")):
            raise ValueError("give numbers, as 0,1, or the names that nvidia-smi -L prints")
        return named

    @classmethod
    def here(cls) -> Self:
        """The machine as the environment describes it; raises BadInput naming the variable."""
        found = {name: os.environ.get(PREFIX + name.upper()) for name in cls.model_fields}
        try:
            return cls.model_validate({name: value for name, value in found.items() if value})
        except ValidationError as error:
            raise BadInput(_complaint(error)) from None

    def at_once(self) -> int:
        """How many jobs run side by side: on a CPU two with half the cores each, on a GPU one."""
        if self.data_parallel > 1:
            return self.data_parallel
        if self.workers:
            return self.workers
        return 1 if self.is_apart() else min(2, _cores())

    def stage(self) -> int:
        """DeepSpeed's stage; 0 where one process trains in plain torch."""
        wants = self.processes > 1 or self.hostfile or self.offload
        return self.zero or (2 if wants else 0)

    def trains_together(self) -> bool:
        """Whether DeepSpeed trains, in processes that a launcher starts."""
        return self.stage() > 0

    def check(self) -> None:
        """Raise BadInput where it names a GPU or machines that are not there."""
        if self.device == "cuda" and not _has_gpu():
            raise BadInput(f"{PREFIX}DEVICE=cuda: no GPU here; set it to cpu, or unset it for auto")
        if self.hostfile:
            self.first_host()

    def first_host(self) -> str:
        """The machine where all meet: the hostfile's first; raises BadInput where it names none."""
        file = Path(self.hostfile)
        if not file.is_file():
            raise BadInput(f"{PREFIX}HOSTFILE={self.hostfile}: no such file; give one that exists")
        for line in file.read_text().splitlines():
            if named := line.partition("#")[0].split():
                return named[0]
        raise BadInput(f"{file}: no machine in it; write lines as `worker-1 slots=8`")

    def shared(self) -> Self:
        """The part of this machine that one of the jobs at once gets."""
        return self.replace(threads=self.threads or max(1, _cores() // self.at_once()))

    def lent(self, number: int) -> Self:
        """What one of the jobs at once gets where each has GPUs of its own, counted from 0.

        Raises BadInput when there are not enough of them.
        """
        if self.device == "cpu" or not (self.device == "cuda" or _has_gpu()):
            return self.shared().replace(data_parallel=1)
        wanted, size = self.data_parallel * self.tensor_parallel, self.tensor_parallel
        named = self.gpus or os.environ.get("CUDA_VISIBLE_DEVICES", "")
        have = [gpu for gpu in named.split(",") if gpu] or [str(i) for i in range(wanted)]
        if len(have) < wanted:
            raise BadInput(
                f"{PREFIX}DATA_PARALLEL={self.data_parallel} with {PREFIX}TENSOR_PARALLEL={size} "
                f"wants {wanted} GPUs and may use {len(have)} ({named}); lower one of them"
            )
        own = ",".join(have[number * size : (number + 1) * size])
        return self.shared().replace(data_parallel=1, gpus=own)

    def claim(self) -> None:
        """Let this process see its GPUs only; of use before anything has been computed there."""
        if self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus

    def uses_gpu(self) -> bool:
        """Whether heavy stages compute on a GPU."""
        return self.device == "cuda" or (self.device == "auto" and _has_gpu())

    def is_apart(self) -> bool:
        """Whether heavy stages run in a process of their own: by default where a GPU does."""
        if self.apart == "auto":
            return self.uses_gpu()
        return self.apart == "yes"

    def packs(self) -> bool:
        """Whether examples may share rows: by default where a GPU computes."""
        if self.packing == "auto":
            return self.uses_gpu()
        return self.packing == "yes"

    def has_vllm(self) -> bool:
        """Whether vLLM (either build) is installed."""
        return find_spec("vllm") is not None


def _complaint(error: ValidationError) -> str:
    """The first variable that cannot be used, what is allowed and the mend."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    return (
        f"{PREFIX}{name.upper()}={first['input']!r}: {first['msg']}; set it so, or unset it for "
        f"{Machine.model_fields[name].default}"
    )


def _cores() -> int:
    return os.cpu_count() or 1


def _has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()
