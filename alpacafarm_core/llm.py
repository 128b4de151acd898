"""The seam to language models: requests in, answers out, in the same order.

`Ask` is the only way judges reach a model. A fake is a function. What is here beside the types is
the one real client, for any OpenAI-compatible URL.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; `role` is system, user, assistant, or text for a plain completion prompt."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One call to one model."""

    model: str
    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    seed: int = 0
    top_p: float = 1.0
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `status` is ok or failed, and a failed answer has `error` instead of text."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    status: str = "ok"
    error: str = ""
    logprobs: tuple[dict[str, float], ...] = ()


Ask = Callable[[Sequence[Request]], list[Answer]]
