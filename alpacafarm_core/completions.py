"""Completions as they go over the wire: a request to the body of a call, a body to an answer.

Plain dicts both ways: validating every field of a response costs more than the rest of a call.
"""

import json
import math
import os
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from alpacafarm_core.errors import BadInput
from alpacafarm_core.llm import Answer, Request

if TYPE_CHECKING:
    from openai import DefaultAsyncHttpxClient

CHAT, PLAIN = "/chat/completions", "/completions"
MOST_BYTES = (
    32 << 20
)  # of a response, unpacked; a long answer with log-probabilities is below 1 MiB
_OF_THE_PACKING = {"content-encoding", "content-length", "transfer-encoding"}
# Without content an answer stands only where the server says why there is none.
_EMPTY_FOR_A_REASON = {"content_filter", "length"}
# OpenRouter and vLLM say so inside a success; what text there is was cut off.
_BROKEN_OFF = {"error", "abort"}


class NoCompletion(ValueError):
    """What came back is no completion: a web page, torn JSON, no choices, no content."""


def api_key() -> str:
    """The key of endpoints, from OPENAI_API_KEY only; raises BadInput when no header can hold it.

    Endpoints without keys take any.
    """
    held = os.environ.get("OPENAI_API_KEY", "").strip() or "EMPTY"
    if not (held.isascii() and held.isprintable()):
        raise BadInput("OPENAI_API_KEY holds characters that no key has; set it again")
    return held


def http_client() -> "DefaultAsyncHttpxClient":
    """What carries the calls: it follows no redirect and reads no endless body.

    Raises NoCompletion where a body, unpacked, is longer than MOST_BYTES.
    """
    from openai import DefaultAsyncHttpxClient

    class Bounded(DefaultAsyncHttpxClient):
        async def send(self, request: Any, *, stream: bool = False, **how: Any) -> Any:
            return await _whole(await super().send(request, stream=True, **how))

    return Bounded(follow_redirects=False)


async def _whole(response: Any) -> Any:
    """The response with all of its body, unpacked."""
    if _is_short(response.headers):
        await response.aread()
        return response
    parts, size = list[bytes](), 0
    async with aclosing(response):
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                raise NoCompletion(f"the body is longer than {MOST_BYTES >> 20} MiB")
    given = response.headers.multi_items()
    headers = [(name, value) for name, value in given if name.lower() not in _OF_THE_PACKING]
    return type(response)(
        response.status_code, headers=headers, content=b"".join(parts), request=response.request
    )


def _is_short(headers: Any) -> bool:
    """Whether a body says how long it is, and that is bounded; the connection holds it to that."""
    length = headers.get("content-length", "")
    bounded = (
        length.isascii() and length.isdigit() and len(length) < 12 and int(length) <= MOST_BYTES
    )
    return bounded and "content-encoding" not in headers


def path(request: Request) -> str:
    """Where a request goes, below the base URL."""
    return PLAIN if request.messages[0].role == "text" else CHAT


def body(request: Request) -> dict[str, Any]:
    """The JSON object that asks for one completion."""
    sampling: dict[str, Any] = {
        "model": request.model,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
    }
    if request.messages[0].role == "text":
        sampling["prompt"] = request.messages[0].content
        if request.top_logprobs:
            sampling["logprobs"] = request.top_logprobs
    else:
        sampling["messages"] = [
            {"role": message.role, "content": message.content} for message in request.messages
        ]
        if request.top_logprobs:
            sampling |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    return {**sampling, **json.loads(request.extra or "{}")}


def read(held: bytes | Any, seconds: float) -> Answer:
    """The first choice of a response, given as bytes or parsed; raises NoCompletion."""
    try:
        return _read(json.loads(held) if isinstance(held, bytes) else held, seconds)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise NoCompletion("the body is no completion") from None


def _read(held: Any, seconds: float) -> Answer:
    choice, usage = held["choices"][0], held.get("usage") or {}
    message, reason = choice.get("message"), choice.get("finish_reason") or ""
    if reason in _BROKEN_OFF:
        raise ValueError(reason)
    said = choice["text"] if message is None else _said(message)
    if said is None and reason in _EMPTY_FOR_A_REASON:
        said = ""
    if not isinstance(said, str):
        raise TypeError(said)
    return Answer(
        _of_whole_characters(said),
        _of_whole_characters(str(reason)),
        _tokens(usage, "prompt_tokens"),
        _tokens(usage, "completion_tokens"),
        seconds,
        logprobs=_logprobs(choice.get("logprobs") or {}),
    )


def _said(message: dict[str, Any]) -> Any:
    """The arguments of a tool call, the content, or the refusal that came in its place."""
    if calls := message.get("tool_calls"):
        return calls[0]["function"]["arguments"]
    content = message.get("content")
    return content or message.get("refusal") or content


def _of_whole_characters(text: str) -> str:
    """An escape such as `ud83d` alone is half a character, which no file can hold: U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _tokens(usage: dict[str, Any], name: str) -> int:
    """A count, 0 where there is none."""
    count = int(usage.get(name) or 0)
    if not 0 <= count < 2**53:
        raise ValueError(count)
    return count


def _logprobs(held: dict[str, Any]) -> tuple[dict[str, float], ...]:
    """For each generated token the log-probabilities of the likeliest ones, where asked for."""
    if content := held.get("content"):
        return tuple(
            {top["token"]: _logprob(top["logprob"]) for top in token.get("top_logprobs") or ()}
            for token in content
        )
    plain = (tops or {} for tops in held.get("top_logprobs") or ())
    return tuple({token: _logprob(number) for token, number in tops.items()} for tops in plain)


def _logprob(held: Any) -> float:
    if math.isnan(number := float(held)):
        raise ValueError(held)
    return number
