"""How a run ends when a person or a cap ends it, and how often it may begin again.

Prefect calls every raised error `Failed`. A run that stopped at its budget, or whose price a person
refused, has done nothing wrong: its state has a name of its own, which automations can tell.
"""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from alpacafarm_core.errors import BudgetReached, CrashedTooOften, Refused
from flows.allowance import forget, this_run
from flows.logs import heed_level
from tasks.stage import in_flow_run

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

P = ParamSpec("P")
R = TypeVar("R")
CRASHES, LEFT = 3, "alpacafarm.run.left"
BUDGET_REACHED, REFUSED, CRASHED_TOO_OFTEN = "BudgetReached", "Refused", "CrashedTooOften"


def named_endings(body: Callable[P, R]) -> Callable[P, R]:
    """A flow's body whose run ends as BudgetReached, Refused or CrashedTooOften by name.

    Outside a flow run it is the body: its errors are raised.
    """

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if not in_flow_run():
            return body(*args, **kwargs)
        from prefect.states import Cancelled, Failed

        try:
            heed_level()
            refuse_endless_crashes(this_run())
            return body(*args, **kwargs)
        except BudgetReached as error:
            forget()
            return cast(R, Failed(name=BUDGET_REACHED, message=str(error), data=error))
        except CrashedTooOften as error:
            return cast(R, Failed(name=CRASHED_TOO_OFTEN, message=str(error), data=error))
        except Refused as error:
            return cast(R, Cancelled(name=REFUSED, message=str(error)))
        finally:
            tell_end()

    return run


def tell_end() -> None:
    """Say that this process is done with the run, after all its heartbeats.

    The server learns of a state before the last heartbeats come, and would then take a run that
    waits for a person for one that has died.
    """
    if run := this_run():
        from prefect.events import emit_event

        about = {"prefect.resource.id": f"prefect.flow-run.{run.id}"}
        tags = [
            {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
            for tag in run.tags
        ]
        emit_event(event=LEFT, resource=about, related=tags)


def refuse_endless_crashes(run: "FlowRun | None") -> None:
    """Raise CrashedTooOften for a run that was begun again after each of too many crashes."""
    if run is None or run.run_count <= CRASHES:
        return
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        states = sorted(client.read_flow_run_states(run.id), key=lambda state: state.timestamp)
    crashes = 0
    for state in states:
        # Who retries by hand after the end starts the count anew.
        crashes = 0 if state.name == CRASHED_TOO_OFTEN else crashes + state.is_crashed()
    if crashes > CRASHES:
        raise CrashedTooOften(
            f"crashed {crashes} times (memory? a worker that is stopped?); what is made is kept, "
            "mend the machine and choose Retry in the run's menu"
        )
