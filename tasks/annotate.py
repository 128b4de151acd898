"""Labels of pairs."""

from alpacafarm_core import annotate as core
from alpacafarm_core import selftest
from alpacafarm_core.annotate import Spending
from alpacafarm_core.artifacts import Candidates, Preferences
from alpacafarm_core.endpoints import ask_for
from alpacafarm_core.errors import Unanswered
from alpacafarm_core.panel import Panel
from alpacafarm_core.store import Made
from tasks.stage import ledger, purse, stage, store


@stage(Preferences, version=2)
def annotate(candidates: Candidates, rivals: Candidates, panel: Panel) -> Made:
    """Ask the panel which of two outputs is better, once it has passed its self-test.

    Raises JudgeFailed when it has not, Unanswered while a call fails, and BudgetReached before the
    cap on spending is passed.
    """
    selftest.check(panel)
    pairs = core.pair(store().read(candidates), store().read(rivals))
    ask = ask_for(panel.endpoint, store().root)
    labels, spent = core.judge(pairs, panel, ask, ledger(), purse())
    refuse_unanswered(spent, pairs.height, panel)
    notes = {
        "calls_bought": spent.calls,
        "usd_bought": spent.price,
        "rows_from_ledger": spent.rows_from_ledger,
        "usd": float(labels["price"].sum()),
    }
    return Made(labels, notes)


def refuse_unanswered(spent: Spending, rows: int, panel: Panel) -> None:
    """Raise Unanswered where some of so many rows got no answer."""
    if spent.rows_failed:
        raise Unanswered(
            f"{spent.rows_failed} of {rows} pairs got no answer from {panel.endpoint} "
            f"({spent.complaint or 'answers that cannot be read'}); what was answered is kept, "
            "mend that and run again to ask only for the rest"
        )
