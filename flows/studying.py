"""`alpacafarm study`: the two studies on the command line, and a ranking from a file."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import inspection
from flows.inspection import Json, StorePath
from flows.purchasing import EXTRA, use

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
    from flows.printing import show_json

    if file is not None:
        document = from_file(file)
        return show_json(document) if as_json else _say(document)
    from alpacafarm_core.methods import METHODS
    from flows.study import compared

    names = [name.strip() for name in methods.split(",") if name.strip()] or list(METHODS)
    _made(compared, (names, _setup(context.args), seeds), out, store, as_json)


def from_file(file: Path) -> dict[str, Any]:
    """How alike two columns of win rates rank; raises BadInput naming the column and the row."""
    import polars as pl

    from alpacafarm_core import files
    from alpacafarm_core.errors import BadInput
    from alpacafarm_core.ranking import agreement

    rows = files.load(file)
    for name in ("model", "simulated", "human"):
        if name not in rows.columns:
            raise BadInput(f"{file}: no column {name!r}; it has {', '.join(rows.columns)}")
    sides = []
    for name in ("simulated", "human"):
        rates = rows[name].cast(pl.Float64, strict=False)
        if rates.null_count():
            row = int(rates.is_null().arg_max() or 0) + 1
            raise BadInput(f"{file}: row {row}, column {name!r}: not a number; correct it")
        known = f"{name}_error" in rows.columns
        errors = (
            rows[f"{name}_error"].cast(pl.Float64, strict=False)
            if known
            else pl.Series([None] * rows.height, dtype=pl.Float64)
        )
        sides.append(list(zip(rates, errors, strict=True)))
    return agreement([str(model) for model in rows["model"]], sides[0], sides[1])._asdict()


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
    function: Any, arguments: tuple[Any, ...], out: Path | None, store: Path | None, as_json: bool
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
        inspection.write_csv(rows, out)
        out.with_suffix(".png").write_bytes((opened().path(artifact) / PLOT).read_bytes())
    page = kept(opened(), artifact)
    document = {"rows": rows.to_dicts(), **notes, "key": artifact.key, "report": page}
    if as_json:
        return show_json(document | {"seconds": round(time.time() - started, 3)})
    show_rows(rows.to_dicts())
    _say(notes)
    print(f"artifacts  {opened().path(artifact)}")
    if page is not None:
        print(f"report     {page}")


def _say(notes: dict[str, Any]) -> None:
    for name, held in notes.items():
        print(f"{name}: {held}")
