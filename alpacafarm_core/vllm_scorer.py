"""Scoring with vLLM as a pooling engine: ids in, the reward model's bare number out."""

import gc
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core.machine import Machine
from alpacafarm_core.train.batches import encode
from alpacafarm_core.train.models import Loaded, load_tokenizer
from alpacafarm_core.train.readable import longest, scorable
from alpacafarm_core.vllm_engine import engine, shut_down


class _Shape(NamedTuple):
    """As much of a model as cutting rows to its length asks for."""

    config: Any


class VLLMScorer:
    """One engine for the reward model in a folder."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        from transformers import AutoConfig
        from vllm.config import PoolerConfig

        shape = _Shape(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        self.loaded = Loaded(shape, load_tokenizer(folder))
        self.llm = engine(
            folder,
            longest(self.loaded),
            machine,
            runner="pooling",
            convert="classify",
            # Left alone, vLLM squashes the number to a probability.
            pooler_config=PoolerConfig(use_activation=False),
            skip_tokenizer_init=False,  # a pooling engine does not start without one
        )

    def score(self, rows: pl.DataFrame) -> list[float]:
        """The reward of each row's `output` (its sampled ids where they are ours)."""
        from vllm import TokensPrompt

        found = encode(rows, "output", self.loaded.tokenizer)
        cut = [scorable(row, self.loaded) for row in found]
        prompts = [TokensPrompt(prompt_token_ids=row.prompt + row.response) for row in cut]
        answers = self.llm.classify(prompts, use_tqdm=False)
        return [float(answer.outputs.probs[0]) for answer in answers]

    def close(self) -> None:
        """Shut the engine down and give back its memory."""
        shut_down(self.llm)
        del self.llm
        gc.collect()
