"""What a deployment's run may spend over all its starts, kept beside the run on the server.

A cap lives in a process. A run that is begun again after a crash has another, so the cap and what
the ledger held when it was given are kept with the run.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from alpacafarm_core.values import Value
from tasks.stage import in_flow_run, ledger

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

KEPT = "allowance"


class Allowance(Value):
    """What a run may spend, and on what."""

    cap: float = Field(ge=0, description="What it may spend, US dollars")
    spent_before: float = Field(description="Sum in the ledger when allowed")
    stages: tuple[str, ...] = Field(default=(), description="Artifacts a person approved")

    def left(self, spent: float) -> float:
        """US dollars not yet spent when the ledger's sum is `spent`, whoever spent them."""
        return max(0.0, self.cap - max(0.0, spent - self.spent_before))

    def covers(self, stages: Iterable[str]) -> bool:
        """Whether a person has approved all of these artifacts."""
        return bool(self.stages) and set(stages) <= set(self.stages)


def allowed(cap: float, stages: Iterable[str] = ()) -> Allowance:
    """What a run may spend from now on."""
    return Allowance(cap=cap, spent_before=ledger().counts().price, stages=tuple(sorted(stages)))


def this_run() -> "FlowRun | None":
    """The flow run this code is in, where it is one of a deployment."""
    if not in_flow_run():
        return None
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run: Any = context and context.flow_run
    return run if run is not None and run.deployment_id is not None else None


def kept() -> Allowance | None:
    """What this run was allowed at an earlier start."""
    run = this_run()
    if run is None or run.run_count <= 1:
        return None
    from prefect.input import read_flow_run_input

    said = read_flow_run_input(KEPT, flow_run_id=run.id)
    return None if said is None else Allowance.model_validate(said)


def keep(allowance: Allowance) -> None:
    """Keep what this run may spend for its next start, where there can be one."""
    run = this_run()
    if run is None:
        return
    from prefect.input import create_flow_run_input

    forget()
    create_flow_run_input(KEPT, allowance.model_dump(mode="json"), flow_run_id=run.id)


def forget() -> None:
    """Let the next start ask and count anew."""
    run = this_run()
    if run is None:
        return
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
    from prefect.input import delete_flow_run_input

    try:
        delete_flow_run_input(KEPT, flow_run_id=run.id)
    except ObjectNotFound:
        return
    except PrefectHTTPStatusError as error:
        if error.response.status_code != 404:
            raise
