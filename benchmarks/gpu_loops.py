"""Training loops on one GPU: tokens a second and peak memory of a Llama of random weights.

    python -m benchmarks.gpu_loops [--size 1b] --peak-tflops 989 --bandwidth 3.35
    python -m benchmarks.gpu_loops --size tiny --device cpu --steps 3 --warmup 1   # does it run

SFT, DPO and PPO, each beside plain torch in turns, every run in a process of its own. Plain torch
is the same model from transformers in the same precision, with its fused attention, all logits and
torch's AdamW, on padded rows of the same tokens. For DPO it has the reference's sums already, for
PPO it does the looks and the passes on responses that nobody had to sample. `--peak-tflops` is what
the GPU multiplies at best (dense bfloat16), `--bandwidth` the TB/s of its memory; the time that
work at those rates would take, over the time it took, is the share of the roofline. Work is 2
operations a weight and token forward and 4 backward, and attention's (Kaplan et al. 2020).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

LOOPS = ("sft", "dpo", "ppo")
SIDES = ("here", "torch")
PASSES = 2  # over PPO's rollouts
WORDS = "in the task that is given the answer says what was asked for in plain words of few letters"


class Size(NamedTuple):
    """A Llama: width, width between, layers, heads, heads of keys, vocabulary."""

    hidden: int
    between: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int

    def weights(self) -> int:
        """Weights that every token is multiplied by: all but the embedding's."""
        shared = self.hidden * self.hidden * self.key_heads // self.heads
        layer = 2 * self.hidden**2 + 2 * shared + 3 * self.hidden * self.between
        return self.layers * layer + self.hidden * self.vocabulary

    def forward(self, tokens: float, length: float) -> float:
        """Operations of one look at so many tokens, in rows of this length."""
        return tokens * (2 * self.weights() + 2 * self.layers * self.hidden * length)


SIZES = {
    "1b": Size(2048, 5632, 22, 32, 4, 32000),  # 1.10 billion weights with the embedding
    "tiny": Size(64, 128, 2, 2, 2, 512),
}


def main() -> None:
    """Measure everything in turns."""
    chosen = parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="alpacafarm-") as name:
        chosen.model = made(Path(name, "model"), SIZES[chosen.size])
        print(title(chosen))
        print("| loop | side | tokens/s | s a step | peak GiB | of the roofline |")
        print("|---|---|---:|---:|---:|---:|")
        for loop in chosen.loops:
            runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
            for _ in range(chosen.rounds):
                for side, held in runs.items():
                    held.append(measured(loop, side, chosen))
            for side, held in runs.items():
                print(line(loop, side, held, chosen))


def parser() -> argparse.ArgumentParser:
    """The command line, for the processes that are measured too."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=list(SIZES), default="1b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="transformers")
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=LOOPS)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=32, help="rows, pairs or rollouts a step")
    parser.add_argument("--micro", type=int, default=16, help="rows or pairs at once")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--answer", type=int, default=256, help="tokens of an answer")
    parser.add_argument("--peak-tflops", type=float, help="10^12 operations a second, at best")
    parser.add_argument("--bandwidth", type=float, help="10^12 bytes a second, at best")
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    return parser


def measured(loop: str, side: str, chosen: argparse.Namespace) -> dict[str, float]:
    """One run in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.gpu_loops_child", side, "--loops", loop]
    for name, value in vars(chosen).items():
        if value is not None and name != "loops":
            words += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def title(chosen: argparse.Namespace) -> str:
    """What is measured."""
    weights = SIZES[chosen.size].weights() / 1e6
    kind = "bfloat16" if chosen.device == "cuda" else "float32"
    return (
        f"Llama with {weights:.1f} M weights beside its embedding, {kind} on {chosen.device}; "
        f"{chosen.rows} a step, {chosen.micro} at once, prompts of {chosen.prompt} and "
        f"answers of {chosen.answer} tokens; {chosen.steps} steps without the first "
        f"{chosen.warmup}, medians of {chosen.rounds} rounds in turns. PPO samples with "
        f"{chosen.engine}; plain torch does not sample.\n"
    )


def line(loop: str, side: str, held: list[dict[str, float]], chosen: argparse.Namespace) -> str:
    """A line of the table."""
    seconds, peak = (statistics.median(run[name] for run in held) for name in ("seconds", "peak"))
    tokens = step_tokens(loop, chosen)
    floor = least_seconds(loop, side, chosen)
    share = f"{100 * floor / seconds:.1f} %" if floor else ""
    speed = f"{tokens / seconds:.0f} | {seconds:.3f}"
    return f"| {loop} | {side} | {speed} | {peak / 2**30:.2f} | {share} |"


def step_tokens(loop: str, chosen: argparse.Namespace) -> float:
    """Tokens of a step's rows, prompt and answer, of both sides of a pair."""
    sides = 2 if loop == "dpo" else 1
    return float(sides * chosen.rows * (chosen.prompt + chosen.answer))


def least_seconds(loop: str, side: str, chosen: argparse.Namespace) -> float:
    """Seconds of a step at the best rates of the machine; 0 where they were not given.

    Learning is three looks. Sampling reads all weights, two bytes each, for every token of an
    answer, or multiplies, whichever takes longer.
    """
    if not chosen.peak_tflops:
        return 0.0
    size, peak = SIZES[chosen.size], 1e12 * chosen.peak_tflops
    look = size.forward(step_tokens(loop, chosen), chosen.prompt + chosen.answer) / peak
    if loop != "ppo":
        return 3 * look
    sampling = look
    if chosen.bandwidth:
        sampling = max(look, chosen.answer * 2 * size.weights() / (1e12 * chosen.bandwidth))
    return look * (4 + 2 * 3 * PASSES) + (sampling if side == "here" else 0.0)


def made(folder: Path, size: Size) -> Path:
    """A model folder of random weights, with a small tokenizer."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe, special = ByteLevelBPETokenizer(), ["<s>", "</s>", "<pad>"]
    bpe.train_from_iterator([WORDS], vocab_size=400, min_frequency=1, special_tokens=special)
    names = dict(zip(("bos_token", "eos_token", "pad_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    configuration = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.between,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        max_position_embeddings=2048,
        **{f"{name}_token_id": at for at, name in enumerate(("bos", "eos", "pad"))},
    )
    LlamaForCausalLM(configuration).to(torch.bfloat16).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
