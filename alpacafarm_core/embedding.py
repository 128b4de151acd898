"""Texts to vectors: hashed n-grams, a policy's own hidden states, or an encoder of a folder.

Equal texts get one and the same vector, so that copies are at distance 0 whatever rounding a batch
brings. Vectors are not scaled; `neighbours.py` does that.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from alpacafarm_core import parts
from alpacafarm_core.machine import Machine
from alpacafarm_core.neighbours import first_similar, nearest
from alpacafarm_core.prompts import merged
from alpacafarm_core.synthesis import Nearness, Neighbours, Spelled

BATCH = 64


def write(
    model: Path | None, rows: pl.DataFrame, nearness: Nearness, out: Path, machine: Machine
) -> int:
    """Neighbours of each row as Parquet in the file `out`; how many rows there are.

    `model` is the folder that reads the texts, None where they are spelled.
    """
    texts = [merged(*row) for row in rows.select("instruction", "input").iter_rows()]
    near = nearest(embedded(model, texts, nearness, machine), nearness.threshold)
    found = rows.select("instruction", "input", "dataset").with_columns(
        min_neighbor_distance=pl.Series(near.distance).fill_nan(None),
        repeat_count=pl.Series(near.repeats),
        min_similar_id=pl.Series(first_similar(near), dtype=pl.Int64),
    )
    return parts.lay([found], Neighbours.columns, out)


def embedded(
    model: Path | None, texts: Sequence[str], nearness: Nearness, machine: Machine
) -> NDArray[Any]:
    """A vector of each text, [N, D]."""
    unique = list(dict.fromkeys(texts))
    how = nearness.embedding
    if isinstance(how, Spelled):
        vectors = np.array([spelled(text, how) for text in unique])
    else:
        assert model is not None
        vectors = _read(model, unique, machine)
    at = {text: number for number, text in enumerate(unique)}
    return vectors[[at[text] for text in texts]]


def spelled(text: str, how: Spelled) -> NDArray[np.float64]:
    """How often each n-gram of characters stands in a text, case aside, hashed to [D]."""
    vector = np.zeros(how.dimensions)
    padded = f" {' '.join(text.lower().split())} "
    for start in range(max(1, len(padded) - how.n + 1)):
        number = zlib.crc32(padded[start : start + how.n].encode())
        vector[number % how.dimensions] += 1.0
    return vector


def _read(folder: Path, texts: Sequence[str], machine: Machine) -> NDArray[Any]:
    """The mean of a model's last hidden states over the tokens of each text, [N, D]."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from alpacafarm_core.train.models import begin

    device = begin(machine)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.padding_side = "right"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModel.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
    model = model.to(device).eval()
    longest = min(int(model.config.max_position_embeddings), tokenizer.model_max_length)
    found: list[NDArray[Any]] = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            some = list(texts[start : start + BATCH])
            read = tokenizer(
                some, padding=True, truncation=True, max_length=longest, return_tensors="pt"
            ).to(device)
            kept = read.attention_mask.unsqueeze(-1)
            seen = model(input_ids=read.input_ids, attention_mask=read.attention_mask)
            found.append(((seen.last_hidden_state * kept).sum(1) / kept.sum(1)).cpu().numpy())
    return np.concatenate(found)
