"""The health of an upstream: failures that count, retries that are left, and the circuit breaker."""

import time

import pytest
from structlog.testing import capture_logs

from proxy.errors import (
    BadResponse,
    CircuitOpen,
    Overloaded,
    ProxyError,
    SharedTimeout,
    TokenUnavailable,
    Unreachable,
    UpstreamTimeout,
)
from proxy.settings import Breaker, Upstream
from proxy.upstream.health import RETRIES_MAX, RETRIES_MIN, CircuitBreaker, RetryBudget, UpstreamHealth


def build_health(*, has_alternative: bool = False, failures: int | None = None) -> UpstreamHealth:
    """Return the health of an upstream called chat."""
    breaker = None if failures is None else Breaker(failures=failures)
    section = Upstream(base_url="http://chat.test/v1", breaker=breaker)
    return UpstreamHealth("chat", section, has_alternative=has_alternative)


def attempt(health: UpstreamHealth, error: ProxyError | None = None, status: int | None = None) -> None:
    """Make one attempt that ends with this error or status."""
    with health.attempt() as end:
        end.error, end.status = error, status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unreachable(), None),
        (BadResponse(), None),
        (UpstreamTimeout(), None),
        (None, 502),
        (None, 503),
        (None, 504),
    ],
)
def test_failures_of_an_upstream_open_its_circuit(error: ProxyError | None, status: int | None) -> None:
    health = build_health(failures=2)
    for _ in range(2):
        attempt(health, error, status)
    assert health.retry_in > 0
    with pytest.raises(CircuitOpen):
        attempt(health, status=200)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TokenUnavailable(), None),
        (Overloaded(), None),
        (SharedTimeout(), None),
        (None, 429),
        (None, 500),
        (None, 400),
        (None, 200),
    ],
)
def test_other_outcomes_do_not_open_the_circuit(error: ProxyError | None, status: int | None) -> None:
    health = build_health(failures=1)
    attempt(health, error, status)
    assert health.retry_in == 0


def test_a_caller_who_leaves_is_not_counted() -> None:
    health = build_health(failures=2)
    attempt(health, Unreachable())
    with pytest.raises(KeyboardInterrupt), health.attempt():
        raise KeyboardInterrupt
    attempt(health, Unreachable())
    assert health.retry_in > 0


def test_without_an_alternative_there_is_no_breaker_unless_configured() -> None:
    alone, beside = build_health(), build_health(has_alternative=True)
    for health in (alone, beside):
        for _ in range(5):
            attempt(health, Unreachable())
    assert (alone.retry_in, alone.reading().circuit) == (0, None)
    assert (beside.retry_in > 0, beside.reading().circuit) == (True, "opened")


def test_how_attempts_ended_is_counted() -> None:
    health = build_health()
    for status in (200, 201, 429):
        attempt(health, status=status)
    attempt(health, Unreachable())
    assert health.reading().attempts == {"2xx": 2, "4xx": 1, "upstream_unreachable": 1}


def test_retries_are_in_proportion_to_requests() -> None:
    budget = RetryBudget(0.2)
    while budget.withdraw():
        pass
    for _ in range(100):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(100)) == pytest.approx(20, abs=1)


def test_a_quiet_upstream_has_a_few_retries_and_a_bounded_reserve() -> None:
    budget = RetryBudget(0.2)
    assert sum(budget.withdraw() for _ in range(100)) == RETRIES_MIN
    for _ in range(10_000):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(100)) == RETRIES_MAX


def test_an_empty_budget_allows_no_retries() -> None:
    budget = RetryBudget(0.0)
    budget.deposit()
    assert not budget.withdraw()


# --- the circuit breaker


class Clock:
    """A monotonic clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of the breaker."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    """Make attempts that fail."""
    for _ in range(times):
        breaker.end(breaker.begin(), BadResponse())


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    """A breaker that opens after three failures, for ten seconds."""
    return CircuitBreaker("chat", Breaker(failures=3, cool_down=10))


def test_it_opens_after_failures_in_a_row(breaker: CircuitBreaker) -> None:
    with capture_logs() as lines:
        fail(breaker, 3)
    assert (breaker.state, breaker.retry_in) == ("opened", 10)
    assert [(line["event"], line["upstream"], line["state"]) for line in lines] == [
        ("circuit", "chat", "opened")
    ]
    with pytest.raises(CircuitOpen) as refused:
        breaker.begin()
    assert refused.value.headers["Retry-After"] == "10"


def test_a_success_in_between_resets_the_count(breaker: CircuitBreaker) -> None:
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
    assert (breaker.state, breaker.retry_in) == ("closed", 0)


def test_a_probe_that_fails_opens_it_for_another_cool_down(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10.5
    fail(breaker)
    assert (breaker.state, breaker.retry_in) == ("opened", 10)


def test_a_probe_whose_caller_left_makes_room_for_the_next_one(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10.5
    breaker.abandon(breaker.begin())
    assert breaker.retry_in == 0
    breaker.begin()
    assert breaker.state == "half-opened"


def test_attempts_under_way_when_it_opens_change_nothing(breaker: CircuitBreaker) -> None:
    tickets = [breaker.begin() for _ in range(6)]
    for ticket in tickets[:3]:
        breaker.end(ticket, BadResponse())
    breaker.end(tickets[3], None)
    breaker.end(tickets[4], BadResponse())
    assert (breaker.state, breaker.retry_in) == ("opened", 10)


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


def test_the_traceback_of_a_rejection_does_not_grow(breaker: CircuitBreaker) -> None:
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
