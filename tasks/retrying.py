"""Which failures of a stage are worth another try: those that may pass by themselves.

A judge or a machine that does not answer may do so in a minute. What is wrong with an input, a
price, a judge or the memory is as wrong at the second try, and a second try may cost as much.
"""

from typing import Any

from alpacafarm_core.errors import Unanswered, Unreachable

PASSING = (Unanswered, Unreachable, ConnectionError, TimeoutError)


def may_pass(error: object) -> bool:
    """Whether an error is one of transport."""
    from httpx import TransportError

    return isinstance(error, (*PASSING, TransportError))


def worth_repeating(_task: Any, _run: Any, state: Any) -> bool:
    """The same as Prefect asks it, of the state that a try ended in."""
    return may_pass(state.data)


RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": [10, 30, 90],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": worth_repeating,
}
