"""`alpacafarm study`: the two studies on the command line, and a ranking from a file."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import inspection
from flows.inspection import Json, StorePath
from flows.purchasing import EXTRA, use

if TYPE_CHECKING:
    import polars as pl

SAME = 1e-9  # percent; rates that lie no further apart differ by rounding alone
study = typer.Typer(help="The two studies: over-optimisation, and whether simulation ranks alike.")
Out = Annotated[Path | None, typer.Option(help="CSV file to write; a .png goes beside it.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    study.command("overoptimisation", context_settings=EXTRA)(overoptimisation)
    study.command("ranking", context_settings=EXTRA)(ranking)
    app.add_typer(study, name="study")


def overoptimisation(
    context: typer.Context,
    steps: Annotated[str, typer.Option(help="PPO steps, or '' for no PPO.")] = "5,10,20,40",
    betas: Annotated[str, typer.Option(help="Betas of DPO, or '' for no DPO.")] = "0.5,0.1,0.02",
    out: Out = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Optimise further and further; `--setup.FIELD V` as in `run`."""
    from flows.study import overoptimised

    ladder = (_numbers("--steps", steps, int), _numbers("--betas", betas, float))
    _made(overoptimised, (_setup(context.args), *ladder), out, store, as_json)


def ranking(
    context: typer.Context,
    methods: Annotated[str, typer.Option(help="Names, comma between; default all.")] = "",
    file: Annotated[
        Path | None, typer.Option(help="CSV of win rates instead: model, simulated, human.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Farms whose mean counts.")] = 1,
    out: Out = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Compare how simulation and people rank; `--setup.FIELD V` as in `run`."""
    if file is not None:
        _refuse_beside(context, ("methods", "seeds"))
        return _ranked(file, out, as_json)
    from alpacafarm_core.methods import METHODS
    from flows.study import compared

    names = [name.strip() for name in methods.split(",") if name.strip()] or list(METHODS)
    _made(compared, (names, _setup(context.args), seeds), out, store, as_json)


def rates_of(file: Path) -> "pl.DataFrame":
    """Two win rates of each model with their errors, null without; columns of Ranks.

    Raises BadInput naming row and column of what cannot be ranked.
    """
    import polars as pl

    from alpacafarm_core import files
    from alpacafarm_core.artifacts import Ranks
    from alpacafarm_core.errors import BadInput

    rows = files.load(file)
    sides, errors = ("simulated", "human"), ("simulated_error", "human_error")
    known = [name for name in errors if name in rows.columns]
    for name in ("model", *sides, *(errors if known else ())):
        if name not in rows.columns:
            there = ", ".join(rows.columns)
            raise BadInput(f"{file}: no column {name!r}, only {there}; add or rename it")
    columns = {name: _percents(rows[name], file) for name in (*sides, *known)}
    models = _names(rows["model"], file)
    if len(models) < 3:
        raise BadInput(f"{file}: {len(models)} models cannot be correlated; give three or more")
    for name in sides:
        if max(columns[name]) - min(columns[name]) < SAME:
            raise BadInput(
                f"{file}: column {name!r} is {columns[name][0]:g} in every row, which no ranking "
                "can be correlated with; give rates that differ"
            )
    held = {"model": models, **columns}
    given = {name: held.get(name, [None] * len(models)) for name in Ranks.columns}
    return pl.DataFrame(given, schema=Ranks.columns)


def _percents(column: "pl.Series", file: Path) -> list[float]:
    """Numbers from 0 to 100, also when written as text; raises BadInput naming the row."""
    from alpacafarm_core.errors import BadInput

    numbers = [_number(held) for held in column.to_list()]
    for row, number in enumerate(numbers, 1):
        if not 0 <= number <= 100:
            held = repr(column.to_list()[row - 1])[:40]
            raise BadInput(
                f"{file}: row {row}, column {column.name!r}: {held} is no number from 0 to 100; "
                "write rates and errors in percent"
            )
    return numbers


def _number(held: object) -> float:
    """What is held as a number; not a number where it is none, or true or false."""
    try:
        return float("nan") if isinstance(held, bool) else float(str(held))
    except ValueError:
        return float("nan")


def _names(column: "pl.Series", file: Path) -> list[str]:
    """The models; raises BadInput for a name that is blank or stands twice."""
    from alpacafarm_core.errors import BadInput

    names: list[str] = []
    for row, held in enumerate(column.to_list(), 1):
        name = str(held).strip() if isinstance(held, str | int | float) else ""
        if not name or name in names:
            wrong = f"{name!r} has row {names.index(name) + 1} too" if name else "no name"
            raise BadInput(
                f"{file}: row {row}, column 'model': {wrong}; give every row a name of its own"
            )
        names.append(name)
    return names


def _refuse_beside(context: typer.Context, options: Sequence[str]) -> None:
    """Refuse what a ranking from a file has no use for; raises BadInput naming the option."""
    from alpacafarm_core.errors import BadInput

    typed = [name for name in options if _is_typed(context, name)]
    for word in (*(f"--{name}" for name in typed), *context.args):
        raise BadInput(f"{word!r} has no meaning beside --file, which trains nothing; take it out")


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _ranked(file: Path, out: Path | None, as_json: bool) -> None:
    """Show how alike the two columns of a file rank, and lay its table and plot at `out`."""
    from alpacafarm_core import plots
    from alpacafarm_core.ranking import agreement
    from flows.printing import show_json

    rows = rates_of(file)
    ours, theirs = (rows.select(name, f"{name}_error").rows() for name in ("simulated", "human"))
    document = agreement(rows["model"].to_list(), ours, theirs)._asdict()
    if out is not None:
        _lay(rows, plots.ranks(rows), out)
    show_json(document) if as_json else _say(document)


def _numbers(option: str, text: str, kind: type[float]) -> list[Any]:
    """Numbers with commas between; raises BadInput naming the option."""
    from alpacafarm_core.errors import BadInput

    try:
        return [kind(each) for each in text.split(",") if each.strip()]
    except ValueError:
        raise BadInput(f"{option}={text!r}: give numbers with commas between") from None


def _setup(words: list[str]) -> Any:
    from alpacafarm_core.setup import Setup
    from flows.options import dotted, settled

    return settled(Setup(), dotted(words, ("setup",))["setup"], "setup")


def _made(
    function: Any, arguments: tuple[Any, ...], out: Path | None, store: str | None, as_json: bool
) -> None:
    """Run a study and show its table and what it found."""
    use(store)
    from flows.printing import show_json, show_rows
    from flows.reporting import kept
    from tasks.stage import store as opened
    from tasks.study import PLOT

    started = time.time()
    artifact = function(*arguments)
    rows, notes = opened().read(artifact), opened().manifest(artifact).notes
    if out is not None:
        _lay(rows, (opened().path(artifact) / PLOT).read_bytes(), out)
    page = kept(opened(), artifact)
    document = {"rows": rows.to_dicts(), **notes, "key": artifact.key, "report": page}
    if as_json:
        return show_json(document | {"seconds": round(time.time() - started, 3)})
    show_rows(rows.to_dicts())
    _say(notes)
    print(f"artifacts  {opened().path(artifact)}")
    if page is not None:
        print(f"report     {page}")


def _lay(rows: "pl.DataFrame", picture: bytes, out: Path) -> None:
    """Write a table, and its plot beside it."""
    inspection.write_csv(rows, out)
    out.with_suffix(".png").write_bytes(picture)


def _say(notes: dict[str, Any]) -> None:
    for name, held in notes.items():
        print(f"{name}: {held}")
