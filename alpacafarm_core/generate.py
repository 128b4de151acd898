"""Answers of a policy: sampled once, remembered by the ledger sample by sample, and best-of-n.

A sample is known by the policy's weights, its prompt's ids, the sampling (how many are drawn
included), the seed and its index within the prompt. Were the number left out, best-of-n and a plain
answer drawn at the same time would share samples, and which batch drew them, so their last bits,
would be a matter of timing. Unknown ones are drawn in chunks, in row order, and remembered after
each chunk.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import Ledger, digest
from alpacafarm_core.machine import Machine
from alpacafarm_core.recipe import file_digest
from alpacafarm_core.sampler import Sample, Sampler
from alpacafarm_core.search import best
from alpacafarm_core.settings import Sampling
from alpacafarm_core.train.batches import prompt_ids, prompt_texts, tokenizer_digest
from alpacafarm_core.train.models import begin, load_policy, load_tokenizer
from alpacafarm_core.weights import BestOf

CHUNK = 512


class Draw(NamedTuple):
    """One sample to be had: its row, its place among the row's, prompt ids, seed, ledger key."""

    row: int
    sample_index: int
    prompt: list[int]
    seed: int
    key: str


def generate(
    policy: Path, rows: pl.DataFrame, sampling: Sampling, ledger: Ledger, machine: Machine
) -> pl.DataFrame:
    """`sampling.n` answers of the policy in a folder to each row of Instructions, as Candidates."""
    tokenizer = load_tokenizer(policy)
    draws = _draws(policy, rows, sampling, tokenizer)
    held = ledger.samples_known([draw.key for draw in draws])
    known = {key: _unpacked(body) for key, body in held.items()}
    unknown = [draw for draw in draws if draw.key not in known]
    if unknown:
        sampler = open_sampler(policy, longest(draws, sampling), machine)
        for chunk in _chunks(unknown):
            found = sampler.sample(
                [draw.prompt for draw in chunk], sampling, [draw.seed for draw in chunk]
            )
            fresh = {draw.key: sample for draw, sample in zip(chunk, found, strict=True)}
            ledger.append_samples({key: _packed(sample) for key, sample in fresh.items()})
            known.update(fresh)
        sampler.close()
    answers = [known[draw.key] for draw in draws]
    name = pl.lit(f"{policy.parent.name}/{policy.name}")
    asked = {name: pl.lit(value) for name, value in sampling.model_dump(exclude={"n"}).items()}
    table = _table(rows, draws, answers, tokenizer).with_columns(generator=name, **asked)
    return table.select(pl.col(name).cast(kind) for name, kind in Candidates.columns.items())


def best_of(
    models: tuple[Path, Path],
    rows: pl.DataFrame,
    asked: tuple[Sampling, BestOf],
    ledger: Ledger,
    machine: Machine,
) -> pl.DataFrame:
    """Candidates with the highest reward of n draws each, and that reward as column `score`.

    `models` are the policy and the reward model; draws use the temperature and nucleus of the
    BestOf, everything else is the Sampling's. `sampling.n` best ones come from n draws each.
    """
    from alpacafarm_core.reward import score

    (policy, reward), (sampling, decode) = models, asked
    draw = sampling.replace(
        n=decode.n * sampling.n, temperature=decode.temperature, top_p=decode.top_p
    )
    drawn = generate(policy, rows, draw, ledger, machine)
    scored = drawn.with_columns(score=pl.Series(score(reward, drawn, machine), dtype=pl.Float64))
    scores = scored["score"].to_list()
    winners = [
        start + best(scores[start : start + decode.n]) for start in range(0, len(scores), decode.n)
    ]
    index = [place % sampling.n for place in range(len(winners))]
    return scored[winners].with_columns(sample_index=pl.Series(index, dtype=pl.Int64))


