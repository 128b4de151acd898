"""The farm on data nobody here made: instructions, demonstrations and GPT-4's labels from files.

    python -m benchmarks.real_input FOLDER [--pairs 2000] [--out docs/real-input-table.md]

FOLDER holds `alpaca_eval_805.parquet`, `seed_tasks_175.parquet` and `gpt4_judged_pairs.parquet`.
Half of the 805 prompts are for evaluation by a hash of their text; demonstrations and recorded
labels of those are left out. The base is the built-in world's tiny model, which has never seen such
text: the run shows that the path holds, not that 1.3 million parameters write well. No judge is
asked, so policies are ranked by the reward model itself and by a second one, fitted on the other
half of the labels, which no policy was optimised against.
"""

import argparse
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

import tasks
from alpacafarm_core.artifacts import Instructions, Preferences
from alpacafarm_core.farm import Farm
from alpacafarm_core.methods.best_of_n import BestOfN
from alpacafarm_core.methods.ppo import PPO
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.settings import Fitting, Sampling
from alpacafarm_core.setup import File, Files, Setup
from alpacafarm_core.sources import is_evaluated, merged, pretrained
from alpacafarm_core.weights import Policy, RewardModel
from benchmarks.world_effects import markdown
from tasks.stage import stage, store

FARM: Farm = tasks
LONGEST = 512


@stage(Preferences, version=1)
def part(preferences: Preferences, number: int, rows: int) -> pl.DataFrame:
    """Half of the recorded pairs by a hash of their prompt, at most `rows` of them."""
    pairs = store().read(preferences)
    prompts = pairs.select("instruction", "input").iter_rows()
    first = pl.Series([is_evaluated("half" + merged(*prompt), 0.5) for prompt in prompts])
    half = pairs.filter(first if number == 0 else ~first)
    return half.filter(pl.col("preference") != 1.5).sample(
        min(rows, half.height), seed=number, shuffle=True
    )


@stage(Instructions, version=1)
def short(instructions: Instructions, longest: int) -> pl.DataFrame:
    """Prompts of at most so many characters, which leave the tiny model room to answer."""
    rows = store().read(instructions)
    length = pl.col("instruction").str.len_chars() + pl.col("input").str.len_chars()
    return rows.filter(length <= longest)


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("alpacafarm.training").setLevel(logging.WARNING)
    text = report(source(chosen.folder), chosen.pairs)
    print(text)
    if chosen.out:
        chosen.out.write_text(f"<!-- made by benchmarks/real_input.py -->\n\n{text}\n")


def source(folder: Path) -> Files:
    """The three files as a source."""
    return Files(
        instructions=File.model_validate(folder / "alpaca_eval_805.parquet"),
        demonstrations=File.model_validate(folder / "seed_tasks_175.parquet"),
        preferences=File.model_validate(folder / "gpt4_judged_pairs.parquet"),
    )


def report(files: Files, pairs: int) -> str:
    """Two reward models and three policies, as two tables."""
    setup = Setup(source=files)
    base = FARM.base(pretrained(setup.base))
    demonstrations = FARM.demonstrations(files, 1000)
    training = SFT.at("small").training.replace(max_length=LONGEST)
    policy = FARM.train(base, demonstrations, SFT(training=training))
    recorded = FARM.recorded(files)
    longer = Fitting.at("small").training.replace(max_length=LONGEST)
    fitting = Fitting(training=longer, held_out=400)
    with ThreadPoolExecutor(2) as threads:
        parts = [part(recorded, number, pairs) for number in (0, 1)]
        first, second = threads.map(lambda half: FARM.fit_reward(policy, half, fitting), parts)
    rewards = [reward_row(name, model) for name, model in (("optimised", first), ("apart", second))]
    policies = ranked(policy, first, second, files)
    counts = (
        f"{store().manifest(demonstrations).rows} demonstrations, "
        f"{store().manifest(recorded).rows} recorded pairs outside the evaluation half."
    )
    return f"{counts}\n\n{markdown(rewards)}\n\n{markdown(policies)}"


def reward_row(name: str, model: RewardModel) -> dict[str, object]:
    """Accuracy on instructions the reward model never saw, beside preferring the longer."""
    notes = store().manifest(model).notes
    return {
        "reward model": name,
        "pairs": notes["rows"],
        "held out": notes["held_out_rows"],
        "accuracy %": f"{100 * notes['accuracy']:.1f}",
        "longer wins %": f"{100 * notes['length_accuracy']:.1f}",
        "responses cut": notes["cut"],
    }


def ranked(
    policy: Policy, first: RewardModel, second: RewardModel, files: Files
) -> list[dict[str, object]]:
    """SFT, best-of-n and PPO on evaluation prompts, scored by both reward models."""
    objective = PPO.at("small").objective
    prompts = short(FARM.instructions(files, "unlabeled", 1000), 300)
    best = BestOfN.at("small")
    entries = {
        "sft": policy,
        "best_of_n": policy.replace(decode=best.decoding(first)),
        "ppo": FARM.roll_out(policy, first, prompts, objective),
    }
    evaluated = short(FARM.instructions(files, "eval", 1000), 300)
    rows = []
    for name, entry in entries.items():
        answers = FARM.generate(entry, evaluated, Sampling(max_tokens=48))
        scores = [store().read(FARM.score(answers, judge)) for judge in (first, second)]
        rows.append(
            {
                "policy": name,
                "prompts": scores[0].height,
                "reward optimised": f"{scores[0]['score'].mean():.3f}",
                "reward apart": f"{scores[1]['score'].mean():.3f}",
                "chars": f"{scores[0]['output'].str.len_chars().mean():.0f}",
            }
        )
    return rows


if __name__ == "__main__":
    main()
