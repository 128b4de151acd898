"""Rows for `benchmarks.trl`: made-up prompts with two answers each, of known length."""

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from alpacafarm_core.prompts import render

PROMPT, ANSWER = (28, 36), (39, 59)  # words of an instruction and of an answer, `--rows alpaca`
WORDS = (
    "the a of in on with for from to by and or but if then else when where how why list return "
    "value class function import print object string number error test file open close read "
    "write name copy license software work source code module package version time system data"
)
PASSES = 4  # over PPO's rollouts, what the peer's script does if not told

Row = dict[str, str]


def rows(words: Tokenizer, chosen: argparse.Namespace, count: int) -> list[Row]:
    """Prompts with two answers each; the chosen one prefers the first half of the words.

    Every word is one token, so that lengths are what they are meant to be.
    """
    known = [
        word for word in WORDS.split() if is_token(words, word) and is_token(words, f" {word}")
    ]
    draw, half, made = random.Random(0), len(known) // 2, list[Row]()
    for _ in range(count):
        prompt, *answers = sizes(chosen, draw)
        instruction = " ".join(draw.choices(known, k=prompt))
        text = instruction if chosen.rows == "even" else render(instruction, "")
        better, worse = (
            "".join(f" {draw.choice(some if draw.random() < 0.7 else known)}" for _ in range(size))
            for some, size in zip((known[:half], known[half:]), answers, strict=True)
        )
        row = {"instruction": instruction, "prompt": text, "output": better}
        made.append(row | {"chosen": better, "rejected": worse})
    return made


def is_token(words: Tokenizer, text: str) -> bool:
    """Whether the text is one."""
    return len(words.encode(text, add_special_tokens=False).ids) == 1


def sizes(chosen: argparse.Namespace, draw: random.Random) -> tuple[int, int, int]:
    """Words of a prompt and its two answers; begin and end token make a row of `--seq` tokens."""
    if chosen.rows == "alpaca":
        return draw.randint(*PROMPT), draw.randint(*ANSWER), draw.randint(*ANSWER)
    prompt = chosen.seq // (2 if chosen.loop == "ppo" else 4) - 1
    return prompt, chosen.seq - prompt - 2, chosen.seq - prompt - 2


def longest(chosen: argparse.Namespace) -> int:
    """Tokens of the longest row, cut at by both sides."""
    return chosen.seq if chosen.rows == "even" else 256


def written(path: Path, made: Sequence[Row]) -> Path:
    """One row a line, as TRL's scripts read it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def laid(words: Tokenizer, data: Path, chosen: argparse.Namespace) -> tuple[float, float]:
    """Tokens of a step with every row padded to the longest of its batch, and those of answers.

    Of PPO, sampling apart: four models look once, and policy and critic learn PASSES times.
    """
    if chosen.loop == "ppo":
        return (4 + 2 * PASSES) * chosen.batch * chosen.seq, chosen.batch * chosen.seq / 2
    made = [json.loads(line) for line in data.open()]
    answers = ("output",) if chosen.loop == "sft" else ("chosen", "rejected")
    lengths = [[len(words.encode(r["prompt"] + r[a]).ids) + 1 for a in answers] for r in made]
    batches = [lengths[at : at + chosen.batch] for at in range(0, len(made), chosen.batch)]
    whole = [len(b) * len(answers) * max(map(max, b)) for b in batches]
    prompts = sum(len(words.encode(row["prompt"]).ids) for row in made) * len(answers)
    answered = (sum(map(sum, lengths)) - prompts) / len(batches)
    return statistics.mean(whole), answered
