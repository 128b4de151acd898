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
from typing import Annotated, Any

import typer

from alpacafarm_core.errors import FarmError
from flows import inspection

app = typer.Typer(
    help="Learn from simulated human feedback: cached, priced, inspectable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
INTERRUPTED = 130
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
StorePath = Annotated[
    Path | None, typer.Option("--store", help="Folder of the artifacts.", show_default=False)
]
Seed = Annotated[int, typer.Option(help="Seed of sampling, labels and training.", min=0)]


@app.command()
def demo(seed: Seed = 0, store: StorePath = None, as_json: Json = False) -> None:
    """Run the built-in world end to end and print the leaderboard."""
    from alpacafarm_core.setup import Setup
    from flows.leaderboard import DEMO

    _race(list(DEMO), [Setup(seed=seed)], store, as_json)


@app.command(context_settings=EXTRA)
def run(
    context: typer.Context, method: str, store: StorePath = None, as_json: Json = False
) -> None:
    """One method's flow: `run METHOD [--setup.FIELD V ...] [--method.FIELD V ...]`."""
    from alpacafarm_core.setup import Setup
    from flows.leaderboard import methods_named
    from flows.options import dotted, settled

    fields = dotted(context.args, ("setup", "method"))
    setup = settled(Setup(), fields["setup"], "setup")
    chosen = settled(methods_named([method], setup)[0], fields["method"], "method")
    _race([chosen], [setup], store, as_json)


@app.command(context_settings=EXTRA)
def leaderboard(
    context: typer.Context,
    methods: Annotated[str, typer.Option(help="Names, comma between; default all.")] = "",
    seeds: Annotated[int, typer.Option(help="How many seeds.", min=1)] = 1,
    out: Annotated[Path | None, typer.Option(help="CSV file to write.")] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Race methods from the same start; paired with SFT on the same prompts."""
    from alpacafarm_core.methods import METHODS
    from alpacafarm_core.setup import Setup
    from flows.options import dotted, settled

    setup = settled(Setup(), dotted(context.args, ("setup",))["setup"], "setup")
    names = [name.strip() for name in methods.split(",") if name.strip()] or list(METHODS)
    setups = [setup.replace(seed=setup.seed + number) for number in range(seeds)]
    _race(names, setups, store, as_json, out)


@app.command()
def tally(
    files: list[Path],
    out: Annotated[Path | None, typer.Option(help="CSV file to write.")] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Annotation files to leaderboard rows, as AlpacaEval defines them."""
    from flows.printing import show_board
    from flows.tallying import tallied

    started = time.time()
    rows = tallied(files)
    if out is not None:
        inspection.write_csv(rows, out)
    document = {"leaderboard": rows.to_dicts(), "cost_usd": 0.0, "key": None}
    seconds = round(time.time() - started, 3)
    show_board(document | {"seconds": seconds}, as_json)


@app.command()
def serve(
    with_server: Annotated[bool, typer.Option(help="Start a Prefect server too.")] = False,
    port: Annotated[int, typer.Option(help="Port of that server.", min=1, max=65535)] = 4200,
    store: StorePath = None,
) -> None:
    """Register every deployment and start a worker for them."""
    from flows.serving import serve as start

    _use(store)
    start(with_server, port)


def _race(
    methods: Any, setups: list[Any], store: Path | None, as_json: bool, out: Path | None = None
) -> None:
    _use(store)
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


def _use(store: Path | None) -> None:
    if store is not None:
        os.environ["ALPACAFARM_STORE"] = str(store)


def _listen() -> None:
    """Progress goes to stderr, one line a stage."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
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
