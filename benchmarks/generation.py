"""The stage that makes candidates beside raw vLLM and transformers `generate`, on the same prompts.

    python -m benchmarks.generation [--prompts 200] [--samples 4] [--tokens 64] [--rounds 3]
    python -m benchmarks.generation --memory 16 64 256

The stage is `tasks.generate` with a cold store and a cold ledger: prompts read and rendered, keys,
samples remembered on disk, text, Parquet, manifest. Raw vLLM is `LLM.generate` on ready ids, once
with a seed for each request as the stage has (it then gives the very same tokens), once without,
`n` at a time. All three use one engine, started before and with an empty prefix cache, so neither
starts nor imports are counted. They take turns in every round; medians are printed.

With `--memory` each number of samples a prompt goes through the stage's writer in a process of its
own, with an engine that answers at once; its peak of resident memory is printed.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from alpacafarm_core.machine import Machine

PROMPTS = 805
ANSWER = 100  # tokens of each answer when memory is measured
WIDTH, LAYERS = 256, 4  # of the random model


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=("world", "random"), default="random")
    parser.add_argument("--memory", type=int, nargs="+", help="samples a prompt")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peak:
        return print(json.dumps(peak(chosen.peak)))
    if chosen.memory:
        return memory(chosen.memory)
    if not Machine().has_vllm():
        return print("vLLM is not installed: nothing to compare with")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALPACAFARM_STORE"] = str(Path(folder, "store"))
        os.environ |= {"ALPACAFARM_WORKERS": "1", "ALPACAFARM_APART": "no"}
        report(Contest(Path(folder), chosen).run())


def report(rounds: list[dict[str, "Turn"]]) -> None:
    """Medians over the rounds, and of the ratios of each round."""
    ours = [each["stage"] for each in rounds]
    print(f"{'':36}{'tokens':>9} {'tokens/s':>9} {'per CPU s':>9} {'stage/it':>9} {'by CPU':>7}")
    for name in rounds[0]:
        turns = [each[name] for each in rounds]
        wall, cpu = (
            statistics.median(
                getattr(a, by) / getattr(b, by) for a, b in zip(ours, turns, strict=True)
            )
            for by in ("rate", "rate_by_cpu")
        )
        rates = [statistics.median(getattr(t, by) for t in turns) for by in ("rate", "rate_by_cpu")]
        print(
            f"{name:36}{turns[0].tokens:9d} {rates[0]:9.0f} {rates[1]:9.0f} {wall:9.3f} {cpu:7.3f}"
        )


class Turn:
    """One measurement: tokens, and seconds by the wall and by the processor."""

    def __init__(self, work: Callable[[], int]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.tokens = work()
        self.rate = self.tokens / (time.perf_counter() - wall)
        self.rate_by_cpu = self.tokens / (time.process_time() - cpu)


class Kept:
    """A sampler that lasts: the stage may close it and open it again."""

    def __init__(self, sampler: Any) -> None:
        self.stream, self.close = sampler.stream, lambda: None


class Contest:
    """One engine, one policy in a store, one list of prompts."""

    def __init__(self, folder: Path, chosen: argparse.Namespace) -> None:
        from alpacafarm_core import generate
        from alpacafarm_core.setup import World
        from alpacafarm_core.sources import instructions
        from alpacafarm_core.train.batches import prompt_ids, prompt_texts
        from alpacafarm_core.train.models import load_policy
        from alpacafarm_core.vllm_engine import VLLMSampler

        self.chosen, self.machine = chosen, Machine.here()
        self.rows = instructions(World(), "val", chosen.prompts)
        self.folder = model(folder / "model", chosen.model)
        self.model, self.tokenizer = load_policy(self.folder, self.machine)
        self.prompts = prompt_ids(self.tokenizer, prompt_texts(self.rows))
        self.texts = prompt_texts(self.rows)
        longest = max(map(len, self.prompts)) + chosen.tokens
        self.sampler = VLLMSampler(self.folder, longest, self.tokenizer.eos_token_id, self.machine)
        generate.open_sampler = lambda *_: Kept(self.sampler)  # type: ignore[assignment,return-value]

    def run(self) -> list[dict[str, Turn]]:
        """Everybody's turn in every round, after one that does not count."""
        contestants = {
            "stage": self.stage,
            "vLLM, a seed each (same tokens)": self.raw,
            "vLLM, n samples, no seeds": self.raw_without_seeds,
            "transformers generate, batches of 64": self.plainly,
        }
        rounds = []
        for number in range(self.chosen.rounds + 1):
            turns = {}
            for name, work in contestants.items():
                self.sampler.llm.reset_prefix_cache()
                turns[name] = Turn(lambda work=work, number=number: work(number))  # type: ignore[misc]
            rounds.append(turns)
            print(f"round {number} done", file=sys.stderr)
        return rounds[1:]

    def sampling(self, seed: int) -> Any:
        """What is asked of everybody."""
        from alpacafarm_core.settings import Sampling

        return Sampling(
            n=self.chosen.samples, temperature=1.0, max_tokens=self.chosen.tokens, seed=seed
        )

    def stage(self, seed: int) -> int:
        """Tokens of the candidates that the stage makes."""
        import tasks
        from alpacafarm_core.artifacts import Instructions
        from alpacafarm_core.recipe import Recipe
        from alpacafarm_core.store import Made
        from alpacafarm_core.weights import Policy
        from tasks.stage import store

        policy, prompts = Policy(key="a" * 16), Instructions(key="b" * 16)
        if not store().has(policy):
            import shutil

            scratch = store().scratch()
            shutil.copytree(self.folder, scratch, dirs_exist_ok=True)
            for artifact, content in ((policy, scratch), (prompts, self.rows)):
                recipe = Recipe.of(artifact.kind, 1, {})
                store().write(artifact, Made(content), recipe, time.time())
        made = tasks.generate(policy, prompts, self.sampling(seed))
        return int(store().scan(made).select("output_ids").collect()["output_ids"].list.len().sum())

    def raw(self, seed: int) -> int:
        """The same samples straight from vLLM."""
        from alpacafarm_core.generate import seed_of

        samples = range(self.chosen.samples)
        prompts = [ids for ids in self.prompts for _ in samples]
        seeds = [seed_of(seed, text, index) for text in self.texts for index in samples]
        return self.generated(prompts, [self.asked(seed=each) for each in seeds])

    def raw_without_seeds(self, _: int) -> int:
        """As many samples, the way vLLM is mostly asked."""
        return self.generated(self.prompts, self.asked(n=self.chosen.samples))

    def asked(self, **more: Any) -> Any:
        """vLLM's form of what is asked of everybody."""
        from vllm import SamplingParams

        return SamplingParams(
            temperature=1.0,
            max_tokens=self.chosen.tokens,
            stop_token_ids=[self.tokenizer.eos_token_id],
            detokenize=False,
            **more,
        )

    def generated(self, prompts: list[list[int]], asked: Any) -> int:
        """Tokens that vLLM answers."""
        inputs = [{"prompt_token_ids": list(ids)} for ids in prompts]
        answers = self.sampler.llm.generate(inputs, asked, use_tqdm=False)
        return sum(len(each.token_ids) for answer in answers for each in answer.outputs)

    def plainly(self, seed: int) -> int:
        """Tokens up to the end token from transformers, prompts of similar length together."""
        import torch

        torch.manual_seed(seed)
        order, found = sorted(self.prompts, key=len), 0
        for start in range(0, len(order), 64 // self.chosen.samples or 1):
            some = order[start : start + (64 // self.chosen.samples or 1)]
            found += self.continued(some)
        return found

    def continued(self, prompts: list[list[int]]) -> int:
        """Tokens that one batch of prompts gets in answer."""
        import torch

        longest = max(map(len, prompts))
        padded = [[0] * (longest - len(ids)) + ids for ids in prompts]
        ids = torch.tensor(padded)
        seen = torch.arange(longest) >= torch.tensor([[longest - len(each)] for each in prompts])
        whole = self.model.generate(
            ids,
            attention_mask=seen.long(),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=self.chosen.tokens,
            num_return_sequences=self.chosen.samples,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        ended = (whole[:, longest:] == self.tokenizer.eos_token_id).cumsum(1)
        ended_before = ended - (whole[:, longest:] == self.tokenizer.eos_token_id).long()
        return int((ended_before == 0).sum())


def model(folder: Path, name: str) -> Path:
    """The world's base model, or a larger one with its tokenizer and random weights."""
    from alpacafarm_core.sources import WORLD_BASE

    if name == "world":
        return WORLD_BASE
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from alpacafarm_core.train.models import Loaded, load_tokenizer, save

    tokenizer = load_tokenizer(WORLD_BASE)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH * 3,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // 64,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    save(Loaded(LlamaForCausalLM(shape), tokenizer), folder)
    return folder


def memory(samples: list[int]) -> None:
    """Peak resident memory for each number of samples a prompt."""
    for number in samples:
        words = [sys.executable, "-m", "benchmarks.generation", "--peak", str(number)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.strip().splitlines()[-1])
        print(
            f"{PROMPTS} prompts x {number:5d} = {found['rows']:8d} answers of {ANSWER} tokens: "
            f"peak {found['peak']:.0f} MiB, {found['begun']:.0f} MiB before the first, "
            f"file {found['file']:.0f} MiB, {found['seconds']:.0f} s"
        )


def peak(samples: int) -> dict[str, float]:
    """What writing so many answers to each prompt takes, with an engine that answers at once."""
    from alpacafarm_core import generate
    from alpacafarm_core.ledger import Ledger
    from alpacafarm_core.settings import Sampling
    from alpacafarm_core.setup import World
    from alpacafarm_core.sources import WORLD_BASE, instructions

    rows = instructions(World(), "val", PROMPTS)
    sampling = Sampling(n=samples, max_tokens=ANSWER)
    generate.open_sampler = lambda *_: Instant()  # type: ignore[assignment,return-value]
    with tempfile.TemporaryDirectory() as name:
        ledger, file = Ledger(Path(name, "ledger.sqlite")), Path(name, "rows.parquet")
        generate.write(WORLD_BASE, rows[:8], sampling, ledger, file, Machine(device="cpu"))
        begun, started = resident(), time.monotonic()
        fresh = sampling.replace(seed=1)
        count = generate.write(WORLD_BASE, rows, fresh, ledger, file, Machine(device="cpu"))
        size = file.stat().st_size / 2**20
    seconds = time.monotonic() - started
    return {"rows": count, "peak": resident(), "begun": begun, "file": size, "seconds": seconds}


def resident() -> float:
    """The most this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Instant:
    """An engine that answers at once with ids made of the seed."""

    def stream(self, batches: Iterable[Any], _: Any) -> Iterator[list[Any]]:
        """Answers of a fixed length."""
        from alpacafarm_core.sampler import Sample

        for batch in batches:
            yield [
                Sample([5 + (seed + i * 97) % 900 for i in range(ANSWER)], "length")
                for seed in batch.seeds
            ]

    def close(self) -> None:
        """Nothing is held."""


if __name__ == "__main__":
    main()
