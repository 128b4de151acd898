"""Labels of pairs."""

from collections.abc import Sequence

from alpacafarm_core import annotate as core
from alpacafarm_core.artifacts import Candidates, Preferences
from alpacafarm_core.errors import Unanswered
from alpacafarm_core.llm import Answer, Ask, Request, ask_for
from alpacafarm_core.panel import Panel
from alpacafarm_core.store import Made
from tasks.stage import ledger, stage, store


@stage(Preferences, version=1, retries=2, retry_delay_seconds=10)
def annotate(candidates: Candidates, rivals: Candidates, panel: Panel) -> Made:
    """Ask the panel which of two outputs is better; raises Unanswered while a call fails."""
    pairs = core.pair(store().read(candidates), store().read(rivals))
    labels, spent = core.judge(pairs, panel, ask_panel(panel), ledger())
    if spent.rows_failed:
        raise Unanswered(
            f"{spent.rows_failed} of {pairs.height} pairs got no answer; "
            "what was answered is kept, run again to ask only for the rest"
        )
    notes = {
        "calls_bought": spent.calls,
        "usd_bought": spent.price,
        "rows_from_ledger": spent.rows_from_ledger,
        "usd": float(labels["price"].sum()),
    }
    return Made(labels, notes)


def ask_panel(panel: Panel) -> Ask:
    """Who answers a panel's requests: one endpoint, or each request's own."""
    endpoints = {annotator.endpoint for annotator in panel.annotators}
    if len(endpoints) == 1:
        return ask_for(endpoints.pop())

    def ask(requests: Sequence[Request]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        for endpoint in sorted(endpoints):
            asked = [i for i, request in enumerate(requests) if request.endpoint == endpoint]
            found = ask_for(endpoint)([requests[i] for i in asked])
            answers.update(zip(asked, found, strict=True))
        return [answers[i] for i in range(len(requests))]

    return ask
