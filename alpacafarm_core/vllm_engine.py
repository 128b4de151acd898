"""Sampling with vLLM inside this process, on a CPU or a GPU.

vLLM is imported only when an engine is made. In the process, because an engine that is killed with
its parent leaves nothing behind and takes new weights without a copy on disk.
"""

import gc
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alpacafarm_core.machine import Machine
from alpacafarm_core.sampler import Sample
from alpacafarm_core.settings import Sampling
from alpacafarm_core.train.models import begin

CPU_CACHE = 256 << 20
GPU_SHARE = 0.4  # of the memory that is free; the rest is the trainer's


class VLLMSampler:
    """One engine for the policy in a folder, for sequences of up to `longest` tokens."""

    def __init__(self, folder: Path, longest: int, eos: int, machine: Machine) -> None:
        device = begin(machine)
        _prepare()
        from vllm import LLM

        on_gpu = device.type == "cuda"
        self.eos = eos
        self.llm = LLM(
            str(folder),
            dtype="bfloat16" if on_gpu and machine.precision != "float32" else "float32",
            enforce_eager=not on_gpu,
            max_model_len=longest,
            max_num_seqs=256,
            enable_chunked_prefill=on_gpu,  # a seeded request cannot be cut in two on a CPU
            kv_cache_memory_bytes=_cache_bytes(on_gpu),
            skip_tokenizer_init=True,
            seed=0,
            disable_log_stats=True,
        )

    def sample(
        self, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Sample]:
        """One response to each prompt, each with its own seed."""
        from vllm import SamplingParams, TokensPrompt

        asked = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=seed,
                stop_token_ids=[self.eos],
                detokenize=False,
            )
            for seed in seeds
        ]
        inputs = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        answers = self.llm.generate(inputs, asked, use_tqdm=False)
        return [_sample(list(answer.outputs[0].token_ids), self.eos) for answer in answers]

    def sync(self, model: Any) -> None:
        """Take over the weights of this module."""
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": _weights(model)})
        self.llm.apply_model(_repack_tied_head)
        self.llm.reset_prefix_cache()

    def close(self) -> None:
        """Shut the engine down and give back its memory."""
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        gc.collect()


def _prepare() -> None:
    """What vLLM reads from the environment when it is first imported."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    for name in ("VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")


def _cache_bytes(on_gpu: bool) -> int:
    return int(GPU_SHARE * torch.cuda.mem_get_info()[0]) if on_gpu else CPU_CACHE


def _sample(ids: list[int], eos: int) -> Sample:
    return Sample(ids, "stop" if ids[-1] == eos else "length")


def _weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    tied = model.config.tie_word_embeddings
    for name, weight in model.state_dict().items():
        if not (tied and name == "lm_head.weight"):
            yield name, weight.detach()


def _repack_tied_head(model: Any) -> None:
    """On a CPU a tied head keeps a packed copy of the old embeddings, which reloading leaves."""
    if getattr(model.config, "tie_word_embeddings", False) and hasattr(model.lm_head, "cpu_linear"):
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

        model.lm_head.weight = model.model.embed_tokens.weight
        dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)
