"""Who is asked: a model at an endpoint, how it is sampled, and what its answers cost.

Judges of every kind are somebody who is asked: those who choose between two outputs, and those who
rate, criticise or tag.
"""

from typing import Any, Literal

from pydantic import Field

from alpacafarm_core.values import Value


class Asked(Value):
    """A model, and how it is asked and paid."""

    name: str = Field(description="Name in the table of labels")
    model: str = Field(description="Model asked")
    endpoint: str = Field(
        default="world://",
        pattern=r"^(world://|people://|https?://[^@\s]+)$",
        description="world:// or a base URL without secrets",
    )
    api: Literal["chat", "completions"] = Field(default="chat", description="Kind of request")
    temperature: float = Field(default=1.0, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus kept")
    extra: dict[str, Any] = Field(default={}, description="Further fields of the request's body")
    price_per_1k_tokens: float | None = Field(
        default=None, ge=0, description="US dollars; none takes the table's price of the model"
    )
    price_per_call: float = Field(default=0.0, ge=0, description="US dollars, as people are paid")

    def longest(self, tokens: int) -> int:
        """Tokens of the longest answers that a call can ask for, where it asks for `tokens`.

        `extra` may give limits of its own, and ask for several answers at once.
        """
        limits = [self.extra.get(name) for name in ("max_tokens", "max_completion_tokens")]
        given = [each for each in limits if isinstance(each, int)]
        choices = self.extra.get("n")
        times = choices if isinstance(choices, int) else 1
        return max(1, times) * max(tokens, *given, 0)
