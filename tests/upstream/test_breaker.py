"""The circuit of one upstream: closed, opened after failures in a row, tried by one request, closed again."""

import time

import pytest
from structlog.testing import capture_logs

from proxy.errors import BadResponse, CircuitOpen
from proxy.settings import Breaker
from proxy.upstream.health import CircuitBreaker


class Clock:
    """A clock that only goes forward, set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the breaker takes for the time."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    """Attempts that fail."""
    for _ in range(times):
        breaker.end(breaker.begin(), BadResponse())


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    """One that opens after three failures, for ten seconds."""
    return CircuitBreaker("chat", Breaker(failures=3, cool_down=10))


def test_it_opens_after_failures_in_a_row(breaker: CircuitBreaker) -> None:
    with capture_logs() as lines:
        fail(breaker, 3)
    assert (breaker.state, breaker.opens_in) == ("opened", 10)
    assert [(line["event"], line["upstream"], line["state"]) for line in lines] == [
        ("circuit", "chat", "opened")
    ]
    with pytest.raises(CircuitOpen) as refused:
        breaker.begin()
    assert refused.value.headers["Retry-After"] == "10"


def test_a_success_in_between_starts_the_count_anew(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    breaker.end(breaker.begin(), None)
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_after_the_cool_down_one_request_is_let_through(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10.5
    probe = breaker.begin()
    assert breaker.state == "half-opened"
    for _ in range(3):
        with pytest.raises(CircuitOpen):
            breaker.begin()
    breaker.end(probe, None)
    assert (breaker.state, breaker.opens_in) == ("closed", 0)


def test_a_probe_that_fails_opens_it_for_another_cool_down(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10.5
    fail(breaker)
    assert (breaker.state, breaker.opens_in) == ("opened", 10)


def test_a_probe_whose_caller_left_leaves_the_place_to_the_next_one(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, 3)
    clock.now += 10.5
    breaker.abandon(breaker.begin())
    assert breaker.opens_in == 0
    breaker.begin()
    assert breaker.state == "half-opened"


def test_attempts_under_way_when_it_opens_change_nothing(breaker: CircuitBreaker) -> None:
    tickets = [breaker.begin() for _ in range(6)]
    for ticket in tickets[:3]:
        breaker.end(ticket, BadResponse())
    breaker.end(tickets[3], None)
    breaker.end(tickets[4], BadResponse())
    assert (breaker.state, breaker.opens_in) == ("opened", 10)


@pytest.mark.parametrize("how", ["abandon", "succeed", "fail"])
def test_an_old_attempt_is_not_taken_for_the_probe(breaker: CircuitBreaker, clock: Clock, how: str) -> None:
    old = breaker.begin()
    fail(breaker, 3)
    clock.now += 10.5
    probe = breaker.begin()
    if how == "abandon":
        breaker.abandon(old)
    else:
        breaker.end(old, BadResponse() if how == "fail" else None)
    assert breaker.state == "half-opened"
    with pytest.raises(CircuitOpen):
        breaker.begin()
    breaker.end(probe, None)
    assert breaker.state == "closed"


def test_the_wall_clock_may_be_set_back(
    breaker: CircuitBreaker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(breaker, 3)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    clock.now += 10.5
    breaker.end(breaker.begin(), None)
    assert breaker.state == "closed"


def test_refusals_leave_nothing_behind(breaker: CircuitBreaker) -> None:
    fail(breaker, 3)
    frames = set()
    for _ in range(3):
        with pytest.raises(CircuitOpen) as refused:
            breaker.begin()
        trace, depth = refused.value.__traceback__, 0
        while trace is not None:
            trace, depth = trace.tb_next, depth + 1
        frames.add(depth)
    assert len(frames) == 1
