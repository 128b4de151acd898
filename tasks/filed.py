"""Labels of a file's pairs, kept in the store beside those of the farm."""

from alpacafarm_core import annotate as core
from alpacafarm_core import files, selftest
from alpacafarm_core.artifacts import Preferences
from alpacafarm_core.endpoints import ask_for
from alpacafarm_core.panel import Panel
from alpacafarm_core.setup import File
from alpacafarm_core.store import Made
from tasks.annotate import refuse_unanswered
from tasks.stage import ledger, purse, stage, store


@stage(
    Preferences,
    version=1,
)
def annotate_file(pairs: File, panel: Panel) -> Made:
    """Ask the panel about the pairs of a file, once it has passed its self-test.

    Raises BadInput naming file, row and column, and what `annotate` raises.
    """
    _, rows = files.read_pairs(pairs.checked())
    selftest.check(panel)
    ask = ask_for(panel.endpoint, store().root)
    labels, spent = core.judge(rows, panel, ask, ledger(), purse())
    refuse_unanswered(spent, rows.height, panel)
    notes = {
        "file": pairs.path.name,
        "calls_bought": spent.calls,
        "usd_bought": spent.price,
        "rows_from_ledger": spent.rows_from_ledger,
        "usd": float(labels["price"].sum()),
    }
    return Made(labels, notes)
