"""`alpacafarm`: the one command. Thin: it parses settings and calls flows or the core.

Every heavy import is inside the command that needs it, so `--help` is quick.
"""

import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from alpacafarm_core.errors import FarmError
from alpacafarm_core.following import CLEAR
from flows import (
    browsing,
    comparing,
    doctoring,
    exporting,
    inspection,
    purchasing,
    reporting,
    studying,
    sweeping,
    watching,
)
from flows.purchasing import EXTRA, Budget, Names, Seed, Seeds, one_method, several, use

app = typer.Typer(
    help="Learn from simulated human feedback: cached, priced, inspectable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
INTERRUPTED = 130
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
StorePath = Annotated[
    str | None, typer.Option("--store", help="Folder or s3:// address.", show_default=False)
]


@app.command()
def demo(
    seed: Seed = 0, budget: Budget = None, store: StorePath = None, as_json: Json = False
) -> None:
    """Run the built-in world end to end and print the leaderboard."""
    from alpacafarm_core.setup import Setup
    from flows.leaderboard import DEMO

    _race(list(DEMO), [Setup(seed=seed)], store, as_json, budget=budget)


@app.command(context_settings=EXTRA)
def run(
    context: typer.Context,
    method: str,
    budget: Budget = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """One method's flow: `run METHOD [--setup.FIELD V ...] [--method.FIELD V ...]`."""
    methods, setups = one_method(context.args, method)
    _race(methods[-1:], setups, store, as_json, budget=budget)


@app.command(context_settings=EXTRA)
def leaderboard(
    context: typer.Context,
    methods: Names = "",
    seeds: Seeds = 1,
    out: Annotated[Path | None, typer.Option(help="CSV file to write.")] = None,
    budget: Budget = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Race methods from the same start; paired with SFT on the same prompts."""
    names, setups = several(context.args, methods, seeds)
    _race(names, setups, store, as_json, out, budget)


@app.command()
def tally(
    files: list[Path],
    lc: Annotated[
        Literal["v1", "noreg", "minimal"] | None,
        typer.Option(help="Control for length, as AlpacaEval names it."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="The baseline against itself, for v1 (df_gamed.csv).")
    ] = None,
    difficulty: Annotated[
        Path | None, typer.Option(help="Instructions and difficulties, for v1 and noreg.")
    ] = None,
    c: Annotated[
        float | None, typer.Option("--c", help="Strength C; default cross-validated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file to write.")] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Annotation files to leaderboard rows, as AlpacaEval defines them."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its matrices are too small to share out
    from flows.controlling import Control
    from flows.tallying import show, tallied

    if lc is None and any(given is not None for given in (calibration, difficulty, c)):
        raise typer.BadParameter("--calibration, --difficulty and --c need --lc")
    started = time.time()
    board = tallied(files, Control(lc, calibration, difficulty, c) if lc else None)
    if out is not None:
        inspection.write_csv(board.published(), out)
    rows = {"leaderboard": board.rows.to_dicts(), "sources": board.sources.to_dicts()}
    show(rows | {"seconds": round(time.time() - started, 3), "cost_usd": 0.0, "key": None}, as_json)


@app.command()
def card(
    annotations: Annotated[str, typer.Argument(help="File of labels, or a key of the store.")],
    gold: Annotated[Path | None, typer.Option(help="Labels of the same pairs to trust.")] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """The judge card: agreement, bias, variance, leanings, parse rate and price of labels."""
    from flows.carding import carded, show_card
    from flows.printing import show_json

    document = carded(annotations, gold, store)
    show_json(document) if as_json else show_card(document)


@app.command()
def serve(
    with_server: Annotated[bool, typer.Option(help="Start a Prefect server too.")] = False,
    host: Annotated[str, typer.Option(help="Address it listens at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of that server.", min=1, max=65535)] = 4200,
    pool: Annotated[str, typer.Option(help="Work pool of the deployments.")] = "local",
    queue: Annotated[
        list[str] | None, typer.Option(help="Queue to work for, repeatable; default all.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Runs at a time on this machine.", min=1)] = 1,
    work: Annotated[bool, typer.Option(help="Take up runs here.")] = True,
    offer: Annotated[bool, typer.Option(help="Register the deployments.")] = True,
    watch: Annotated[
        list[str] | None, typer.Option(help="Where files come in, repeatable; see `watch`.")
    ] = None,
    store: StorePath = None,
) -> None:
    """Register every deployment and start a worker for them."""
    from flows.serving import Serving
    from flows.serving import serve as start

    use(store)
    queues, watched = tuple(queue or ()), tuple(watch or ())
    start(Serving(with_server, host, port, pool, queues, limit, work, offer, watched))


def _race(
    methods: Any,
    setups: list[Any],
    store: str | None,
    as_json: bool,
    out: Path | None = None,
    budget: float | None = None,
) -> None:
    use(store, budget)
    from flows.printing import show_board
    from flows.racing import race

    with _stdout_kept():
        document = race(methods, setups, out)
    show_board(document, as_json)


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Keep stdout for the result: what libraries and workers print meanwhile goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _listen() -> None:
    """Progress goes to stderr, one line a stage."""
    handler = logging.StreamHandler(sys.stderr)
    wiped = CLEAR if sys.stderr.isatty() else ""  # the live line of a training, if one is there
    handler.setFormatter(logging.Formatter(f"{wiped}%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("alpacafarm")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("alpacafarm.training").setLevel(logging.WARNING)


def _complaint(error: BaseException) -> tuple[str, int]:
    """One line for people and the exit code of a failure."""
    if isinstance(error, FarmError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):
        return str(error.format_message()), 2
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted; run the same command again to go on where it stopped", INTERRUPTED
    return f"{type(error).__name__}: {error} (--debug shows where)", 1


def main(words: list[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    as_program = words is None
    words = sys.argv[1:] if words is None else words
    debug = "--debug" in words
    _listen()
    try:
        left = app([w for w in words if w != "--debug"] or ["--help"], standalone_mode=False)
        if left == INTERRUPTED:  # what the parser of the words makes of an interrupt
            raise KeyboardInterrupt
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if isinstance(error, typer.Exit):
            sys.exit(error.exit_code)
        if debug:
            traceback.print_exc()
        line, code = _complaint(error)
        print("alpacafarm: " + " ".join(line.split()), file=sys.stderr, flush=True)
        if as_program:
            sys.stdout.flush()
            os._exit(code)  # without waiting for the jobs under way
        sys.exit(code)


inspection.add_to(app)
comparing.add_to(app)
purchasing.add_to(app)
studying.add_to(app)
exporting.add_to(app)
reporting.add_to(app)
sweeping.add_to(app)
doctoring.add_to(app)
watching.add_to(app)
browsing.add_to(app)
