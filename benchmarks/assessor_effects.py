"""What the world's raters and critics see: how often they order two answers as the truth does.

    python -m benchmarks.assessor_effects [--seeds 3] [--scale small] [--out docs/assessors.md]

Four writers of growing skill answer prompts of the world. One call an aspect rates the four answers
together, one call an answer criticises it. Printed are means over seeds of prompts; `±` is their
standard error, and of a difference that of the paired difference. Nothing is trained.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory

import polars as pl

from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.assessors import Assessors, load
from alpacafarm_core.critique import criticise, repair
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.rate import rate
from alpacafarm_core.ratings import ASPECTS
from alpacafarm_core.world import judges
from alpacafarm_core.world.instructions import instructions
from alpacafarm_core.world.utility import utility
from alpacafarm_core.world.writers import write
from benchmarks.world_effects import markdown

SKILLS = (0.35, 0.6, 0.85, 0.95)
PROMPTS = {"smoke": 32, "small": 1000}
MODELS = ("world/oracle", "world/judge-gpt4-3", "world/judge-chatgpt-3", "world/judge-davinci003-4")
COLUMNS = (*ASPECTS, "fine", "overall")
PROMPT = ["instruction", "input"]
Figures = dict[str, float]


def answers(size: int, seed: int) -> pl.DataFrame:
    """Columns of `Candidates`, and the true utility of each answer."""
    rows: list[tuple[object, ...]] = []
    for row in instructions("preference", size, seed):
        texts = row["instruction"], row["input"]
        for skill in SKILLS:
            output = write(*texts, skill, seed)
            said: tuple[object, ...] = (
                *texts,
                row["dataset"],
                output,
                [],
                "",
                "stop",
                f"writer-{skill}",
            )
            rows.append((*said, 0, 1.0, 1.0, 300, seed, utility(*texts, output)))
    schema = pl.Schema(Candidates.columns | {"truth": pl.Float64()})
    return pl.DataFrame(rows, schema=schema, orient="row")


def rated(table: pl.DataFrame, model: str) -> pl.DataFrame:
    """The answers with marks and overall scores by one model of the world, and its cost."""
    asked = table.drop("truth")
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder, "ledger.sqlite"))
        ratings = rate(asked, by(model, "rating"), judges.ask, ledger).rows
        critics = by(model, "critique")
        told = criticise(asked, critics.but("critique"), judges.ask, ledger).rows
        rows = repair(ratings, told, critics.but("repair"), judges.ask, ledger).rows
        ledger.close()
    return rows.with_columns(table["truth"])


def by(model: str, purpose: str) -> Assessors:
    """The shipped panel of the world with another model in it."""
    panel = load("world", purpose)  # type: ignore[arg-type]
    return panel.replace(assessors=tuple(each.replace(model=model) for each in panel.assessors))


def figures(rows: pl.DataFrame) -> Figures:
    """Of each column the share of pairs in order and of ties, in percent, and mean marks."""
    found: Figures = {}
    for column in COLUMNS:
        seen = rows.select(*PROMPT, "truth", column).with_row_index("row").drop_nulls()
        pairs = seen.join(seen, on=PROMPT, suffix="_2").filter(
            (pl.col("row") < pl.col("row_2")) & (pl.col("truth") != pl.col("truth_2"))
        )
        told, true = (pairs[name] - pairs[f"{name}_2"] for name in (column, "truth"))
        decided = pairs.filter(told != 0).height
        right = int(((told * true) > 0).sum())
        found[f"{column} right"] = 100 * right / decided
        found[f"{column} tied"] = 100 * (1 - decided / pairs.height)
    found["$ a prompt"] = float(rows["price"].sum()) * len(SKILLS) / rows.height
    return found


def table(runs: Sequence[tuple[str, Sequence[Figures]]]) -> str:
    """One row a model: pairs in order for each column, its ties in brackets."""
    rows: list[dict[str, object]] = []
    for model, seeds in runs:
        gap = [{"gap": one["fine right"] - one["overall right"]} for one in seeds]
        told: dict[str, object] = {
            name.replace("_", " "): f"{_mean(seeds, f'{name} right')} "
            f"({fmean(one[f'{name} tied'] for one in seeds):.0f})"
            for name in COLUMNS
        }
        price = f"{fmean(one['$ a prompt'] for one in seeds):.3f}"
        told |= {"fine less overall": _mean(gap, "gap"), "$ a prompt": price}
        rows.append({"judge": model.removeprefix("world/"), **told})
    return markdown(rows)


def _mean(seeds: Sequence[Figures], name: str) -> str:
    values = [one[name] for one in seeds]
    error = f" ± {stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{error}"


def main() -> None:
    """Print the table, and write it where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", choices=PROMPTS, default="small")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    tables = [answers(PROMPTS[chosen.scale], seed) for seed in range(chosen.seeds)]
    runs = [(model, [figures(rated(each, model)) for each in tables]) for model in MODELS]
    text = table(runs)
    print(text)
    if chosen.out is not None:
        chosen.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
