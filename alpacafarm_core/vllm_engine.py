"""Sampling with vLLM inside this process, on a CPU or a GPU.

vLLM is imported only when an engine is made. In the process, because an engine that is killed with
its parent leaves nothing behind and takes new weights without a copy on disk. A model spread over
several GPUs has workers of its own, which take new weights from disk.
"""

import gc
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from alpacafarm_core.machine import Machine
from alpacafarm_core.sampler import Batch, Sample
from alpacafarm_core.settings import Sampling
from alpacafarm_core.train.models import begin, weights
from alpacafarm_core.weight_sync import check, differing, probe, reading, sums

CPU_CACHE = 256 << 20
GPU_SHARE = 0.4  # of the memory that is free; the rest is the trainer's
AT_ONCE = 256  # sequences that the engine works on
NEVER = -100.0  # added to a logit; the most that vLLM takes
WORKER = "alpacafarm_core.vllm_worker.Worker"


class VLLMSampler:
    """One engine for the policy in a folder, for sequences of up to `longest` tokens."""

    def __init__(
        self, folder: Path, longest: int, eos: int, machine: Machine, never: Sequence[int] = ()
    ) -> None:
        """`never` are ids that are not drawn: reward tokens, which only ever stand in a prompt."""
        self.never = list(never)
        self.on_gpu = begin(machine).type == "cuda"
        self.ends, self.spread = {eos}, machine.tensor_parallel
        self.is_asleep, self.numbered = False, 0
        self.llm = engine(folder, longest, machine)

    def sample(
        self, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Sample]:
        """One response to each prompt, each with its own seed."""
        with self._cooled(sampling.temperature) as temperature:
            cooled = sampling.replace(temperature=temperature)
            found = self._streamed([Batch(prompts, seeds)], cooled, with_logprobs=True)
            return next(found, [])

    def stream(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[list[Sample]]:
        """The responses of each batch in turn; the next ones are taken in while it is answered."""
        return self._streamed(batches, sampling, with_logprobs=False)

    def sync(self, model: Any) -> None:
        """Take over the weights of this module, and see that they have arrived.

        Raises WeightSyncFailed naming the parameter, or the gap in log-probability.
        """
        held = {name: weight.detach() for name, weight in weights(model).items()}
        self._wake()
        self._reload(held, model.config.tie_word_embeddings)
        self.llm.collective_rpc("repack_tied_head")
        self.llm.reset_prefix_cache()
        dtype = self.llm.llm_engine.model_config.dtype
        found = self.llm.collective_rpc("parameter_sums")
        joined = self.llm.collective_rpc("joined_matrices")[0]
        check(differing(found, sums(held, joined, dtype)), self._gap(model), dtype)

    def rest(self) -> None:
        """Leave the GPU to others until something is asked for again; on a CPU, do nothing.

        There vLLM would not give back anything, and would wait for ever to be woken.
        """
        if self.on_gpu and not self.is_asleep:
            self.llm.sleep(level=1)
            self.is_asleep = True

    def close(self) -> None:
        """Shut the engine down and give back its memory."""
        shut_down(self.llm)
        del self.llm
        gc.collect()

    def _wake(self) -> None:
        if self.is_asleep:
            self.llm.wake_up()
            self.is_asleep = False

    def _reload(self, held: dict[str, Tensor], is_tied: bool) -> None:
        """In this process weights are handed over as they are, to other processes on disk."""
        given = {n: weight for n, weight in held.items() if not (is_tied and n == "lm_head.weight")}
        if self.spread == 1:
            whole = {"weights_iterator": iter(given.items())}
            self.llm.collective_rpc("reload_weights", kwargs=whole)
            return
        from safetensors.torch import save_file

        with TemporaryDirectory(prefix="alpacafarm-") as folder:
            laid = {name: weight.contiguous().cpu() for name, weight in given.items()}
            save_file(laid, Path(folder, "model.safetensors"), {"format": "pt"})
            self.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})

    @contextmanager
    def _cooled(self, temperature: float) -> Iterator[float]:
        """Have the model's logits divided by the temperature; yields what is left to divide by.

        vLLM's own log-probabilities are either those before the temperature or those after the
        nucleus.
        """
        if temperature in (0, 1):
            yield temperature
            return
        self._wake()
        self.llm.collective_rpc("divide_logits", args=(temperature,))
        try:
            yield 1.0
        finally:
            self.llm.collective_rpc("divide_logits", args=(1.0,))

    def _gap(self, model: Any) -> float:
        """Mean distance in nats a token from what the module says of a fixed prompt."""
        from vllm import SamplingParams, TokensPrompt

        configuration = self.llm.llm_engine.model_config
        ids = probe(model.config.vocab_size, configuration.max_model_len - 1)
        asked = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        prompt = TokensPrompt(prompt_token_ids=ids)
        answer = self.llm.generate([prompt], asked, use_tqdm=False)[0]
        pairs = zip(ids[1:], answer.prompt_logprobs[1:], strict=True)
        found = torch.tensor([read[token].logprob for token, read in pairs])
        return float((found - reading(model, ids)).abs().mean())

    def _streamed(
        self, batches: Iterable[Batch], sampling: Sampling, with_logprobs: bool
    ) -> Iterator[list[Sample]]:
        """Answers of each batch in turn; the engine always has twice what it works on at once."""
        self._wake()
        source, waiting, done = iter(batches), deque[list[str]](), dict[str, Sample]()
        is_dry = False
        try:
            while waiting or not is_dry:
                if not is_dry and self.llm.llm_engine.get_num_unfinished_requests() < 2 * AT_ONCE:
                    batch = next(source, None)
                    is_dry = batch is None
                    taken = [self._taken_in(batch, sampling, with_logprobs)] if batch else []
                    waiting.extend(taken)
                elif all(number in done for number in waiting[0]):
                    yield [done.pop(number) for number in waiting.popleft()]
                else:
                    done |= self._answered()
        finally:
            left = [number for numbers in waiting for number in numbers if number not in done]
            self.llm.llm_engine.abort_request(left)

    def _answered(self) -> dict[str, Sample]:
        """What one step of the engine finishes, by number."""
        answers = (answer for answer in self.llm.llm_engine.step() if answer.finished)
        return {answer.request_id: _sample(answer, self.ends) for answer in answers}

    def _taken_in(self, batch: Batch, sampling: Sampling, with_logprobs: bool) -> list[str]:
        """Hand a batch to the engine; returns the numbers of its requests."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        numbers = []
        for prompt, seed in zip(batch.prompts, batch.seeds, strict=True):
            asked = SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=seed,
                stop_token_ids=sorted(self.ends),
                logit_bias=dict.fromkeys(self.never, NEVER) or None,
                detokenize=False,
                logprobs=0 if with_logprobs else None,
                flat_logprobs=with_logprobs,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self.numbered += 1
            numbers.append(f"sample-{self.numbered}")
            tokens = TokensPrompt(prompt_token_ids=list(prompt))
            self.llm.llm_engine.add_request(numbers[-1], tokens, asked)
        return numbers


def engine(folder: Path, longest: int, machine: Machine, **options: Any) -> Any:
    """vLLM with the model of a folder, for sequences of up to `longest` tokens.

    `options` are settings of vLLM's that take the place of ours.
    """
    on_gpu = begin(machine).type == "cuda"
    _prepare(machine)
    from vllm import LLM

    settings = {
        "dtype": "bfloat16" if on_gpu and machine.precision != "float32" else "float32",
        "enforce_eager": not on_gpu,
        "max_model_len": longest,
        "max_num_seqs": AT_ONCE,
        "enable_chunked_prefill": on_gpu,  # a seeded request cannot be cut in two on a CPU
        "enable_prefix_caching": True,
        "enable_sleep_mode": on_gpu,
        "tensor_parallel_size": machine.tensor_parallel,
        "kv_cache_memory_bytes": _cache_bytes(on_gpu),
        "worker_extension_cls": WORKER,
        "skip_tokenizer_init": True,
        "seed": 0,
        "disable_log_stats": True,
    }
    return LLM(str(folder), **(settings | options))


def shut_down(llm: Any) -> None:
    """Stop an engine; its memory goes when the last one lets go of it."""
    llm.llm_engine.engine_core.shutdown()


def _prepare(machine: Machine) -> None:
    """What vLLM reads from the environment when it is first imported."""
    if machine.tensor_parallel > 1:
        cores = "|".join(map(str, range(machine.tensor_parallel)))
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores)
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    for name in ("VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")


def _cache_bytes(on_gpu: bool) -> int:
    return int(GPU_SHARE * torch.cuda.mem_get_info()[0]) if on_gpu else CPU_CACHE


def _sample(answer: Any, ends: set[int]) -> Sample:
    output = answer.outputs[0]
    ids, found = list(output.token_ids), output.logprobs
    logprobs = None if found is None else list(found.logprobs)
    return Sample(ids, "stop" if ids[-1] in ends else "length", logprobs)
