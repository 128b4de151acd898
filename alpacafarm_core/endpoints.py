"""Endpoints: who answers requests, the judges of the built-in world or a server somewhere."""

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from alpacafarm_core.asked import Asked
from alpacafarm_core.assessors import Assessors
from alpacafarm_core.batch_api import BatchApi
from alpacafarm_core.client import openai_ask
from alpacafarm_core.errors import BadInput
from alpacafarm_core.llm import PEOPLE, WORLD, Ask
from alpacafarm_core.machine import Machine
from alpacafarm_core.pacing import Limits
from alpacafarm_core.panel import Panel
from alpacafarm_core.world import judges

OPENAI = "api.openai.com"
SECRET = re.compile(r"key|token|secret|password|sig", re.IGNORECASE)


def ask_for(endpoint: str, folder: Path = Path()) -> Ask:
    """Who answers at an endpoint: the judges of the built-in world, or an OpenAI-compatible URL.

    `folder` is where batches under way at its Batch API are remembered, where that is asked for.
    """
    if endpoint == WORLD:
        return judges.ask
    if endpoint == PEOPLE:
        raise BadInput("people answer in the Prefect UI; run the flow `people` there")
    if not endpoint.startswith(("http://", "https://")):
        raise BadInput(
            f"endpoint {endpoint!r} is neither {WORLD} nor a http(s) URL; mend the panel"
        )
    if urlsplit(endpoint).hostname == OPENAI and not os.environ.get("OPENAI_API_KEY"):
        raise BadInput(f"{OPENAI} wants a key; set OPENAI_API_KEY, or choose another panel")
    machine = Machine.here()
    if machine.batch_api:
        return BatchApi(endpoint, folder)
    return _client(endpoint, Limits(concurrency=machine.concurrency, timeout=machine.timeout))


# One client for all who ask an endpoint, so that together they keep to its limits.
_client = cache(openai_ask)


def check(panel: Panel | Assessors) -> None:
    """Refuse a panel with a model that the built-in world lacks, or words without a tokenizer.

    A server alone knows its own models.
    """
    if isinstance(panel, Panel):
        for annotator in panel.annotators:
            annotator.body()
        _refuse_strangers(panel.name, "annotator", panel.annotators)
    else:
        _refuse_strangers(panel.name, "assessor", panel.assessors)


def _refuse_strangers(panel: str, kind: str, asked: Sequence[Asked]) -> None:
    for each in asked:
        if _holds_secret(each.endpoint):
            raise BadInput(
                f"panel {panel}: the endpoint of {kind} {each.name} holds a secret; "
                "set OPENAI_API_KEY instead, as endpoints are part of what is kept"
            )
        if each.endpoint == WORLD and each.model not in judges.MODELS:
            raise BadInput(
                f"panel {panel}: {kind} {each.name} asks for {each.model!r}, "
                f"which the built-in world lacks; it has {', '.join(judges.MODELS)}"
            )


def _holds_secret(endpoint: str) -> bool:
    """Whether an argument in an address is named like a secret; a user in it is no endpoint."""
    named = (each.partition("=")[0] for each in urlsplit(endpoint).query.split("&"))
    return any(SECRET.search(name) for name in named)
