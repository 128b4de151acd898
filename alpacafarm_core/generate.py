"""Answers of a policy: sampled once, remembered by the ledger sample by sample, and best-of-n.

A sample is known by the policy's weights, its prompt's ids, the sampling (how many are drawn
included), the seed and its index within the prompt. Were the number left out, best-of-n and a plain
answer drawn at the same time would share samples, and which batch drew them, so their last bits,
would be a matter of timing. Draws are looked up, sampled, remembered and handed on in chunks, in
row order: however many there are, only a few chunks are ever held, and a kill loses no more.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from alpacafarm_core import parts
from alpacafarm_core.artifacts import REAL, Candidates, Columns
from alpacafarm_core.committees import Judges
from alpacafarm_core.errors import BadInput
from alpacafarm_core.ledger import Ledger, digest
from alpacafarm_core.machine import Machine
from alpacafarm_core.recipe import file_digest
from alpacafarm_core.sampler import Batch, Sample, Sampler
from alpacafarm_core.scoring import scorer
from alpacafarm_core.search import best
from alpacafarm_core.settings import Sampling
from alpacafarm_core.train.batches import prompt_texts, tokenizer_digest
from alpacafarm_core.train.models import begin, load_policy, load_tokenizer
from alpacafarm_core.train.tokens import asked, reward_ids
from alpacafarm_core.weights import BestOf

CHUNK = 512
WITH_SCORE = {**Candidates.columns, "score": REAL}


class Draw(NamedTuple):
    """One sample to be had: its row, its place among the row's, prompt ids, seed, ledger key."""

    row: int
    sample_index: int
    prompt: list[int]
    seed: int
    key: str


class Chunk(NamedTuple):
    """Draws that are looked up, drawn and remembered together, and what was known of them."""

    draws: list[Draw]
    known: dict[str, Sample]

    @property
    def unknown(self) -> list[Draw]:
        """Those that no one has drawn before."""
        return [draw for draw in self.draws if draw.key not in self.known]


class Written(NamedTuple):
    """Draws and the sample of each."""

    draws: list[Draw]
    samples: list[Sample]


def generate(
    policy: Path, rows: pl.DataFrame, sampling: Sampling, ledger: Ledger, machine: Machine
) -> pl.DataFrame:
    """`sampling.n` answers of the policy in a folder to each row of Instructions, as Candidates.

    A row's column `tag`, where there is one, is the reward token that it is asked behind.
    """
    return _whole(answers(policy, rows, sampling, ledger, machine), Candidates.columns)


def write(
    policy: Path,
    rows: pl.DataFrame,
    sampling: Sampling,
    ledger: Ledger,
    out: Path,
    machine: Machine,
) -> int:
    """The same as Parquet in the file `out`, never held whole; how many answers there are."""
    return parts.lay(answers(policy, rows, sampling, ledger, machine), Candidates.columns, out)


def best_of(
    models: tuple[Path, Judges],
    rows: pl.DataFrame,
    asked: tuple[Sampling, BestOf],
    ledger: Ledger,
    machine: Machine,
) -> pl.DataFrame:
    """Candidates with the highest reward of n draws each, and that reward as column `score`.

    `models` are the policy and the reward model; draws use the temperature and nucleus of the
    BestOf, everything else is the Sampling's. `sampling.n` best ones come from n draws each.
    """
    return _whole(best_answers(models, rows, asked, ledger, machine), WITH_SCORE)


def write_best(
    models: tuple[Path, Judges],
    rows: pl.DataFrame,
    asked: tuple[Sampling, BestOf],
    ledger: Ledger,
    out: Path,
    machine: Machine,
) -> int:
    """The same without the reward, as Parquet in the file `out`; draws are dropped once scored."""
    return parts.lay(best_answers(models, rows, asked, ledger, machine), Candidates.columns, out)


def answers(
    policy: Path, rows: pl.DataFrame, sampling: Sampling, ledger: Ledger, machine: Machine
) -> Iterator[pl.DataFrame]:
    """Candidates, a chunk at a time in row order; each chunk is remembered before it is given."""
    tokenizer = load_tokenizer(policy)
    texts, prompts = prompt_texts(rows, tokenizer), asked(rows, tokenizer)
    lengths = [len(prompt) for prompt in prompts]
    check_lengths(policy, enumerate(lengths), sampling.max_tokens)
    longest = max(lengths, default=0) + sampling.max_tokens
    draws = draws_of(policy, texts, prompts, sampling)
    for some in written(draws, sampling, ledger, lambda: open_sampler(policy, longest, machine)):
        yield table(rows, some, tokenizer, said(policy, tokenizer, sampling))


def said(policy: Path, tokenizer: Any, sampling: Sampling) -> dict[str, Any]:
    """The columns of Candidates that are the same for all answers of one call."""
    return {
        "tokenizer": tokenizer_digest(tokenizer),
        "generator": f"{policy.parent.name}/{policy.name}",
        **sampling.model_dump(exclude={"n"}),
    }


def best_answers(
    models: tuple[Path, Judges],
    rows: pl.DataFrame,
    asked: tuple[Sampling, BestOf],
    ledger: Ledger,
    machine: Machine,
) -> Iterator[pl.DataFrame]:
    """Candidates with the highest reward of n draws each, and their `score`, as they are found."""
    (policy, reward), (sampling, decode) = models, asked
    draw = sampling.replace(
        n=decode.n * sampling.n, temperature=decode.temperature, top_p=decode.top_p
    )
    with scorer(reward, machine) as judge:
        left = pl.DataFrame(schema=WITH_SCORE)
        for drawn in answers(policy, rows, draw, ledger, machine):
            found = pl.Series("score", judge.score(drawn), dtype=pl.Float64)
            scored = pl.concat([left, drawn.with_columns(found)])
            whole = scored.height - scored.height % decode.n
            yield _winners(scored[:whole], decode.n)
            left = scored[whole:]


