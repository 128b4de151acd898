"""A file of pairs, a panel -> labels: in the store, in a file, and on the run's page."""

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from alpacafarm_core import files
from alpacafarm_core.artifacts import Preferences
from alpacafarm_core.errors import BadInput
from alpacafarm_core.setup import File
from flows.approval import AskAbove, admit
from flows.carding import WORDS, carded
from flows.endings import named_endings
from flows.labelling import (
    Labelling,
    labelled,
    panel_of,
    priced,
    refuse_both,
    refuse_loss,
    refuse_place,
    showings,
)
from flows.leaderboard import Dollars
from tasks.filed import annotate_file
from tasks.stage import in_flow_run, store


@flow(log_prints=True)
@named_endings
def annotate(
    work: Labelling,
    out: Annotated[Path | None, Field(description="File to write; none: the store alone")] = None,
    budget: Dollars = None,
    ask_above: AskAbove = None,
) -> dict[str, Any]:
    """Label a file of pairs with a panel.

    Args:
        work: What is to be labelled, and by whom. Paths are those of the machine that runs it.
        out: A file for the labels, beside what the store keeps: .parquet, .json, .jsonl or .csv.
        budget: Judges may cost so many US dollars; the run stops before it would spend more.
        ask_above: Above so many US dollars the run waits for a person who approves its price.
    """
    refuse_at_the_door(work, out)
    admit(budget, ask_above, lambda: priced(work, store().place))
    document: dict[str, Any] = {} if out is None else labelled(work, out)
    kept = [] if _is_partial(work) else kept_labels(work)
    for labels in kept:
        publish(labels)
    return document | {"keys": [labels.key for labels in kept]}


def refuse_at_the_door(work: Labelling, out: Path | None) -> None:
    """Raise BadInput for a panel, file, row or place that cannot be used; nothing is paid yet."""
    refuse_both(work)
    panel_of(work)
    raw, _ = files.read_pairs(work.pairs)
    if out is not None:
        refuse_place(out)
        refuse_loss(raw, work.pairs, out)
    elif _is_partial(work):
        raise BadInput(
            "`until_decided` and `offline` label a part, which only a file can hold; give `out`"
        )


def _is_partial(work: Labelling) -> bool:
    return work.offline or work.until_decided is not None


def kept_labels(work: Labelling) -> list[Preferences]:
    """The labels in the store; of both orders a table each."""
    pairs = File.model_validate(work.pairs)
    return [annotate_file(pairs, panel) for panel in showings(panel_of(work), work)]


def publish(labels: Preferences) -> None:
    """The judge card on the page of a flow run."""
    if not in_flow_run():
        return
    from prefect.artifacts import create_table_artifact

    document = carded(labels.key, None, store().place)
    errors, counts = document["standard_errors"], document["counts"]
    known = [name for name in WORDS if document[name] is not None]
    card = [
        {"measure": WORDS[n][0], "is": document[n], "error": errors[n], "n": counts[n]}
        for n in known
    ]
    create_table_artifact(key="judge-card", table=card, description="What kind of judge this is")
