"""Pretraining the base model of the world: `python -m alpacafarm_core.world.base`.

To this world the base model is what LLaMA is to ours: it knows the language and the facts, copies
and compares, and is a poor assistant. It is trained once, from scratch, on documents of
`corpus.py`, and committed with its tokenizer and the record of its training, because everything
after it depends on how well it knows the world.

Left out on purpose: dropout, weight tying, several epochs. Documents are drawn fresh and never
seen twice, and the learning rate follows the clock, so that training ends when it should.
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alpacafarm_core.world.corpus import documents
from alpacafarm_core.world.facts import FOLDER

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


class Pretraining(NamedTuple):
    """How the base model is trained.

    `vocabulary` and `longest` are in tokens, `batch` and `documents` (what the tokenizer is made
    from) in documents. Training ends after `seconds` or `steps`, whichever comes first.
    """

    seconds: float = 2700.0
    steps: int = 1_000_000
    seed: int = 0
    vocabulary: int = 2048
    documents: int = 12_000
    hidden: int = 128
    layers: int = 4
    batch: int = 32
    longest: int = 256
    rate: float = 6e-3
    warmup: float = 0.03


def train_tokenizer(pretraining: Pretraining) -> Any:
    """A byte-level BPE tokenizer of the web's documents, which puts `<s>` before a text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=pretraining.vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = islice(documents(pretraining.seed), pretraining.documents)
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
    )


def new_model(pretraining: Pretraining, tokenizer: Any) -> LlamaForCausalLM:
    """An untrained Llama with heads of 32 dimensions and an untied output layer."""
    torch.manual_seed(pretraining.seed)
    heads = pretraining.hidden // 32
    configuration = LlamaConfig(
        vocab_size=pretraining.vocabulary,
        hidden_size=pretraining.hidden,
        intermediate_size=pretraining.hidden * 8 // 3 // 64 * 64,
        num_hidden_layers=pretraining.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(configuration)
    # The backward of torch's fused attention takes half of a training step on a CPU.
    model.set_attn_implementation("eager")
    return model


def batches(tokenizer: Any, pretraining: Pretraining) -> Iterator[Tensor]:
    """Documents as ids [B, T], each ended and padded on the right, of similar length in a batch."""
    rng, stream = Random(pretraining.seed), documents(pretraining.seed + 1)
    while True:
        texts = [text + EOS for text in islice(stream, 32 * pretraining.batch)]
        rows = sorted((ids[: pretraining.longest] for ids in tokenizer(texts).input_ids), key=len)
        groups = [rows[i : i + pretraining.batch] for i in range(0, len(rows), pretraining.batch)]
        rng.shuffle(groups)
        for group in groups:
            yield _padded(group, tokenizer.pad_token_id)


def _padded(rows: list[list[int]], pad: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])


def pretrain(model: LlamaForCausalLM, tokenizer: Any, pretraining: Pretraining) -> dict[str, Any]:
    """Train in place until time or steps are up; the record of what happened."""
    optimizers = _optimizers(model, pretraining.rate)
    started, losses, tokens = time.monotonic(), [], 0
    model.train()
    for step, ids in enumerate(batches(tokenizer, pretraining)):
        done = max((time.monotonic() - started) / pretraining.seconds, step / pretraining.steps)
        if done >= 1.0:
            break
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = pretraining.rate * schedule(done, pretraining.warmup)
        losses.append(_step(model, optimizers, ids, tokenizer.pad_token_id))
        tokens += int((ids != tokenizer.pad_token_id).sum())
    return {
        "loss": _curve(losses),
        "seconds": round(time.monotonic() - started, 1),
        "steps": len(losses),
        "tokens": tokens,
        "parameters": sum(one.numel() for one in model.parameters()),
    }


def _optimizers(model: LlamaForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, output layer and norms.

    Per token Muon learns a model of this size markedly faster than AdamW alone.
    """
    inside = [one for one in model.model.layers.parameters() if one.dim() == 2]
    known = {id(one) for one in inside}
    outside = [one for one in model.parameters() if id(one) not in known]
    return [
        torch.optim.Muon(inside, lr=rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outside, lr=rate, weight_decay=0.0, betas=(0.9, 0.95)),
    ]


def schedule(done: float, warmup: float) -> float:
    """The share of the full rate after a share of the training: a ramp, then half a cosine.

    >>> schedule(0.5, 0.0)
    0.5
    """
    if done < warmup:
        return (done + 1e-3) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (done - warmup) / (1.0 - warmup)))


def _step(
    model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], ids: Tensor, pad: int
) -> float:
    """One step of next-token prediction on ids [B, T]; the mean loss in nats per token."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state
        targets = ids[:, 1:]
        kept = targets != pad
        logits = model.lm_head(hidden[kept])
    loss = torch.nn.functional.cross_entropy(logits.float(), targets[kept])
    model.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.detach())


def _curve(losses: list[float]) -> list[float]:
    """Up to forty means of the losses in their order."""
    size = math.ceil(len(losses) / 40) or 1
    parts = [losses[i : i + size] for i in range(0, len(losses), size)]
    return [round(sum(part) / len(part), 4) for part in parts]


def save(folder: Path, model: LlamaForCausalLM, tokenizer: Any, record: dict[str, Any]) -> None:
    """Write weights (bf16), tokenizer and the record of the training."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    text = json.dumps(record, indent=2)
    (folder / "training_record.json").write_text(text + "\n", encoding="utf-8")


def make(pretraining: Pretraining, folder: Path) -> dict[str, Any]:
    """Train tokenizer and base model, save both, and return the record."""
    tokenizer = train_tokenizer(pretraining)
    model = new_model(pretraining, tokenizer)
    record = pretrain(model, tokenizer, pretraining)
    record |= {
        "pretraining": pretraining._asdict(),
        "corpus": "documents of the built-in world, drawn fresh: questions with answers of mixed "
        "quality, threads that remark on, compare and mend answers, plain facts",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    save(folder, model, tokenizer, record)
    return record


def main() -> None:
    """Train the base model of the world and say how it went."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=Pretraining().seconds)
    parser.add_argument("--out", type=Path, default=FOLDER / "base")
    chosen = parser.parse_args()
    record = make(Pretraining(seconds=chosen.seconds), chosen.out)
    print(f"{record['steps']} steps, {record['tokens']:,} tokens, {record['seconds']} s")
    print("loss", *record["loss"])


if __name__ == "__main__":
    main()