def open_sampler(policy: Path, longest: int, machine: Machine) -> Sampler:
    """An engine with the policy of a folder, for sequences of up to `longest` tokens."""
    if wants_vllm(machine):
        from alpacafarm_core.vllm_engine import VLLMSampler

        return VLLMSampler(policy, longest, load_tokenizer(policy).eos_token_id, machine)
    from alpacafarm_core.decoding import TransformersSampler

    model, tokenizer = load_policy(policy, machine)
    return TransformersSampler(model, tokenizer.eos_token_id)


def wants_vllm(machine: Machine) -> bool:
    """Whether vLLM is the engine; left open, it is on a GPU that has it.

    On a CPU our own loop is the quicker one for small models, even without the seconds that vLLM
    takes to start.
    """
    on_gpu = begin(machine).type == "cuda"
    return machine.engine == "vllm" or (machine.engine == "auto" and on_gpu and machine.has_vllm())


def seed_of(seed: int, prompt: str, index: int) -> int:
    """The seed of one sample, the same in every process: 48 bits of a hash."""
    return int(digest("seed", seed, prompt, index)[:12], 16)


def weights_digest(folder: Path) -> str:
    """SHA-256 of what decides a model's output: its config and its weights."""
    whole = hashlib.sha256()
    for file in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        whole.update(bytes.fromhex(file_digest(file)))
    return whole.hexdigest()


def longest(draws: Sequence[Draw], sampling: Sampling) -> int:
    """Tokens of the longest prompt with the longest answer to it."""
    return max(len(draw.prompt) for draw in draws) + sampling.max_tokens


def _draws(policy: Path, rows: pl.DataFrame, sampling: Sampling, tokenizer: Any) -> list[Draw]:
    """Every sample asked for, row by row."""
    texts = prompt_texts(rows)
    ids = prompt_ids(tokenizer, texts)
    _check_lengths(policy, [len(prompt) for prompt in ids], sampling)
    weights, drawn = weights_digest(policy), sampling.model_dump_json()
    draws = []
    for row, (text, prompt) in enumerate(zip(texts, ids, strict=True)):
        written = json.dumps(prompt)
        for index in range(sampling.n):
            key = digest("sample", weights, written, drawn, index)
            draws.append(Draw(row, index, prompt, seed_of(sampling.seed, text, index), key))
    return draws


def _check_lengths(policy: Path, lengths: Sequence[int], sampling: Sampling) -> None:
    limit = json.loads((policy / "config.json").read_text()).get("max_position_embeddings")
    for row, length in enumerate(lengths):
        if limit and length + sampling.max_tokens > limit:
            raise BadInput(
                f"row {row}: {length} tokens of prompt and {sampling.max_tokens} of answer exceed "
                f"the {limit} of {policy}; shorten the prompt or lower max_tokens"
            )


def _chunks(draws: Sequence[Draw]) -> Iterator[Sequence[Draw]]:
    return (draws[start : start + CHUNK] for start in range(0, len(draws), CHUNK))


def _packed(sample: Sample) -> bytes:
    return json.dumps(sample._asdict(), separators=(",", ":")).encode()


def _unpacked(body: bytes) -> Sample:
    return Sample(**json.loads(body))


def _table(
    rows: pl.DataFrame, draws: Sequence[Draw], answers: Sequence[Sample], tokenizer: Any
) -> pl.DataFrame:
    """The prompts' columns and what was answered, a row each sample."""
    texts = tokenizer.batch_decode([list(a.ids) for a in answers], skip_special_tokens=True)
    prompts = rows.select("instruction", "input", "dataset")
    return prompts[[draw.row for draw in draws]].with_columns(
        output=pl.Series([text.replace("\0", "") for text in texts], dtype=pl.String),
        output_ids=pl.Series([a.ids for a in answers], dtype=pl.List(pl.Int32)),
        tokenizer=pl.lit(tokenizer_digest(tokenizer)),
        finish_reason=pl.Series([a.finish_reason for a in answers], dtype=pl.String),
        sample_index=pl.Series([draw.sample_index for draw in draws], dtype=pl.Int64),
    )
