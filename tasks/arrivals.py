"""New data: the new pairs of what landed, their labels, and what changed by them."""

from typing import Any

from alpacafarm_core import annotate as judging
from alpacafarm_core import arrivals as core
from alpacafarm_core import changes, selftest
from alpacafarm_core.arrivals import Unusable, Way
from alpacafarm_core.artifacts import Changes, Leaderboard, Preferences
from alpacafarm_core.endpoints import ask_for
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.panel import Panel
from alpacafarm_core.setup import Source
from alpacafarm_core.store import Made
from tasks.annotate import refuse_unanswered
from tasks.stage import ledger, purse, stage, store

REPORT = "report.md"


@stage(Preferences, version=1)
def fresh(landed: Preferences, before: tuple[Preferences, ...], source: Source) -> Made:
    """The pairs of a file that came with no file before it and are not evaluated."""
    tables = [store().read(each) for each in before]
    found = core.fresh(store().read(landed), tables, source)._asdict()
    return Made(found.pop("rows"), found)


@stage(
    Preferences,
    version=1,
)
def label(pairs: Preferences, panel: Panel) -> Made:
    """Ask the panel about the pairs that came without a label; the others keep theirs.

    Raises JudgeFailed, Unanswered and BudgetReached as `annotate` does.
    """
    rows = store().read(pairs)
    waiting = core.unjudged(rows)
    if not waiting.is_empty():
        selftest.check(panel)
    ask = ask_for(panel.endpoint, store().root)
    labels, spent = judging.judge(waiting, panel, ask, ledger(), purse())
    refuse_unanswered(spent, waiting.height, panel)
    made = core.with_labels(rows, labels)
    notes = {
        "calls_bought": spent.calls,
        "usd_bought": spent.price,
        "rows_bought": spent.rows_bought,
        "rows_from_ledger": spent.rows_from_ledger,
        "usd": float(labels["price"].sum()),
        "decided": core.decided(made),
    }
    return Made(made, notes)


@stage(Changes, version=1)
def changed(
    way: Way,
    landed: tuple[tuple[Preferences, Preferences, Preferences], ...],
    known: tuple[Preferences, ...],
    unusable: tuple[Unusable, ...],
    boards: tuple[Leaderboard, Leaderboard],
) -> Made:
    """What landed, and the board before and after it.

    Of each file come what landed, its fresh pairs and their labels; those `known` at the last
    refresh are not recent.
    """
    rows = [
        changes.row_of(*map(store().manifest, tables)) | {"is_recent": tables[0] not in known}
        for tables in landed
    ]
    refused: list[dict[str, Any]] = [
        {"file": each.file, "why": each.why, "is_recent": True} for each in unusable
    ]
    files = changes.table([*rows, *refused])
    before, after = (_board(each, way.method.name) for each in boards)
    page = changes.report(way.dataset, files, way.method.name, (before, after))
    return Made(files, files={REPORT: page.encode()})


def _board(board: Leaderboard, model: str) -> changes.Board:
    said = store().manifest(board).recipe.settings["evaluations"][model]
    judged = Evaluation.model_validate(said).preferences
    return changes.Board(board.folder, store().read(board), store().read(judged))
