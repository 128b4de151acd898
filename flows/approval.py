"""Spending that a person approves first: a run waits in the UI with its plan and price.

The run is suspended and costs nothing meanwhile. What was approved is kept with the run, so who
starts it again after a crash is not asked again unless its plan holds something new; the cap counts
over all starts. Below the limit the run may spend no more than the limit, whatever the plan missed.
"""

import contextvars
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from alpacafarm_core.errors import BadInput, Refused
from alpacafarm_core.values import Amount
from flows.allowance import Allowance, allowed, keep, kept, this_run
from tasks.stage import cap, ledger

AskAbove = Annotated[
    Amount | None, Field(title="Ask above", description="Ask a person above so many dollars")
]
VARIABLE = "ALPACAFARM_ASK_ABOVE"
A_DAY = 86_400
Document = Mapping[str, Any]
UNKNOWN: Document = {"stages": [], "calls": 0, "tokens": 0, "usd_low": 0.0, "usd_high": 0.0}
"""The plan of a run whose price nobody knows ahead: it asks nobody and stops at the limit."""


class Answer(NamedTuple):
    """What a person said of a plan; the cap in US dollars."""

    decision: Literal["approve", "refuse"]
    cap: float


Asked = Callable[[str, str, float], Answer]
"""A key, the plan as Markdown and the cap that is offered, to what the person says."""


def admit(budget: float | None, ask_above: float | None, plan: Callable[[], Document]) -> None:
    """Cap what this process may spend, once a person has approved a plan above the limit.

    `plan` gives the document of `alpacafarm plan`; it is called only where there is a limit. Sums
    are US dollars. Raises Refused when the person refuses, BadInput where nobody can be asked.
    """
    allowance = decided(budget, threshold(ask_above), plan, kept(), by_form)
    if allowance is None:
        return
    if allowance != kept():
        keep(allowance)
    cap(allowance.left(ledger().counts().price))


def decided(
    budget: float | None,
    limit: float | None,
    plan: Callable[[], Document],
    before: Allowance | None,
    ask: Asked,
) -> Allowance | None:
    """What a run may spend; None when nobody set a cap or a limit.

    `before` is what it was allowed at an earlier start.
    """
    if limit is None:
        return before or (None if budget is None else allowed(budget))
    document = planned_apart(plan)
    if before is not None and before.covers(to_do(document)):
        return before
    spent = 0.0 if before is None else before.cap - before.left(ledger().counts().price)
    most = min(math.inf if budget is None else budget, spent + document["usd_high"])
    if most <= limit:
        return before or allowed(limit if budget is None else min(budget, limit))
    return approved(document, budget, ask)


def threshold(ask_above: float | None) -> float | None:
    """The flow's own limit, else the environment's in a deployment's run; None asks nobody.

    Raises BadInput for a variable that is no sum.
    """
    said = os.environ.get(VARIABLE, "")
    if ask_above is not None or not said or this_run() is None:
        return ask_above
    try:
        limit = float(said)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise BadInput(f"{VARIABLE}={said!r} is no sum of US dollars; set one, as 12.50")
    return limit


def planned_apart(plan: Callable[[], Document]) -> Document:
    """The plan, made as if outside the flow run: it publishes nothing and runs no task."""
    return contextvars.Context().run(plan)


def to_do(document: Document) -> list[str]:
    """The artifacts a plan would make."""
    return [line["artifact"] for line in document["stages"] if line["state"] == "to do"]


def approved(document: Document, budget: float | None, ask: Asked) -> Allowance:
    """What a person allows; asked again while the cap is no sum. Raises Refused."""
    offered = document["usd_high"] if budget is None else min(budget, document["usd_high"])
    complaint, tries = "", 0
    while True:
        key = f"approve-{digest(document)}-{tries}"
        answer = ask(key, complaint + shown(document, budget), offered)
        if answer.decision == "refuse":
            raise Refused(
                f"up to {dollars(document['usd_high'])} was refused; nothing was asked of a judge"
            )
        if 0 <= answer.cap < math.inf:
            return allowed(answer.cap, to_do(document))
        tries += 1
        complaint = f"**A cap of {answer.cap} is no sum of US dollars: give 0 or more.**\n\n"


def digest(document: Document) -> str:
    """Twelve digits that tell what this plan buys from what any other does."""
    bought = [
        [line[name] for name in ("stage", "artifact", "calls", "usd_low", "usd_high")]
        for line in document["stages"]
        if line["state"] == "to do"
    ]
    return hashlib.sha256(json.dumps(bought).encode()).hexdigest()[:12]


def shown(document: Document, budget: float | None) -> str:
    """The plan and its price as Markdown."""
    low, high = dollars(document["usd_low"]), dollars(document["usd_high"])
    done = len(document["stages"]) - len(to_do(document))
    own = "" if budget is None else f" Its own budget is {dollars(budget)}."
    table = ["| stage | rows | calls | low | high |", "|---|---:|---:|---:|---:|"]
    table += [_row(line) for line in document["stages"] if line["usd_high"] > 0]
    unpriced = ", ".join(document.get("unpriced", ()))
    parts = [
        f"### This run may cost {low} to {high}",
        f"{document['calls']} calls, about {document['tokens']} tokens. {done} of "
        f"{len(document['stages'])} stages are made already.{own}",
        "\n".join(table),
        f"Not in this price, as their rows are not known yet: {unpriced}." if unpriced else "",
        "Approve it with a cap, or refuse. At the cap the run stops and keeps what it bought.",
    ]
    return "\n\n".join(part for part in parts if part)


def _row(line: Document) -> str:
    rows = "?" if line["rows"] is None else line["rows"]
    prices = f"{dollars(line['usd_low'])} | {dollars(line['usd_high'])}"
    return f"| {line['stage']} | {rows} | {line['calls']} | {prices} |"


def dollars(amount: float) -> str:
    """A sum for people: cents, or four digits where it is less than a dollar."""
    return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.4f}"


def by_form(key: str, text: str, offered: float) -> Answer:
    """What the person says who resumes this run; raises BadInput where it cannot wait."""
    if this_run() is None:
        raise BadInput(
            "the plan costs more than `ask_above`, and only a deployment's run can wait for a "
            "person; start it in the UI (`alpacafarm serve`), or leave out `ask_above`"
        )
    from prefect.flow_runs import suspend_flow_run
    from prefect.input import RunInput
    from pydantic import create_model

    # Presets drop bounds, so the form has none and the cap is checked where it is read.
    fields = {
        "decision": (Literal["approve", "refuse"], Field(title="Decision")),
        "cap": (float, Field(title="Cap", description="US dollars judges may cost")),
    }
    form: Any = create_model("Approval", __base__=RunInput, **fields)  # type: ignore[call-overload]
    asked = form.with_initial_data(description=text, cap=math.ceil(offered * 100) / 100)
    print("this run waits for an approval: choose Resume in its menu")
    filled: Any = suspend_flow_run(wait_for_input=asked, key=key, timeout=30 * A_DAY)
    return Answer(filled.decision, filled.cap)
