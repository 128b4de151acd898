"""A random Llama small enough for tests: 2 layers x 32, a byte-level BPE of a few sentences."""

from pathlib import Path

import polars as pl
import torch

from alpacafarm_core.artifacts import Demonstrations, Preferences

SENTENCES = [
    "Below is an instruction that describes a task.",
    "Write a response that appropriately completes the request.",
    "### Instruction:\nName a red fruit.\n\n### Response:An apple is a red fruit.",
    "### Input:\nThe sky over the old harbour is blue today.",
    "Cherries and tomatoes are red, bananas are yellow, and plums are not.",
]
PROMPTS = [
    ("Name a red fruit.", ""),
    ("What colour is the sky?", "The sky over the old harbour is blue today."),
    ("Which of these is yellow?", "Cherries, bananas, plums"),
    ("Complete the task that follows.", ""),
]
ANSWERS = ["An apple is a red fruit.", "Blue.", "Bananas are yellow.", "The request is a task."]


def tiny_model(folder: Path, tied: bool = False, seed: int = 0) -> Path:
    """Write the model and its tokenizer into `folder`."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "</s>", "<pad>"]
    bpe.train_from_iterator(SENTENCES, vocab_size=384, min_frequency=1, special_tokens=special)
    names = dict(zip(("bos_token", "eos_token", "pad_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **names).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=32,  # the least that vLLM takes on a CPU
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def frame(kind: type, rows: list[dict]) -> pl.DataFrame:
    """Rows with every column of a table; what is not given is null, or no ids."""
    blank = {name: [] if name.endswith("_ids") else None for name in kind.columns}
    return pl.DataFrame([blank | row for row in rows], schema=kind.columns)


def demonstrations(repeats: int = 4) -> pl.DataFrame:
    """Each prompt with its answer, several times."""
    rows = [
        {"instruction": instruction, "input": text, "output": answer, "tokenizer": ""}
        for (instruction, text), answer in zip(PROMPTS, ANSWERS, strict=True)
    ]
    return frame(Demonstrations, rows * repeats)


def preferences(repeats: int = 4) -> pl.DataFrame:
    """Each prompt with its answer against a wrong one, first and second in turn."""
    rows = []
    for i in range(repeats * len(PROMPTS)):
        instruction, text = PROMPTS[i % len(PROMPTS)]
        good, bad = ANSWERS[i % len(ANSWERS)], "No, plums are not blue today, and plums are not."
        rows.append(
            {
                "instruction": instruction if i < len(PROMPTS) else f"{instruction} ({i})",
                "input": text,
                "output_1": good if i % 2 else bad,
                "output_2": bad if i % 2 else good,
                "tokenizer": "",
                "preference": 1.0 if i % 2 else 2.0,
                "status": "ok",
            }
        )
    return frame(Preferences, rows)
