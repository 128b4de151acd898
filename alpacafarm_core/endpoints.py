"""Endpoints: who answers requests, the judges of the built-in world or a server somewhere."""

from functools import cache

from alpacafarm_core.errors import BadInput
from alpacafarm_core.llm import WORLD, Ask, openai_ask
from alpacafarm_core.world import judges


@cache
def ask_for(endpoint: str) -> Ask:
    """Who answers at an endpoint: the judges of the built-in world, or an OpenAI-compatible URL."""
    if endpoint == WORLD:
        return judges.ask
    if not endpoint.startswith(("http://", "https://")):
        raise BadInput(
            f"endpoint {endpoint!r} is neither {WORLD} nor a http(s) URL; mend the panel"
        )
    return openai_ask(endpoint)