def open_sampler(policy: Path, longest: int, machine: Machine) -> Sampler:
    """An engine with the policy of a folder, for sequences of up to `longest` tokens."""
    machine.claim()
    if wants_vllm(machine):
        from alpacafarm_core.vllm_engine import VLLMSampler

        tokenizer = load_tokenizer(policy)
        never = reward_ids(tokenizer)
        return VLLMSampler(policy, longest, tokenizer.eos_token_id, machine, never)
    from alpacafarm_core.decoding import TransformersSampler

    model, tokenizer = load_policy(policy, machine)
    return TransformersSampler(model, tokenizer.eos_token_id, reward_ids(tokenizer))


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


def draws_of(
    policy: Path, texts: Sequence[str], prompts: Sequence[list[int]], sampling: Sampling
) -> Iterator[Draw]:
    """Every sample asked for, row by row."""
    weights, drawn = weights_digest(policy), sampling.model_dump_json()
    for row, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        written = json.dumps(prompt)
        for index in range(sampling.n):
            key = digest("sample", weights, written, drawn, index)
            yield Draw(row, index, prompt, seed_of(sampling.seed, text, index), key)


def check_lengths(policy: Path, lengths: Iterable[tuple[int, int]], max_tokens: int) -> None:
    """Raise BadInput where a prompt (row, tokens) leaves no room for so many of an answer."""
    limit = json.loads((policy / "config.json").read_text()).get("max_position_embeddings")
    for row, length in lengths:
        if limit and length + max_tokens > limit:
            raise BadInput(
                f"row {row}: {length} tokens of prompt and {max_tokens} of answer exceed "
                f"the {limit} of {policy}; shorten the prompt or lower max_tokens"
            )


def _chunks(draws: Iterator[Draw], ledger: Ledger) -> Iterator[Chunk]:
    while some := list(islice(draws, CHUNK)):
        held = ledger.samples_known([draw.key for draw in some])
        yield Chunk(some, {key: _unpacked(body) for key, body in held.items()})


def written(
    draws: Iterator[Draw], sampling: Sampling, ledger: Ledger, opened: Callable[[], Sampler]
) -> Iterator[Written]:
    """Every draw with its sample, in chunks; no engine is opened before one is not known."""
    chunks = _chunks(draws, ledger)
    for chunk in chunks:
        if chunk.unknown:
            break
        yield Written(chunk.draws, [chunk.known[draw.key] for draw in chunk.draws])
    else:
        return
    engine = opened()
    try:
        yield from _sampled(engine, chain([chunk], chunks), sampling, ledger)
    finally:
        engine.close()


def _sampled(
    engine: Sampler, chunks: Iterable[Chunk], sampling: Sampling, ledger: Ledger
) -> Iterator[Written]:
    """Every chunk with its samples, remembered; the engine may take chunks in ahead."""
    taken: deque[Chunk] = deque()

    def batches() -> Iterator[Batch]:
        for chunk in chunks:
            taken.append(chunk)
            unknown = chunk.unknown
            yield Batch([draw.prompt for draw in unknown], [draw.seed for draw in unknown])

    for found in engine.stream(batches(), sampling):
        chunk = taken.popleft()
        fresh = {draw.key: one for draw, one in zip(chunk.unknown, found, strict=True)}
        ledger.append_samples({key: _packed(sample) for key, sample in fresh.items()})
        known = chunk.known | fresh
        yield Written(chunk.draws, [known[draw.key] for draw in chunk.draws])


def _packed(sample: Sample) -> bytes:
    """What the ledger keeps: ids and why they end, as always."""
    held = {"ids": sample.ids, "finish_reason": sample.finish_reason}
    return json.dumps(held, separators=(",", ":")).encode()


def _unpacked(body: bytes) -> Sample:
    return Sample(**json.loads(body))


def table(
    rows: pl.DataFrame, answered: Written, tokenizer: Any, same: dict[str, Any]
) -> pl.DataFrame:
    """Candidates: the prompts' columns, what was answered, and what is the `same` for all."""
    draws, samples = answered
    ids = [each.ids for each in samples]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True) if ids else []
    prompts = rows.select("instruction", "input", "dataset")
    found = prompts[[draw.row for draw in draws]].with_columns(
        output=pl.Series([text.replace("\0", "") for text in texts], dtype=pl.String),
        output_ids=pl.Series(ids, dtype=pl.List(pl.Int32)),
        finish_reason=pl.Series([each.finish_reason for each in samples], dtype=pl.String),
        sample_index=pl.Series([draw.sample_index for draw in draws], dtype=pl.Int64),
        **{name: pl.lit(value) for name, value in same.items()},
    )
    return found.select(pl.col(name).cast(kind) for name, kind in Candidates.columns.items())


def _winners(scored: pl.DataFrame, n: int) -> pl.DataFrame:
    """Of every n rows the one with the highest score, numbered within its prompt from 0."""
    scores = scored["score"].to_list()
    rows = [start + best(scores[start : start + n]) for start in range(0, len(scores), n)]
    return scored[rows].with_columns(pl.col("sample_index") // n)


def _whole(frames: Iterable[pl.DataFrame], columns: Columns) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=columns), *frames])
