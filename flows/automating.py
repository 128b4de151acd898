"""What the server does by itself: dead runs begin again, and somebody is told of an end.

Declared by name each time deployments are registered, so that declaring twice changes nothing and
one that a person has switched off stays off.
"""

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from alpacafarm_core.errors import BadInput
from flows.endings import BUDGET_REACHED, CRASHED_TOO_OFTEN, LEFT

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

SILENT, AGAIN, TOLD = "alpacafarm: silent runs", "alpacafarm: begin again", "alpacafarm: tell"
NOTIFY, SILENCE, SLOTS = "ALPACAFARM_NOTIFY_URL", "ALPACAFARM_SILENCE", "ALPACAFARM_GPU_SLOTS"
BLOCK, GPU = "alpacafarm-notify", "gpu"
OURS = {"prefect.resource.id": "prefect.tag.alpacafarm", "prefect.resource.role": "tag"}
RUNS = {"prefect.resource.id": "prefect.flow-run.*"}
ENDS = ("Failed", "Suspended", BUDGET_REACHED, CRASHED_TOO_OFTEN)
LONGEST = timedelta(days=30)
SUBJECT = "{{ flow.name }} {{ flow_run.name }}: {{ flow_run.state.name }}"
BODY = "{{ flow_run.state.message }} {{ flow_run|ui_url }}"


class Declared(NamedTuple):
    """Names of what is on the server now."""

    automations: tuple[str, ...]
    limits: tuple[str, ...]


def declare(gpus: int) -> Declared:
    """Put automations and the limit on GPU stages on the server, where they are not yet.

    `gpus` is the number of slots of a limit that is not there. Raises BadInput for a variable that
    cannot be used.
    """
    from prefect.client.orchestration import get_client

    slots, silence = count_of(SLOTS, gpus, 1), count_of(SILENCE, 180, 60)
    with get_client(sync_client=True) as client:
        named = automations(silence, _told_by(os.environ.get(NOTIFY, "")))
        for each in named:
            _put(client, each)
        _limit(client, slots)
    return Declared(tuple(each.name for each in named), (GPU,))


def automations(silence: int, told: "SendNotification | None" = None) -> "list[AutomationCore]":
    """The automations; `silence` is how many seconds a run may show no life."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore

    dead = ChangeFlowRunState(state=StateType.CRASHED, message="No sign of life; begun again")
    again = ChangeFlowRunState(
        state=StateType.SCHEDULED, name="AwaitingRetry", message="Begun again after a crash"
    )
    named = [
        AutomationCore(
            name=SILENT,
            description="A run whose process and worker died is marked as crashed.",
            trigger=_silent(timedelta(seconds=silence)),
            actions=[dead],
        ),
        AutomationCore(
            name=AGAIN,
            description="A crashed run goes on from its cached stages, three times at most.",
            trigger=_seen("Crashed", after="Running", within=LONGEST),
            actions=[again],
        ),
    ]
    if told is not None:
        named.append(
            AutomationCore(
                name=TOLD,
                description=f"A run failed, stopped at its budget or waits: {NOTIFY} is told.",
                trigger=_seen(*ENDS),
                actions=[told],
            )
        )
    return named


def count_of(name: str, otherwise: int, least: int) -> int:
    """A whole number from the environment; raises BadInput below the least."""
    said = os.environ.get(name, "")
    if not said:
        return max(otherwise, least)
    if not said.isdecimal() or int(said) < least:
        raise BadInput(f"{name}={said!r} is no whole number of {least} or more; unset it or mend")
    return int(said)


def _silent(within: timedelta) -> "EventTrigger":
    """No event at all of a run that has shown life, not even one of its end."""
    from prefect.events.schemas.automations import EventTrigger, Posture

    return EventTrigger(
        posture=Posture.Proactive,
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*", LEFT},
        match=RUNS,
        match_related=OURS,
        for_each={"prefect.resource.id"},
        within=within,
    )


def _seen(*states: str, after: str = "", within: timedelta = timedelta(0)) -> "EventTrigger":
    """A run came into one of these states."""
    from prefect.events.schemas.automations import EventTrigger, Posture

    return EventTrigger(
        posture=Posture.Reactive,
        after={f"prefect.flow-run.{after}"} if after else set(),
        expect={f"prefect.flow-run.{state}" for state in states},
        match=RUNS,
        match_related=OURS,
        for_each={"prefect.resource.id"},
        within=within,
    )


def _told_by(url: str) -> "SendNotification | None":
    """The action that posts to a webhook; its address is kept as a secret of a block."""
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        raise BadInput(f"{NOTIFY} is no http(s) address of a webhook; set one, or unset it")
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.events.actions import SendNotification

    block: Any = CustomWebhookNotificationBlock(
        name="alpacafarm",
        url="{{address}}",
        json_data={"text": "{{subject}}\n{{body}}"},
        secrets={"address": url},
    )
    return SendNotification(
        block_document_id=block.save(BLOCK, overwrite=True), subject=SUBJECT, body=BODY
    )


def _put(client: "SyncPrefectClient", wanted: "AutomationCore") -> None:
    """Create an automation, or change the one of its name; a person's switch is kept."""
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return
    held = found[0]
    wanted = wanted.model_copy(update={"enabled": held.enabled})
    if _plain(held) != _plain(wanted):
        client.update_automation(held.id, wanted)


def _plain(automation: "AutomationCore") -> dict[str, Any]:
    """What was declared, without what the server adds."""
    names = {"name", "description", "enabled", "trigger", "actions"}
    said: dict[str, Any] = automation.model_dump(mode="json", include=names)
    for each in ("after", "expect", "for_each"):
        said["trigger"][each] = sorted(said["trigger"][each])
    said["trigger"].pop("id", None)
    return said


def _limit(client: "SyncPrefectClient", slots: int) -> None:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_global_concurrency_limit_by_name(GPU)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU, limit=slots))
