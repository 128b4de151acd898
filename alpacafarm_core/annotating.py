"""Labels for plain rows in one call, by the names that AlpacaFarm's users know.

Rows are a frame or a list of dictionaries with instruction, input? and the outputs. A panel, who
answers (`endpoints.ask_for(panel.endpoint)`) and a ledger complete the call; what comes back are
rows of `Preferences` and what they cost.
"""

import logging

from alpacafarm_core.annotate import Judged, judge
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.llm import Ask
from alpacafarm_core.pairing import (
    Rows,
    head_to_head,
    pairs_of_rows,
    pairs_of_samples,
    samples_of,
)
from alpacafarm_core.panel import Panel

_log = logging.getLogger("alpacafarm.annotating")


def annotate_pairs(rows: Rows, panel: Panel, ask: Ask, ledger: Ledger) -> Judged:
    """Label rows that have output_1 and output_2, in their order."""
    return judge(pairs_of_rows(rows), panel, ask, ledger)


def annotate_samples(
    rows: Rows, panel: Panel, ask: Ask, ledger: Ledger, unique: bool = True
) -> Judged:
    """Label samples (`output`, a text or a list of them) of a prompt against one another.

    One pair a prompt, or with `unique` off as many as it has different outputs; drawn with the
    panel's seed.
    """
    return judge(pairs_of_samples(rows, panel.seed, unique), panel, ask, ledger)


def annotate_head2head(first: Rows, second: Rows, panel: Panel, ask: Ask, ledger: Ledger) -> Judged:
    """Label the answers of two models (`first` is output_1) to the prompts that both answered.

    Says in the log how many answers were left out.
    """
    pairs = head_to_head(first, second)
    for name, side in (("first", first), ("second", second)):
        if left_out := samples_of(side).height - pairs.height:
            _log.warning("%d answers of the %s table are in no pair", left_out, name)
    return judge(pairs, panel, ask, ledger)
