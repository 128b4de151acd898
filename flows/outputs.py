"""A model's outputs in a file -> judged against a reference, and one row of the board."""

import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import polars as pl
from prefect import flow
from pydantic import Field

from alpacafarm_core import endpoints, sources
from alpacafarm_core.annotate import outstanding, pair
from alpacafarm_core.artifacts import Candidates, Leaderboard
from alpacafarm_core.errors import BadInput
from alpacafarm_core.estimate import Estimate, estimated
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.judgements import first_row
from alpacafarm_core.landing import take_in
from alpacafarm_core.panel import Panel, load
from alpacafarm_core.settings import Truth
from alpacafarm_core.setup import SIZES, File, Files, Hub, PanelName, World
from alpacafarm_core.values import Value
from flows.approval import AskAbove, admit
from flows.endings import named_endings
from flows.leaderboard import Dollars
from flows.prepare import FARM
from flows.racing import price
from flows.reporting import kept
from tasks import annotate
from tasks.stage import ledger, store
from tasks.tally import publish

PROMPT = ["instruction", "input"]


class Given(Value):
    """Outputs of another model, in a file, to the same prompts."""

    name: Literal["given"] = "given"
    outputs: File = Field(description="The other model's outputs")


class Outputs(Value):
    """A model's outputs, and what they are held against."""

    outputs: File = Field(description="Your model's outputs: instruction, input?, output")
    model: str = Field(default="", description="Its name on the board; none: the file's")
    panel: PanelName = Field(default="world", description="Who judges")
    against: Annotated[World | Given | Files | Hub, Field(discriminator="name")] = Field(
        default=World(), description="Whose outputs are to be beaten"
    )
    prompts: int = Field(
        default=SIZES["small"].eval, ge=1, description="Prompts of a source, at most"
    )
    seed: int = Field(default=0, ge=0, description="Seed of draws and answers")


class Entry(NamedTuple):
    """A model's outputs and those to be beaten, in the store; and who judges them."""

    model: str
    answers: Candidates
    rivals: Candidates
    panel: Panel
    is_known: bool


@flow(log_prints=True)
@named_endings
def evaluate_outputs(
    work: Outputs, budget: Dollars = None, ask_above: AskAbove = None
) -> Leaderboard:
    """Judge a file of a model's outputs against a reference: a row of a board, and its price.

    Args:
        work: The file, its judges, and what it is held against. Paths are those of the machine
            that runs it.
        budget: Judges may cost so many US dollars; the run stops before it would spend more.
        ask_above: Above so many US dollars the run waits for a person who approves its price.
    """
    entry = entered(work)
    admit(budget, ask_above, lambda: planned(entry))
    return judged(entry)


def ranked_alone(work: Outputs) -> dict[str, Any]:
    """The JSON document of one row: on a server when there is one, else the plain call."""
    started = time.time()
    call = evaluate_outputs if os.environ.get("PREFECT_API_URL") else evaluate_outputs.fn
    board = call(work)
    page = kept(store(), board)
    return {
        "leaderboard": store().read(board).to_dicts(),
        "seconds": round(time.time() - started, 3),
        "cost_usd": price(board),
        "key": board.key,
        "folder": str(store().path(board)),
        "reports": [] if page is None else [str(page)],
    }


def entered(work: Outputs) -> Entry:
    """The outputs and their rivals taken into the store; nobody is asked.

    Raises BadInput naming file, row and column of what cannot be judged, Missing or Damaged.
    """
    panel = load(work.panel, seed=work.seed)
    endpoints.check(panel)
    answers, rivals = _taken(work.outputs), _rivals(work)
    rows = store().read(answers)
    refuse_unmatched(rows, store().read(rivals), work.outputs.path)
    known = isinstance(work.against, World)
    return Entry(work.model or _named(rows, work.outputs.path), answers, rivals, panel, known)


def judged(entry: Entry) -> Leaderboard:
    """The board with the one row; its labels, card and price on the page of a flow run."""
    labels = FARM.annotate(entry.answers, entry.rivals, entry.panel)
    truth = FARM.score(entry.answers, Truth()) if entry.is_known else None
    rows = {entry.model: Evaluation(preferences=labels, truth=truth)}
    board = FARM.tally(rows)
    publish(board, rows)
    return board


def planned(entry: Entry) -> dict[str, Any]:
    """What judging would take, as `alpacafarm plan` says it; nobody is asked."""
    labels = annotate.receipt(entry.answers, entry.rivals, entry.panel)
    whole = Estimate()
    if not store().has(labels):
        pairs = pair(store().read(entry.answers), store().read(entry.rivals))
        whole = estimated(outstanding(pairs, entry.panel, ledger()))
    state = "cached" if store().has(labels) else "to do"
    line = {"stage": "annotate", "artifact": labels.folder, "state": state, "seconds": None}
    sums = {name: getattr(whole, name) for name in ("calls", "tokens", "usd_low", "usd_high")}
    return {"stages": [line | whole._asdict()], **sums}


def refuse_unmatched(rows: pl.DataFrame, rivals: pl.DataFrame, path: Path) -> None:
    """Raise BadInput naming the row unless each prompt of the rivals is answered just once."""
    again = ~rows.select(pl.struct(PROMPT).is_first_distinct()).to_series()
    if again.any():
        raise BadInput(
            f"{path}: row {first_row(again)} answers a prompt (instruction and input) that an "
            "earlier row answers; keep one output a prompt"
        )
    known = rows.select(pl.struct(PROMPT).is_in(rivals.select(pl.struct(PROMPT)).to_series()))
    if not known.to_series().all():
        raise BadInput(
            f"{path}: row {first_row(~known.to_series())} answers a prompt that the reference does "
            "not; take it out, or give a reference with outputs to the same prompts (`against`)"
        )
    if rows.height < rivals.height:
        left = rivals.join(rows, on=PROMPT, how="anti")["instruction"][0]
        raise BadInput(
            f"{path}: {rows.height} of the reference's {rivals.height} prompts are answered; "
            f"answer the others too, first {left[:60]!r}"
        )


def _taken(file: File) -> Candidates:
    """A file of outputs in the store; its content is its key."""
    manifest, _ = take_in(store(), file.checked(), "candidates")
    return Candidates(key=manifest.key)


def _rivals(work: Outputs) -> Candidates:
    if isinstance(work.against, Given):
        return _taken(work.against.outputs)
    return FARM.published(sources.pinned(work.against), work.prompts)


def _named(rows: pl.DataFrame, path: Path) -> str:
    """The one model that wrote the rows, where the file says so; else the file's name."""
    writers = rows["generator"].unique().to_list()
    return writers[0] if len(writers) == 1 and writers[0] else path.stem
