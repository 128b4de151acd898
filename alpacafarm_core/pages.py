"""The pages of the methods: what a page says of settings and formula is the source's own.

    python -m alpacafarm_core.pages [--check]

The part of `docs/methods/<name>.md` between two markers is written from the class, its docstrings
and its sources; what a run showed, and what it did not, stands below and is written by hand.
"""

import argparse
import csv
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from alpacafarm_core.method import Method
from alpacafarm_core.methods import METHODS
from alpacafarm_core.settings import Training
from alpacafarm_core.values import LATER, Value

BEGIN, END = "<!-- from the source -->", "<!-- by hand -->"
BELOW = "\n## What our run showed\n\n## What it does not show\n"
LIST = "README.md"
UNSAID, ALWAYS = ("name", "seed"), ("learning_rate", "epochs", "batch")
FOLDER = Path(__file__).parents[1] / "docs" / "methods"
BOARD = FOLDER.parent / "leaderboard.csv"


def page(method: type[Method]) -> str:
    """The part of a method's page that comes from its source, markers included."""
    rest = inspect.cleandoc(inspect.getmodule(method).__doc__ or "").partition("\n\n")[2]
    told = [f"# `{name_of(method)}`", _title(method), inspect.cleandoc(method.__doc__ or ""), rest]
    recipe = inspect.getdoc(method.optimise)
    told.append(f"**How:** {recipe}")
    told += [f"**Loss:** {said}" for said in losses(method)]
    told.append("## Settings")
    table = ["| setting | default | what | source |", "|---|---|---|---|"]
    table += [f"| `{where}` | {value} | {what} | {source} |" for where, value, what, source in
              settings(method)]  # fmt: skip
    told.append("\n".join(table))
    if figures := board().get(name_of(method)):
        told += ["## On the built-in world", figures]
    return "\n\n".join([BEGIN, *filter(None, told), END]) + "\n"


@cache
def board() -> dict[str, str]:
    """Of each model of the last leaderboard over all methods, its figures in words."""
    if not BOARD.is_file():
        return {}
    with BOARD.open(newline="") as file:
        return {row["model"]: _figures(row) for row in csv.DictReader(file)}


def _figures(row: dict[str, str]) -> str:
    own = {name: float(held) for name, held in row.items() if held and name != "model"}
    words = [f"{own['win_rate']:.1f} ± {own['standard_error']:.1f} % against the reference"]
    if "win_rate_minus_sft" in own:
        won, utility = own["win_rate_minus_sft"], own["utility_minus_sft"]
        words.append(f"{won:+.1f} ± {own['paired_error']:.1f} points to SFT on the same prompts")
        words.append(f"true utility {utility:+.3f} ± {own['utility_paired_error']:.3f} to SFT")
    words.append(f"answers of {own['avg_length']:.0f} characters")
    link = "([all methods](../leaderboard.md))"
    seeds = "seed 0" if own["seeds"] == 1 else f"seeds 0 to {own['seeds'] - 1:.0f}"
    return f"Scale small, {seeds} {link}: {', '.join(words)}."


def index() -> str:
    """The list of all methods, a line each."""
    lines = ["# The methods", "", "Made by `python -m alpacafarm_core.pages`.", ""]
    lines += ["| method | what it is |", "|---|---|"]
    lines += [f"| [`{name}`]({name}.md) | {_title(METHODS[name])} |" for name in sorted(METHODS)]
    return "\n".join(lines) + "\n"


def name_of(method: type[Method]) -> str:
    """What the method is called everywhere."""
    return str(method.model_fields["name"].default)


def losses(method: type[Method]) -> Iterator[str]:
    """Docstrings of the pure losses that stand beside the class."""
    module = inspect.getmodule(method)
    for name, held in vars(module).items():
        if name.endswith("_loss") and inspect.getmodule(held) is module:
            yield inspect.getdoc(held) or ""


def settings(method: type[Method]) -> Iterator[tuple[str, str, str, str]]:
    """Of each setting with a default of its own: where, what, its description and its source."""
    for where, value, what in leaves(method.model_validate({})):
        on_one_line = _short(value).replace("\n", "\\n")
        yield where, f"`{on_one_line}`", what, source_of(method, where)


def _short(value: Any) -> str:
    """A value in words; of settings in a row their names."""
    if isinstance(value, tuple) and value and all(hasattr(each, "name") for each in value):
        return ", ".join(each.name for each in value)
    return str(value)


def source_of(method: type[Method], where: str) -> str:
    """Where a default is from; a group stands for its own settings. Empty when nobody says."""
    parts = where.split(".")
    for end in range(len(parts), 0, -1):
        if said := method.sources.get(".".join(parts[:end])):
            return said
    return ""


def leaves(
    of: Value, before: str = "", plain: Value | None = None
) -> Iterator[tuple[str, Any, str]]:
    """Settings by their path, with value and description; no seeds, nothing that came later and
    is not chosen, and of an optimiser little that is as everywhere.
    """
    for name, field in type(of).model_fields.items():
        value, where = getattr(of, name), f"{before}{name}"
        if name in UNSAID or (LATER in field.metadata and value == field.get_default()):
            continue
        if isinstance(value, Value):
            optimiser = Training() if isinstance(value, Training) else None
            yield from leaves(value, f"{where}.", optimiser)
        elif plain is None or name in ALWAYS or getattr(plain, name) != value:
            yield where, value, field.description or ""


def main() -> None:
    """Write every page anew, or say which ones are not as their source is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [name for name, method in METHODS.items() if not _is_written(name, method, check)]
    if check:
        stale += ["the list"] if (FOLDER / LIST).read_text() != index() else []
    else:
        (FOLDER / LIST).write_text(index())
    if stale:
        sys.exit(f"{', '.join(stale)}: run `python -m alpacafarm_core.pages`")


def _title(method: type[Method]) -> str:
    told = inspect.cleandoc(inspect.getmodule(method).__doc__ or "").partition("\n\n")[0]
    return " ".join(told.split())


def _is_written(name: str, method: type[Method], check: bool) -> bool:
    file = FOLDER / f"{name}.md"
    held = file.read_text() if file.is_file() else ""
    made = page(method)
    if check:
        return held.startswith(made)
    below = held.partition(f"{END}\n")[2] or BELOW
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(made + below)
    return True


if __name__ == "__main__":
    main()
