"""Deployments as Prefect has them, and how they come to a server."""

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from alpacafarm_core.recipe import digest
from flows.deploying import DEPLOYMENTS, POOL, WAIT, Deployment

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.deployments.runner import RunnerDeployment


def deployments(pool: str | None = None) -> "list[RunnerDeployment]":
    """Every deployment as Prefect has it; in its queue where a work pool is named."""
    return [_as_prefects(each, pool) for each in DEPLOYMENTS]


def register(pool: str = POOL) -> int:
    """Offer every deployment to the workers of a pool, made if it is lacking; returns how many.

    What the server has already as it is here is left alone: a registration takes it a while.
    """
    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    offered = deployments(pool)
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        held = {(str(each.flow_id), each.name): each.version for each in client.read_deployments()}
        flows = {each.name: str(each.id) for each in client.read_flows()}
    for each in offered:
        if held.get((flows.get(str(each.flow_name), ""), each.name)) != each.version:
            each.apply()
    return len(offered)


def _as_prefects(one: Deployment, pool: str | None) -> "RunnerDeployment":
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyOptions
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.events import DeploymentTriggerTypes

    changes = {
        "name": one.name,
        "description": one.description,
        "tags": one.labels,
        "parameters": one.parameters,
        "schedules": [
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=each.cron, timezone=each.timezone),
                **each.model_dump(include={"slug", "active", "parameters"}),
            )
            for each in one.schedules
        ],
        "triggers": TypeAdapter(list[DeploymentTriggerTypes]).validate_python([*one.triggers]),
        "concurrency_limit": one.limit,
        "concurrency_options": ConcurrencyOptions(collision_strategy=WAIT) if one.limit else None,
        "work_pool_name": pool,
        "work_queue_name": one.queue if pool else None,
    }
    made = _offered(one.flow).model_copy(update=changes)
    made = made.model_copy(update={"version": _version(made)})
    made._version_from_flow = False  # else a checkout's commit takes its place
    return made


def _version(made: "RunnerDeployment") -> str:
    """A digest of a deployment and its form, by which a server's copy is known to be the same."""
    said = made.model_dump(mode="json") | {"form": made._parameter_openapi_schema.model_dump()}
    return digest(said)[:12]


@cache
def _offered(flow: "Flow[..., Any]") -> "RunnerDeployment":
    """A flow as Prefect offers it: its form takes a second to draw up, so it is done once."""
    from prefect.deployments.runner import RunnerDeployment
    from prefect.types.entrypoint import EntrypointType
    from prefect.utilities.callables import ParameterSchema

    class Closed(ParameterSchema):
        """A form to which the API adds nothing: a run with an unknown parameter would crash."""

        additionalProperties: bool = False

    made = RunnerDeployment.from_flow(
        flow, name=flow.name, entrypoint_type=EntrypointType.MODULE_PATH
    )
    form = made._parameter_openapi_schema.model_dump(exclude_unset=True)
    made._parameter_openapi_schema = Closed(**form, additionalProperties=False)
    return made
