"""Pacing: numbers one can do by hand, on a clock that the test turns."""

import pytest

from alpacafarm_core.pacing import Breaker, Limits, Pace, asked_wait


def test_a_rate_limit_halves_and_a_full_round_of_answers_adds_one() -> None:
    pace = Pace(8)
    pace.limited(sent=0.0, now=1.0, wait=0.0)
    assert pace.limit == 4.0
    for _ in range(4):
        pace.answered()
    assert pace.limit == pytest.approx(5.0, abs=0.1)


def test_rate_limits_of_one_moment_count_once() -> None:
    pace = Pace(8)
    for _ in range(5):
        pace.limited(sent=0.0, now=1.0, wait=0.0)
    assert pace.limit == 4.0
    pace.limited(sent=2.0, now=3.0, wait=0.0)
    assert pace.limit == 2.0


def test_at_least_one_and_at_most_the_limit_are_under_way() -> None:
    pace = Pace(2)
    for moment in range(9):
        pace.limited(sent=moment, now=moment, wait=0.0)
    assert pace.limit == 1.0
    for _ in range(9):
        pace.answered()
    assert pace.limit == 2.0


def test_all_wait_for_the_longest_wait_that_was_asked_for() -> None:
    pace = Pace(8)
    pace.limited(sent=0.0, now=10.0, wait=5.0)
    pace.limited(sent=0.0, now=11.0, wait=1.0)
    assert pace.not_before == 15.0


def test_waits_double_up_to_the_longest_and_vary_by_half() -> None:
    limits = Limits(first_wait=1.0, longest_wait=10.0)
    assert [limits.wait(tries, chance=1.0) for tries in range(6)] == [1, 2, 4, 8, 10, 10]
    assert limits.wait(2, chance=0.0) == 2.0


def test_failures_in_a_row_that_last_shut_an_endpoint_off() -> None:
    breaker = Breaker(Limits(strikes=3, grace=5.0, pause=30.0))
    for moment in (0.0, 1.0, 4.9):
        breaker.failed(moment, "HTTP 500")
    assert breaker.allows(4.9)
    breaker.failed(5.0, "HTTP 500")
    assert not breaker.allows(5.0)
    assert breaker.reason == "HTTP 500"


def test_what_is_final_needs_no_grace() -> None:
    breaker = Breaker(Limits(strikes=3))
    for _ in range(3):
        breaker.failed(0.0, "HTTP 401", is_final=True)
    assert not breaker.allows(0.0)


def test_one_is_let_through_after_each_pause() -> None:
    breaker = Breaker(Limits(strikes=1, grace=0.0, pause=30.0))
    breaker.failed(0.0, "HTTP 500")
    assert [breaker.allows(29.0), breaker.allows(30.0), breaker.allows(31.0)] == [
        False,
        True,
        False,
    ]
    breaker.answered()
    assert breaker.allows(31.0)


def test_an_answer_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(Limits(strikes=2, grace=0.0))
    breaker.failed(0.0, "HTTP 500")
    breaker.answered()
    breaker.failed(1.0, "HTTP 500")
    assert breaker.allows(1.0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "inf"}, 0.0),
    ],
)
def test_the_wait_that_a_server_asks_for(headers: dict[str, str], seconds: float) -> None:
    assert asked_wait(headers, now=10.0) == seconds
