"""Labels of pairs."""

from alpacafarm_core import annotate as core
from alpacafarm_core.artifacts import Candidates, Preferences
from alpacafarm_core.llm import ask_for
from alpacafarm_core.panel import Panel
from alpacafarm_core.store import Made
from tasks.stage import ledger, stage, store


@stage(Preferences, version=1)
def annotate(candidates: Candidates, rivals: Candidates, panel: Panel) -> Made:
    """Ask the panel which of two outputs is better."""
    pairs = core.pair(store().read(candidates), store().read(rivals))
    return Made(core.annotate(pairs, panel, ask_for, ledger()))
